//! What client and pods say to each other: a request of 16 bytes, an answer of 32.

/// Connection and number of the request, each twice, so that bytes out of place are noticed.
pub(super) type Request = [u8; 16];
/// The request, and the pod's name filled up with zeroes.
pub(super) type Answer = [u8; 32];

/// Request `sequence` of connection `connection`.
pub(super) fn request(connection: u32, sequence: u32) -> Request {
    let mut request = [0; 16];
    for (place, number) in [connection, sequence, !connection, !sequence].into_iter().enumerate() {
        request[4 * place..][..4].copy_from_slice(&number.to_be_bytes());
    }
    request
}

/// What the pod called `name` answers to `request`. A name has at most 16 bytes; more are left out.
pub(super) fn answer(request: &Request, name: &str) -> Answer {
    let mut answer = [0; 32];
    answer[..16].copy_from_slice(request);
    for (place, byte) in answer[16..].iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    answer
}

/// The name in an answer to `request`; `None` if it is the answer to something else.
pub(super) fn name_in(answer: &Answer, request: &Request) -> Option<String> {
    let (echo, name) = answer.split_at(request.len());
    let name = String::from_utf8_lossy(name);
    (echo == request).then(|| name.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_pod_and_belongs_to_one_request() {
        let (asked, other) = (request(7, 8), request(7, 9));
        let answer = answer(&asked, "node-1-pod-1");
        assert_eq!(name_in(&answer, &asked).as_deref(), Some("node-1-pod-1"));
        assert_eq!(name_in(&answer, &other), None);
    }
}
