//! What runs in pods: nginx over TCP, an echo over UDP. Both answer with the pod's name and the client as they see it.

use super::{Family, Lab, Pod, client, process::Process, wait};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    io::{BufWriter, ErrorKind, Write},
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Where pods serve HTTP; other than the port of any Service, so that ports are seen to be rewritten.
pub const WEB_PORT: u16 = 8080;
/// Where pods echo UDP.
pub const ECHO_PORT: u16 = 5353;
/// How fast `/slow/` is served, in bytes per second and connection.
pub const SLOW_RATE: usize = 1 << 20;

/// An nginx in a pod. `/` names pod and client, `/files/` and `/slow/` serve the lab's files, `/upload/` takes PUTs.
#[derive(Debug)]
pub struct Web {
    process: Process,
    directory: PathBuf,
}

impl Web {
    /// Starts nginx in `pod` and returns when it answers there.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(lab: &Lab, pod: &Pod) -> Result<Self> {
        let directory = lab.directory().join(&pod.name);
        fs::create_dir_all(directory.join("upload"))?;
        let configuration = directory.join("nginx.conf");
        fs::write(&configuration, configuration_of(pod, &directory, &files(lab)))?;
        let mut command = pod.namespace.command("nginx");
        command.arg("-p").arg(&directory).arg("-c").arg(&configuration);
        command.arg("-e").arg(directory.join("error.log"));
        let mut process = Process::start(command, "nginx", &directory.join("nginx.log"))?;
        let own = SocketAddr::new(pod.address(Family::V4), WEB_PORT);
        process.wait_until("nginx", || pod.namespace.run(|| client::get(own, "/")))?;
        Ok(Self { process, directory })
    }

    /// What was uploaded as `/upload/NAME`.
    ///
    /// # Errors
    /// When nothing was.
    pub fn uploaded(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.directory.join("upload").join(name);
        fs::read(&file).with_context(|| format!("no upload {}", file.display()))
    }

    /// Lets nginx finish and end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(wait::PATIENCE).map(drop)
    }
}

/// Starts nginx in every pod.
///
/// # Errors
/// When one does not come up.
pub fn start_web_everywhere(lab: &Lab) -> Result<Vec<Web>> {
    lab.pods().map(|pod| Web::start(lab, pod)).collect()
}

/// Makes a file of `length` bytes that nginx serves as `/files/NAME` and `/slow/NAME`; its content does not repeat.
///
/// # Errors
/// When it cannot be written.
pub fn make_file(lab: &Lab, name: &str, length: usize) -> Result<PathBuf> {
    let folder = files(lab);
    fs::create_dir_all(&folder)?;
    let file = folder.join(name);
    let mut writer = BufWriter::new(File::create(&file)?);
    writer.write_all(&content(length))?;
    writer.flush()?;
    Ok(file)
}

/// The bytes of a file of `length` bytes made by [`make_file`].
pub fn content(length: usize) -> Vec<u8> {
    // Xorshift (Marsaglia 2003): bytes out of place are noticed, and no source of randomness is needed.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn files(lab: &Lab) -> PathBuf {
    lab.directory().join("files")
}

fn configuration_of(pod: &Pod, own: &Path, files: &Path) -> String {
    let (own, files, name) = (own.display(), files.display(), &pod.name);
    format!(
        r#"daemon off;
user root;
worker_processes 1;
pid {own}/nginx.pid;
error_log {own}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  default_type text/plain;
  client_max_body_size 1g;
  # Longer than any test: a connection that nobody uses for a while is none that breaks.
  keepalive_timeout 1h;
  send_timeout 1h;
  client_body_temp_path {own}/body;
  proxy_temp_path {own}/proxy;
  fastcgi_temp_path {own}/fastcgi;
  uwsgi_temp_path {own}/uwsgi;
  scgi_temp_path {own}/scgi;
  server {{
    listen {WEB_PORT} backlog=4096;
    listen [::]:{WEB_PORT} backlog=4096;
    root {own};
    location / {{ return 200 "pod={name} client=$remote_addr port=$remote_port\n"; }}
    location /files/ {{ alias {files}/; }}
    location /slow/ {{ alias {files}/; limit_rate {SLOW_RATE}; }}
    location /upload/ {{ dav_methods PUT; }}
  }}
}}
"#
    )
}

/// A UDP echo in a pod; dropping it ends it.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts to answer on [`ECHO_PORT`] of `pod`.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn start(pod: &Pod) -> Result<Self> {
        // The socket stays in the namespace it was made in, wherever it is used.
        let socket = pod.namespace.run(|| {
            let socket = UdpSocket::bind(("::", ECHO_PORT)).context("cannot bind the echo's port")?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(socket)
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let (name, asked_to_stop) = (pod.name.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !asked_to_stop.load(Ordering::Relaxed) {
                if let Err(error) = answer_one(&socket, &name) {
                    eprintln!("echo of {name}: {error}");
                }
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; there is nobody to pass it on to.
            let _ = thread.join();
        }
    }
}

fn answer_one(socket: &UdpSocket, name: &str) -> std::io::Result<()> {
    let mut buffer = [0; 1 << 16];
    let (length, client) = match wait::uninterrupted(|| socket.recv_from(&mut buffer)) {
        Ok(received) => received,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut reply = format!(
        "pod={name} client={} port={}\n",
        client.ip().to_canonical(),
        client.port()
    )
    .into_bytes();
    reply.extend(&buffer[..length]);
    socket.send_to(&reply, client).map(drop)
}
