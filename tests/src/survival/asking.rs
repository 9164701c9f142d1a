//! The loop behind [`super::connections`]: it opens, asks, reads, and notices what broke.

use super::{
    connections::{Broken, Cause, Census, LIMIT, Wanted},
    message::{self, Answer},
    retransmissions,
};
use anyhow::{Result, ensure};
use mio::{Events, Interest, Poll, Registry, Token, event::Event, net::TcpStream};
use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    sync::mpsc::{Receiver, Sender, TryRecvError},
    time::{Duration, Instant},
};

/// How many connections are being opened at a time: fewer than a listener's backlog.
const OPENING: usize = 128;
/// How long the loop sleeps at most.
const TICK: Duration = Duration::from_millis(2);
/// Between two looks for connections that are silent.
const SWEEP: Duration = Duration::from_millis(500);

/// What the thread is asked to do; the answer goes into the sender.
pub(super) enum Order {
    Mend(Sender<()>),
    Count(Sender<Census>),
}

/// One connection.
struct Connection {
    stream: TcpStream,
    target: SocketAddr,
    client: SocketAddr,
    pod: Option<String>,
    state: State,
    sequence: u32,
    /// When the last request was made, or the connection.
    asked: Instant,
    /// When the last request was made that has been answered.
    confirmed: Instant,
    answer: Answer,
    received: usize,
    /// Retransmissions that do not count: those before the last mending.
    before: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Idle,
    Waiting,
    Broken(Cause),
}

pub(super) struct Asking {
    poll: Poll,
    wanted: Wanted,
    places: Vec<Option<Connection>>,
    /// Where the next request goes.
    cursor: usize,
    issued: u64,
    begun: Instant,
    swept: Instant,
    answers: u64,
    mending: Option<Mending>,
    counting: Option<(Instant, Sender<Census>)>,
}

struct Mending {
    to_open: Vec<usize>,
    opening: usize,
    refused: usize,
    done: Sender<()>,
}

impl Asking {
    pub(super) fn new(wanted: Wanted) -> Result<Self> {
        ensure!(!wanted.targets.is_empty(), "there is nothing to connect to");
        let now = Instant::now();
        Ok(Self {
            poll: Poll::new()?,
            places: (0..wanted.connections).map(|_| None).collect(),
            wanted,
            cursor: 0,
            issued: 0,
            begun: now,
            swept: now,
            answers: 0,
            mending: None,
            counting: None,
        })
    }

    /// Runs until nobody can give orders any more.
    pub(super) fn run(mut self, orders: &Receiver<Order>) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match orders.try_recv() {
                Ok(order) => self.begin(order),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                self.advance(event);
            }
            self.ask();
            self.sweep();
            self.open()?;
            self.count();
        }
    }

    fn begin(&mut self, order: Order) {
        match order {
            Order::Mend(done) => {
                let open = |place: &usize| self.places[*place].as_ref().is_some_and(Connection::is_open);
                let to_open = (0..self.places.len()).filter(|place| !open(place)).collect();
                self.mending = Some(Mending {
                    to_open,
                    opening: 0,
                    refused: 0,
                    done,
                });
            }
            Order::Count(answer) => self.counting = Some((Instant::now(), answer)),
        }
    }

    /// What a socket has to say.
    fn advance(&mut self, event: &Event) {
        let Token(place) = event.token();
        let Some(connection) = &mut self.places[place] else {
            return;
        };
        if !connection.is_open() {
            return;
        }
        let fresh = connection.pod.is_none();
        if connection.state == State::Opening && event.is_writable() {
            connection.opened(place);
        }
        self.answers += connection.read(place);
        let (answered, broken) = (connection.pod.is_some(), !connection.is_open());
        if fresh && (answered || broken) {
            self.attempted(place, broken);
        }
    }

    /// An attempt to open a connection has ended.
    fn attempted(&mut self, place: usize, refused: bool) {
        let Some(mending) = &mut self.mending else { return };
        mending.opening -= 1;
        if refused {
            mending.refused += 1;
            mending.to_open.push(place);
        }
    }

    /// Sends what is due, a request over each idle connection in turn.
    fn ask(&mut self) {
        let due = (self.begun.elapsed().as_secs_f64() * f64::from(self.wanted.rate)) as u64;
        // What was missed while the machine was busy is not made up for in one burst.
        self.issued = self.issued.max(due.saturating_sub(u64::from(self.wanted.rate / 20)));
        while self.issued < due {
            self.issued += 1;
            let place = self.cursor;
            self.cursor = (place + 1) % self.places.len();
            if let Some(connection) = &mut self.places[place]
                && connection.state == State::Idle
            {
                connection.ask(place);
            }
        }
    }

    fn sweep(&mut self) {
        if self.swept.elapsed() < SWEEP {
            return;
        }
        self.swept = Instant::now();
        for place in 0..self.places.len() {
            let Some(connection) = &mut self.places[place] else {
                continue;
            };
            if connection.is_open() && connection.state != State::Idle && connection.asked.elapsed() > LIMIT {
                connection.state = State::Broken(Cause::Silent);
                if connection.pod.is_none() {
                    self.attempted(place, true);
                }
            }
        }
    }

    /// Opens more of what is missing; when nothing is, the mending is over and counting begins.
    fn open(&mut self) -> Result<()> {
        let Some(mending) = &mut self.mending else {
            return Ok(());
        };
        ensure!(
            mending.refused <= 100 + self.places.len() / 100,
            "{} attempts to open a connection failed, the last ones like {:?}",
            mending.refused,
            mending
                .to_open
                .last()
                .and_then(|&place| Some(&self.places[place].as_ref()?.state))
        );
        while mending.opening < OPENING
            && let Some(place) = mending.to_open.pop()
        {
            let target = self.wanted.targets[place % self.wanted.targets.len()];
            self.places[place] = Some(Connection::open(self.poll.registry(), place, target)?);
            mending.opening += 1;
        }
        if mending.opening > 0 {
            return Ok(());
        }
        for connection in self.places.iter_mut().flatten() {
            connection.before = retransmissions::of(&connection.stream)?;
        }
        self.answers = 0;
        if let Some(mending) = self.mending.take() {
            // Whoever asked may have given up.
            let _ = mending.done.send(());
        }
        Ok(())
    }

    /// Answers a census once every open connection has answered a request made since it was asked for.
    fn count(&mut self) {
        let Some((since, _)) = &self.counting else { return };
        let settled = |connection: &Connection| !connection.is_open() || connection.confirmed >= *since;
        if !self.places.iter().flatten().all(settled) {
            return;
        }
        let Some((_, answer)) = self.counting.take() else {
            return;
        };
        let mut census = Census {
            connections: self.places.len(),
            answers: self.answers,
            ..Census::default()
        };
        for connection in self.places.iter().flatten() {
            let now = retransmissions::of(&connection.stream).unwrap_or(connection.before);
            census.retransmissions += now - connection.before;
            if let State::Broken(cause) = &connection.state {
                census.broken.push(connection.obituary(cause));
            }
        }
        let _ = answer.send(census);
    }
}

impl Connection {
    fn open(registry: &Registry, place: usize, target: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(target)?;
        registry.register(&mut stream, Token(place), Interest::READABLE | Interest::WRITABLE)?;
        let now = Instant::now();
        Ok(Self {
            client: stream.local_addr()?,
            stream,
            target,
            pod: None,
            state: State::Opening,
            sequence: 0,
            asked: now,
            confirmed: now,
            answer: [0; 32],
            received: 0,
            before: 0,
        })
    }

    fn is_open(&self) -> bool {
        !matches!(self.state, State::Broken(_))
    }

    /// The handshake is over, well or not.
    fn opened(&mut self, place: usize) {
        match self.stream.take_error() {
            Ok(None) if self.stream.peer_addr().is_ok() => match self.stream.set_nodelay(true) {
                Ok(()) => self.ask(place),
                Err(error) => self.fail(&error),
            },
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => self.fail(&error),
        }
    }

    fn ask(&mut self, place: usize) {
        self.sequence += 1;
        self.asked = Instant::now();
        self.state = State::Waiting;
        self.received = 0;
        // All that was sent before has been answered, so there is room.
        if let Err(error) = self.stream.write_all(&message::request(place as u32, self.sequence)) {
            self.fail(&error);
        }
    }

    /// Reads until there is no more; gives the number of right answers.
    fn read(&mut self, place: usize) -> u64 {
        let mut answers = 0;
        while self.is_open() && self.state != State::Opening {
            match self.stream.read(&mut self.answer[self.received..]) {
                Ok(0) => self.state = State::Broken(Cause::Closed),
                Ok(length) => {
                    self.received += length;
                    if self.received == self.answer.len() {
                        self.received = 0;
                        answers += u64::from(self.check(place));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => self.fail(&error),
            }
        }
        answers
    }

    /// A whole answer has come: the one to the last request, from the pod of the first.
    fn check(&mut self, place: usize) -> bool {
        let name = message::name_in(&self.answer, &message::request(place as u32, self.sequence));
        let cause = match (name, &self.pod) {
            (Some(_), _) if self.state != State::Waiting => Cause::WrongAnswer,
            (Some(name), Some(pod)) if name != *pod => Cause::WrongPod,
            (Some(name), _) => {
                self.pod = Some(name);
                self.confirmed = self.asked;
                self.state = State::Idle;
                return true;
            }
            (None, _) => Cause::WrongAnswer,
        };
        self.state = State::Broken(cause);
        false
    }

    fn fail(&mut self, error: &std::io::Error) {
        self.state = State::Broken(match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused => Cause::Reset,
            _ => Cause::Failed(error.to_string()),
        });
    }

    fn obituary(&self, cause: &Cause) -> Broken {
        Broken {
            target: self.target,
            client: self.client,
            pod: self.pod.clone().unwrap_or_default(),
            cause: cause.clone(),
        }
    }
}
