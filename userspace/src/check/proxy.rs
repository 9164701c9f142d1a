//! What kube-proxy on this host says of itself.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Where kube-proxy serves its metrics, and its mode, unless it is told otherwise.
const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
const PATIENCE: Duration = Duration::from_millis(500);
/// More than any answer to this question.
const LONGEST: u64 = 4096;

/// Its mode (`iptables`, `nftables`, `ipvs`), if one answers.
pub fn mode() -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&DEFAULT, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream
        .write_all(b"GET /proxyMode HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer).ok()?;
    parse(&answer)
}

fn parse(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let body = body.trim();
    let one_word = !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (head.split(' ').nth(1) == Some("200") && one_word).then(|| body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_answer_is_a_mode_and_nothing_else_is() {
        let answer = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nnftables";
        assert_eq!(parse(answer).as_deref(), Some("nftables"));
        for other in ["", "HTTP/1.0 404 Not Found\r\n\r\nno", "HTTP/1.0 200 OK\r\n\r\n<html>"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
