//! Fragments that came before their first: kept for a moment and brought back.
//!
//! XDP cannot keep a frame, so the kernel half copies such a one into `HELD` and drops it. Here it waits, and is then given
//! to the program again as a frame that arrives on the same interface (a test run with live frames, whose verdict counts:
//! passed, sent or dropped like any other). Metadata before the frame says how often it was held; the program holds it
//! again while the first fragment is missing, [`HELD_TRIES`] times in all. Nothing is lost that another order would have
//! saved, if the first fragment comes within the sum of [`DELAYS`].
//!
//! Time and memory are bounded whoever sends: at most [`MOST`] frames wait here and some 500 in the ring, then the program
//! holds no more and they stand aside; and of those that are due no more than [`AT_ONCE`] are brought back in [`PAUSE`], which
//! is a few percent of one CPU. Fragments that were held when the agent ended are lost.

use super::{
    Error, attach,
    pins::{PinDir, remove_if_there},
    sys,
};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
    programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use aya_obj::programs::xdp::XdpAttachType;
use std::{collections::VecDeque, io, path::Path, time::Duration};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;
use weir_common::abi::{Again, HELD_TRIES, Held};

/// How long a frame waits, by how often it was held before.
const DELAYS: [Duration; HELD_TRIES as usize] = [
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(40),
];
/// Frames that wait here; half a MiB of them.
const MOST: usize = 256;
/// Frames brought back in a row.
const AT_ONCE: usize = 8;
/// Rest after so many in a row.
const PAUSE: Duration = Duration::from_millis(2);

/// A frame on its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    ifindex: u32,
    tries: u32,
    bytes: Vec<u8>,
}

impl Frame {
    /// From a record of `HELD`; `None` when it is none.
    fn from_record(record: &[u8]) -> Option<Self> {
        let held: Held = bytemuck::try_pod_read_unaligned(record.get(..size_of::<Held>())?).ok()?;
        let bytes = held.frame.get(..held.len as usize)?.to_vec();
        Some(Self {
            ifindex: held.ifindex,
            tries: held.tries,
            bytes,
        })
    }

    /// What is given to the program: the metadata, and the frame after it.
    fn again(&self) -> Vec<u8> {
        let again = Again {
            mark: Again::MARK,
            tries: self.tries + 1,
        };
        [bytemuck::bytes_of(&again), &self.bytes].concat()
    }
}

/// The frames that wait. Those held equally often wait equally long, so each queue is in order.
#[derive(Debug, Default)]
struct Waiting {
    queues: [VecDeque<(Instant, Frame)>; DELAYS.len()],
}

impl Waiting {
    fn has_room(&self) -> bool {
        self.queues.iter().map(VecDeque::len).sum::<usize>() < MOST
    }

    /// Takes a frame in; one that was held too often is let go.
    fn push(&mut self, now: Instant, frame: Frame) {
        let tries = frame.tries as usize;
        if let (Some(queue), Some(delay)) = (self.queues.get_mut(tries), DELAYS.get(tries)) {
            queue.push_back((now + *delay, frame));
        }
    }

    /// When the next one is due.
    fn due(&self) -> Option<Instant> {
        let fronts = self.queues.iter().filter_map(VecDeque::front);
        fronts.map(|(due, _)| *due).min()
    }

    /// One that is due.
    fn pop(&mut self, now: Instant) -> Option<Frame> {
        let due = |queue: &&mut VecDeque<(Instant, Frame)>| queue.front().is_some_and(|(due, _)| *due <= now);
        let queue = self.queues.iter_mut().find(due)?;
        queue.pop_front().map(|(_, frame)| frame)
    }
}

/// Starts the task, which ends with the runtime. The ingress program is loaded.
pub(super) fn start(ebpf: &mut Ebpf, pins: &PinDir) -> Result<(), Error> {
    const MAP: &str = "HELD";
    let map = ebpf.take_map(MAP).ok_or(Error::NoMap(MAP))?;
    let ring = RingBuf::try_from(map).map_err(Error::map("open", MAP))?;
    let ring = sys::watch(ring).map_err(Error::Held)?;
    let program = handle(attach::ingress(ebpf)?, &pins.handle())?;
    tokio::spawn(follow(ring, program));
    Ok(())
}

/// A handle of its own for the loaded program, so that nobody has to wait for anybody. By way of a pin at `path`, for a
/// moment: to ask for a program by its id takes CAP_SYS_ADMIN.
fn handle(program: &mut Xdp, path: &Path) -> Result<Xdp, Error> {
    // Of an agent that was killed at that moment.
    remove_if_there(path)?;
    program
        .pin(path)
        .map_err(|error| Error::Held(io::Error::other(error)))?;
    let handle = Xdp::from_pin(path, XdpAttachType::Interface);
    remove_if_there(path)?;
    handle.map_err(|error| Error::Held(io::Error::other(error)))
}

async fn follow(mut ring: AsyncFd<RingBuf<MapData>>, program: Xdp) {
    let mut waiting = Waiting::default();
    let mut told = false;
    loop {
        let due = waiting.due();
        tokio::select! {
            ready = ring.readable_mut(), if waiting.has_room() => {
                let Ok(mut ready) = ready else { return };
                while waiting.has_room() {
                    let Some(record) = ready.get_inner_mut().next() else {
                        ready.clear_ready();
                        break;
                    };
                    if let Some(frame) = Frame::from_record(&record) {
                        waiting.push(Instant::now(), frame);
                    }
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                for _ in 0..AT_ONCE {
                    let Some(frame) = waiting.pop(Instant::now()) else { break };
                    if let Err(problem) = bring_back(&program, &frame) && !std::mem::replace(&mut told, true) {
                        warn!(
                            problem = &problem as &dyn std::error::Error,
                            "a fragment that came before its first could not be brought back and is lost; others may be, too"
                        );
                    }
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// Has the program decide about the frame once more, and the kernel do what it says.
fn bring_back(program: &Xdp, frame: &Frame) -> Result<(), ProgramError> {
    let data = frame.again();
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [size_of::<Again>() as u32, data.len() as u32, 0, frame.ifindex, 0, 0];
    program.test_run(TestRunOptions {
        data_in: Some(&data),
        ctx_in: Some(bytemuck::bytes_of(&context)),
        attrs: TestRunAttrs::new().xdp_live_frames(1),
        ..TestRunOptions::default()
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_common::abi::HELD_FRAME;

    fn frame(tries: u32, byte: u8) -> Frame {
        Frame {
            ifindex: 3,
            tries,
            bytes: vec![byte; 60],
        }
    }

    #[test]
    fn frames_come_back_after_their_time_and_not_before() {
        let (now, mut waiting) = (Instant::now(), Waiting::default());
        assert_eq!(waiting.due(), None);
        waiting.push(now, frame(1, 1));
        waiting.push(now, frame(0, 2));
        waiting.push(now, frame(2, 3));
        assert_eq!(waiting.due(), Some(now + DELAYS[0]));
        assert_eq!(waiting.pop(now), None);
        assert_eq!(waiting.pop(now + DELAYS[0]), Some(frame(0, 2)));
        assert_eq!(waiting.pop(now + DELAYS[0]), None);
        assert_eq!(waiting.pop(now + DELAYS[2]), Some(frame(1, 1)));
        assert_eq!(waiting.pop(now + DELAYS[2]), Some(frame(2, 3)));
        assert_eq!(waiting.due(), None);
    }

    #[test]
    fn a_flood_finds_no_more_than_the_room_there_is() {
        let (now, mut waiting) = (Instant::now(), Waiting::default());
        for _ in 0..MOST {
            assert!(waiting.has_room());
            waiting.push(now, frame(0, 0));
        }
        assert!(!waiting.has_room());
        waiting.pop(now + DELAYS[0]).expect("one is due");
        assert!(waiting.has_room());
    }

    #[test]
    fn what_was_held_too_often_is_let_go() {
        let mut waiting = Waiting::default();
        waiting.push(Instant::now(), frame(HELD_TRIES, 0));
        assert_eq!(waiting.due(), None);
    }

    #[test]
    fn a_record_becomes_the_frame_and_what_is_brought_back() {
        let mut held = Held {
            ifindex: 3,
            tries: 1,
            len: 60,
            frame: [0xee; HELD_FRAME],
        };
        held.frame[..60].fill(7);
        let found = Frame::from_record(bytemuck::bytes_of(&held)).expect("a record");
        assert_eq!(found, frame(1, 7));
        let again = found.again();
        assert_eq!(again[..4], Again::MARK.to_ne_bytes());
        assert_eq!(again[4..8], 2_u32.to_ne_bytes());
        assert_eq!(again[8..], [7; 60]);
        held.len = HELD_FRAME as u32 + 1;
        assert_eq!(Frame::from_record(bytemuck::bytes_of(&held)), None);
        assert_eq!(Frame::from_record(&[0; 7]), None);
    }
}
