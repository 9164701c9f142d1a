//! Small clients over the standard library's sockets. They act where their thread is: run them in
//! [`super::Namespace::run`].

use super::{
    servers::SLOW_RATE,
    wait::{self, patience},
};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Of an answer, taken at a time.
const PIECE: usize = 1 << 16;
/// Of an answer that is taken slowly, what the kernel takes ahead at most.
const AHEAD: usize = 4 * PIECE;

/// How long a client waits for an answer: 15 s of the usual [`patience`], so that a machine that is paused meanwhile is none that
/// does not answer.
fn timeout() -> Duration {
    patience() / 12
}

/// What a pod says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Name of the pod.
    pub pod: String,
    /// The client as the pod saw it.
    pub client: SocketAddr,
    /// The client as it is.
    pub local: SocketAddr,
}

/// Asks a pod's web server, or whoever serves at `address`, who it is; over a connection of its own.
///
/// # Errors
/// When there is no answer in time or it is not as expected.
pub fn ask(address: SocketAddr) -> Result<Answer> {
    ask_on(&mut connect(address)?)
}

/// As [`ask`], over a connection that can be used again.
///
/// # Errors
/// As [`ask`].
pub fn ask_on(connection: &mut TcpStream) -> Result<Answer> {
    let local = connection.local_addr()?;
    let body = get_on(connection, "/")?;
    parse(&body, local)
}

/// Asks a pod's UDP echo, from a socket of its own.
///
/// # Errors
/// As [`ask`].
pub fn ask_udp(address: SocketAddr) -> Result<Answer> {
    let socket = udp_socket(address)?;
    ask_udp_again(&socket)
}

/// A UDP socket connected to `address`.
///
/// # Errors
/// When there is no route.
pub fn udp_socket(address: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if address.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    udp_socket_from(any, address)
}

/// As [`udp_socket`], from an address that the namespace has.
///
/// # Errors
/// As [`udp_socket`]; also when it has not.
pub fn udp_socket_from(source: IpAddr, address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((source, 0)).with_context(|| format!("cannot use {source}"))?;
    socket.set_read_timeout(Some(timeout()))?;
    socket
        .connect(address)
        .with_context(|| format!("no way to {address}"))?;
    Ok(socket)
}

/// Asks a pod's UDP echo over a socket that may have been used before.
///
/// # Errors
/// As [`ask`]; also when the payload does not come back unchanged.
pub fn ask_udp_again(socket: &UdpSocket) -> Result<Answer> {
    ask_udp_with(socket, b"what goes out comes back")
}

/// As [`ask_udp_again`], with a payload of the caller's.
///
/// # Errors
/// As [`ask_udp_again`].
pub fn ask_udp_with(socket: &UdpSocket, payload: &[u8]) -> Result<Answer> {
    socket.send(payload)?;
    let mut buffer = vec![0; 1 << 16];
    let length = wait::uninterrupted(|| socket.recv(&mut buffer))
        .with_context(|| format!("no UDP answer from {:?}", socket.peer_addr()))?;
    let (text, echoed) = split_line(&buffer[..length]).context("a UDP answer without text")?;
    ensure!(
        echoed == payload,
        "{} bytes came back changed, as {}",
        payload.len(),
        echoed.len()
    );
    parse(text, socket.local_addr()?)
}

/// Asks a UDP echo of IPv4, and says who answers, whoever that is.
///
/// # Errors
/// When nobody does.
pub fn answers_from(address: SocketAddr) -> Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(timeout()))?;
    socket.send_to(b"who is there", address)?;
    let (_, sender) =
        wait::uninterrupted(|| socket.recv_from(&mut [0; 1500])).with_context(|| format!("no answer to {address}"))?;
    Ok(sender)
}

/// Gives every packet of an IPv6 socket, from now on, a header of destination options that is 488 bytes long: two of a kind for
/// experiments, which whoever does not know it skips (RFC 8200, 4.2; RFC 4727, 5).
///
/// # Errors
/// When the kernel refuses, as it does without CAP_NET_RAW.
pub fn add_destination_options(socket: &UdpSocket) -> Result<()> {
    const KIND: u8 = 0x1e;
    const DATA: u8 = 241;
    let option = [&[KIND, DATA][..], &[0; DATA as usize]].concat();
    let mut header = [[0, 0].as_slice(), &option, &option].concat();
    // In units of eight bytes, without the first; what comes next is the kernel's to say.
    header[1] = u8::try_from(header.len() / 8 - 1)?;
    #[expect(unsafe_code, reason = "nix does not know this option")]
    // SAFETY: the kernel reads as many bytes as it is told that there are.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_DSTOPTS,
            header.as_ptr().cast(),
            libc::socklen_t::try_from(header.len())?,
        )
    };
    ensure!(result == 0, "no destination options: {}", io::Error::last_os_error());
    Ok(())
}

/// The body of `http://ADDRESS/PATH`.
///
/// # Errors
/// When the connection breaks, nothing comes for [`patience`] / 12, or the status is not 200.
pub fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>> {
    get_on(&mut connect(address)?, path)
}

/// As [`get`], over a connection that can be used again.
///
/// # Errors
/// As [`get`].
pub fn get_on(connection: &mut TcpStream, path: &str) -> Result<Vec<u8>> {
    request(connection, path, &Progress::default())
}

/// Sends `body` to `http://ADDRESS/PATH`, over a connection that can be used again.
///
/// # Errors
/// As [`get`]; the status has to be that of a file created or replaced.
pub fn put_on(connection: &mut TcpStream, path: &str, body: &[u8]) -> Result<()> {
    let (status, _) = send_on(connection, "PUT", path, body)?;
    ensure!(status == 201 || status == 204, "PUT {path}: status {status}");
    Ok(())
}

/// What comes back for `body` sent to `http://ADDRESS/PATH`.
///
/// # Errors
/// As [`get`].
pub fn post(address: SocketAddr, path: &str, body: &str) -> Result<Vec<u8>> {
    let (status, answer) = send_on(&mut connect(address)?, "POST", path, body.as_bytes())?;
    ensure!(
        status == 200,
        "POST {path}: status {status}: {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(answer)
}

fn send_on(connection: &mut TcpStream, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: lab\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes())?;
    connection.write_all(body).context("the upload broke")?;
    response(connection, &Progress::default())
}

/// How far an answer has come, and whether it may come to its end.
#[derive(Debug, Default)]
pub struct Progress {
    received: AtomicUsize,
    slow: AtomicBool,
}

impl Progress {
    /// That of an answer that is taken with [`SLOW_RATE`], and all but the last of it, until [`Self::hurry`].
    pub fn slow() -> Self {
        Self {
            slow: true.into(),
            ..Self::default()
        }
    }

    /// Bytes of the body so far.
    pub fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    /// From now on it is taken as it comes.
    pub fn hurry(&self) {
        self.slow.store(false, Ordering::Relaxed);
    }

    fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Notes that `got` more bytes are here, and waits until the next may be taken, of which there are `missing`.
    fn advance(&self, got: usize, missing: usize) {
        self.received.fetch_add(got, Ordering::Relaxed);
        let due = Instant::now() + Duration::from_secs(1) * got as u32 / SLOW_RATE as u32;
        let is_last = (1..=PIECE).contains(&missing);
        while self.is_slow() && (is_last || Instant::now() < due) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A TCP connection with a time-out on both directions.
///
/// # Errors
/// When it is refused or not answered.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let connection =
        TcpStream::connect_timeout(&address, timeout()).with_context(|| format!("cannot connect to {address}"))?;
    connection.set_read_timeout(Some(timeout()))?;
    connection.set_write_timeout(Some(timeout()))?;
    Ok(connection)
}

/// Requests `path` over a connection that can be used again, and takes the body as `progress` has it.
///
/// # Errors
/// As [`get`].
pub fn request(connection: &mut TcpStream, path: &str, progress: &Progress) -> Result<Vec<u8>> {
    connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n").as_bytes())?;
    let (status, body) = response(connection, progress)?;
    ensure!(
        status == 200,
        "GET {path}: status {status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(body)
}

/// Reads one answer; nginx always announces its length, so the connection can stay.
fn response(connection: &mut TcpStream, progress: &Progress) -> Result<(u16, Vec<u8>)> {
    if progress.is_slow() {
        // Or most of a file would be here before it is asked for.
        setsockopt(connection, RcvBuf, &AHEAD)?;
    }
    let mut reader = BufReader::with_capacity(PIECE, connection);
    let mut line = String::new();
    reader.read_line(&mut line).context("no answer")?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("not an HTTP status line: {line:?}"))?;
    let mut length = 0_usize;
    loop {
        line.clear();
        ensure!(
            reader.read_line(&mut line)? > 0,
            "the connection ended inside the headers"
        );
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = Vec::new();
    let mut buffer = vec![0; PIECE];
    while body.len() < length {
        let wanted = buffer.len().min(length - body.len());
        let got = wait::uninterrupted(|| reader.read(&mut buffer[..wanted]));
        let got = got.with_context(|| format!("the connection broke after {} of {length} bytes", body.len()))?;
        ensure!(got > 0, "the connection ended after {} of {length} bytes", body.len());
        body.extend(&buffer[..got]);
        progress.advance(got, length - body.len());
    }
    Ok((status, body))
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn parse(body: &[u8], local: SocketAddr) -> Result<Answer> {
    let text = str::from_utf8(body).context("an answer that is not text")?;
    let field = |name: &str| {
        let mut words = text.split_whitespace().filter_map(|word| word.split_once('='));
        words.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    match (field("pod"), field("client"), field("port")) {
        (Some(pod), Some(client), Some(port)) => Ok(Answer {
            pod: pod.into(),
            client: SocketAddr::new(client.parse()?, port.parse()?),
            local,
        }),
        _ => bail!("not an answer of a pod: {text:?}"),
    }
}
