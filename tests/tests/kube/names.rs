//! A server of names, as a cluster's DNS is one: it knows a single name.

use anyhow::{Context, Result};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tests::lab::Namespace;

/// It answers for as long as it lives.
pub struct NameServer {
    address: IpAddr,
    asked: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// On the loopback of `host`: `name` is `address`.
    pub fn start(host: &Namespace, name: &str, address: Ipv4Addr) -> Result<Self> {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
        let socket = host.run(|| UdpSocket::bind(at).context("no port for names"))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (asked, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let wire: Vec<u8> = name
            .split('.')
            .chain([""])
            .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
            .collect();
        let (count, ending) = (Arc::clone(&asked), Arc::clone(&end));
        let thread = thread::spawn(move || {
            let mut question = [0; 512];
            while !ending.load(Ordering::Relaxed) {
                let answered = socket.recv_from(&mut question).and_then(|(length, from)| {
                    let answer = answer(&question[..length], &wire, address).ok_or(io::ErrorKind::InvalidData)?;
                    count.fetch_add(1, Ordering::Relaxed);
                    socket.send_to(&answer, from)
                });
                // Nobody has asked meanwhile, or has gone: the next question may be another's.
                drop(answered);
            }
        });
        Ok(Self {
            address: at.ip(),
            asked,
            end,
            thread: Some(thread),
        })
    }

    /// Where it is.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many questions it has had.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// To one question (RFC 1035, 4.1): the address where it is asked for that of the name, nothing for another type, and that
/// there is no other name.
fn answer(question: &[u8], name: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let (id, asked) = (question.get(..2)?, question.get(12..)?);
    let length = asked.iter().position(|byte| *byte == 0)? + 1;
    let kind = asked.get(length..length + 4)?;
    let known = asked[..length] == *name;
    let has_address = known && kind == [0, 1, 0, 1];
    let flags: [u8; 2] = if known { [0x81, 0x80] } else { [0x81, 0x83] };
    let mut answer = [
        id,
        &flags,
        &[0, 1, 0, u8::from(has_address), 0, 0, 0, 0],
        &asked[..length + 4],
    ]
    .concat();
    if has_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
