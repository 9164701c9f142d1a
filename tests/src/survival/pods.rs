//! What runs in the pods: one program for all of them, because a socket stays in the namespace it was made in.
//!
//! A program of its own, because both ends of ten thousand connections are more descriptors than a process may have.

use super::{
    message::{self, Request},
    retransmissions,
};
use crate::lab::{Lab, Namespace, agent, process::Process};
use anyhow::{Context, Result};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream, UnixListener},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv6Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::PathBuf,
};

/// First of the ports pods listen on, one for each Service: flows towards two VIPs that led to one port of a pod could
/// meet in one flow there.
const FIRST_PORT: u16 = 9000;

/// Tokens: the control socket, listeners, then connections.
const CONTROL: Token = Token(0);

/// The running program; dropping it ends it.
#[derive(Debug)]
pub struct Pods {
    process: Process,
    control: PathBuf,
}

impl Pods {
    /// Listens in every pod of `lab`, on `services` ports.
    ///
    /// # Errors
    /// When the program does not come up.
    pub fn start(lab: &Lab, services: u16) -> Result<Self> {
        let control = lab.directory().join("pods.socket");
        let program = agent::beside("pods");
        // In a namespace of the lab, so that it is swept away with it.
        let mut command = lab.client.command(&program.to_string_lossy());
        command.arg(&control).arg(services.to_string());
        command.args(lab.pods().map(|pod| format!("{}={}", pod.namespace.name(), pod.name)));
        let process = Process::start(command, "pods", &lab.directory().join("pods.log"))?;
        let mut pods = Self { process, control };
        let control = pods.control.clone();
        pods.process.wait_until("the pods", || ask(&control))?;
        Ok(pods)
    }

    /// Segments all pods together have sent again so far.
    ///
    /// # Errors
    /// When the program does not answer.
    pub fn retransmissions(&self) -> Result<u64> {
        ask(&self.control).with_context(|| format!("the pods do not answer:\n{}", self.process.last_words(10)))
    }
}

fn ask(control: &PathBuf) -> Result<u64> {
    let mut text = String::new();
    UnixStream::connect(control)?.read_to_string(&mut text)?;
    Ok(text.trim().parse()?)
}

/// The program: serves the pods, each a pair of namespace and name, and answers at `control` how many segments were sent
/// again. Runs until it is killed.
///
/// # Errors
/// When a port or the control socket cannot be had.
pub fn serve(control: &PathBuf, services: u16, pods: &[(Namespace, String)]) -> Result<()> {
    let mut server = Server {
        poll: Poll::new()?,
        listeners: Vec::new(),
        streams: Vec::new(),
        free: Vec::new(),
        closed: 0,
    };
    for (namespace, name) in pods {
        let listeners = namespace.run(|| {
            let bind = |service| TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port(service))));
            Ok((0..services).map(bind).collect::<std::io::Result<Vec<_>>>()?)
        });
        for mut listener in listeners.with_context(|| format!("cannot listen in {name}"))? {
            let token = Token(1 + server.listeners.len());
            server
                .poll
                .registry()
                .register(&mut listener, token, Interest::READABLE)?;
            server.listeners.push((listener, name.clone()));
        }
    }
    let mut control = UnixListener::bind(control)?;
    server
        .poll
        .registry()
        .register(&mut control, CONTROL, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    loop {
        match server.poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                CONTROL => server.tell(&control)?,
                Token(number) if number <= server.listeners.len() => server.accept(number - 1)?,
                Token(number) => server.answer(number - 1 - server.listeners.len()),
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    listener: usize,
    request: Request,
    received: usize,
}

struct Server {
    poll: Poll,
    listeners: Vec<(TcpListener, String)>,
    streams: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// What connections that are gone had sent again.
    closed: u64,
}

impl Server {
    fn tell(&self, control: &UnixListener) -> Result<()> {
        while let Ok((mut asker, _)) = control.accept() {
            let open = self.streams.iter().flatten();
            let total: u64 = open.filter_map(|open| retransmissions::of(&open.stream).ok()).sum();
            asker.write_all(format!("{}\n", self.closed + total).as_bytes())?;
        }
        Ok(())
    }

    fn accept(&mut self, listener: usize) -> Result<()> {
        loop {
            let mut stream = match self.listeners[listener].0.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // A client that is gone again is not an error of the listener.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("cannot accept"),
            };
            stream.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or_else(|| {
                self.streams.push(None);
                self.streams.len() - 1
            });
            let token = Token(1 + self.listeners.len() + place);
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            self.streams[place] = Some(Connection {
                stream,
                listener,
                request: [0; 16],
                received: 0,
            });
        }
    }

    fn answer(&mut self, place: usize) {
        let Some(connection) = &mut self.streams[place] else {
            return;
        };
        let name = &self.listeners[connection.listener].1;
        if connection.answer(name).is_err() {
            self.closed += retransmissions::of(&connection.stream).unwrap_or(0);
            self.streams[place] = None;
            self.free.push(place);
        }
    }
}

impl Connection {
    /// Answers whatever has come in.
    fn answer(&mut self, name: &str) -> std::io::Result<()> {
        loop {
            match self.stream.read(&mut self.request[self.received..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.received += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.received == self.request.len() {
                // The client waits for each answer, so there is always room for one.
                self.stream.write_all(&message::answer(&self.request, name))?;
                self.received = 0;
            }
        }
    }
}

/// The port of pods that Service number `service` leads to.
#[must_use]
pub fn port(service: u16) -> u16 {
    FIRST_PORT + service
}

/// Splits `NAMESPACE=POD`.
///
/// # Errors
/// When there is no equals sign.
pub fn parse(argument: &str) -> Result<(Namespace, String), String> {
    let (namespace, name) = argument.split_once('=').ok_or("not NAMESPACE=POD")?;
    Ok((Namespace::named(namespace.into()), name.into()))
}
