//! Faults as data: a plan can be printed, and shortened.

use std::{fmt, time::Duration};

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

/// The process name that means all processes at once, the server included.
pub const EVERYTHING: &str = "everything";

/// The process name that means the one that holds the most runs when the fault begins.
pub const BUSIEST: &str = "busiest";

/// The process name of the Resonate Server.
pub const SERVER: &str = "server";

/// A fault: what happens to which process, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, from the start of the simulation.
    pub at: Duration,
    /// The process, or [`SERVER`], [`BUSIEST`] or [`EVERYTHING`].
    pub process: String,
    /// What happens.
    pub what: What,
}

/// What happens to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// `kill -9`; it is started again after this time.
    Kill(Duration),
    /// SIGTERM; it is started again this long after it has ended.
    Stop(Duration),
    /// SIGSTOP, and SIGCONT after this time.
    Freeze(Duration),
    /// The network between process and server carries nothing for this time, and nobody is told.
    Cut(Duration, Cut),
    /// The next request of the process, or of this kind, meets this fate.
    Request(Fate),
    /// All requests of the process of this kind meet this fate, for this time. An empty kind means
    /// all.
    Requests(Duration, &'static str, Fate),
    /// New message streams do this for this time, and the one that is open ends.
    Streams(Duration, Stream),
}

/// What becomes of the connections over a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// They go on after it: what was sent meanwhile arrives late.
    Holds,
    /// They are dead, and only the client's keep-alive notices.
    Forgets,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives, and the client hears nothing.
    Lost,
    /// The connection is refused.
    Refused,
    /// It takes effect, and the client hears nothing.
    AnswerLost,
    /// It takes effect, and the client gets a connection reset.
    Reset,
    /// It arrives twice.
    Doubled,
    /// It arrives this much later.
    Late(Duration),
    /// It takes effect if the flag says so, and something else answers.
    Replaced(bool, Reply),
}

/// What something else than the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// An HTML page with this status.
    Page(u16),
    /// The first half of the server's answer.
    Truncated,
    /// The answer to another request.
    OtherRequest,
    /// The server's own 500.
    Failing,
}

/// What a new message stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// It is refused.
    Refused,
    /// It ends at once.
    Ends,
    /// It is silent: the server does not know of it.
    Silent,
    /// It begins with garbage.
    Garbage,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{:>8.3} s  {}: {:?}", self.at.as_secs_f64(), self.process, self.what)
    }
}

/// Draws `count` faults that begin within `time`, for these processes, the busiest one, the server
/// and all together.
pub fn random(rng: &mut StdRng, processes: &[String], count: usize, time: Duration) -> Vec<Fault> {
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let at = milliseconds(rng, 200, time.as_millis() as u64);
            let process = processes.choose(rng).expect("there are processes").clone();
            match rng.random_range(0..100) {
                0..6 => {
                    let what = match rng.random_range(0..3) {
                        0 => What::Freeze(milliseconds(rng, 50, 4_000)),
                        _ => What::Kill(milliseconds(rng, 50, 4_000)),
                    };
                    Fault { at, process: SERVER.to_owned(), what }
                }
                6..8 => {
                    let what = What::Freeze(milliseconds(rng, 500, 8_000));
                    Fault { at, process: EVERYTHING.to_owned(), what }
                }
                8..45 => Fault { at, process: BUSIEST.to_owned(), what: of_a_process(rng) },
                _ => Fault { at, process, what: of_a_process(rng) },
            }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn of_a_process(rng: &mut StdRng) -> What {
    match rng.random_range(0..100) {
        0..25 => What::Kill(milliseconds(rng, 50, 6_000)),
        25..32 => What::Stop(milliseconds(rng, 50, 3_000)),
        // Shorter and longer than the lease of three seconds.
        32..48 => What::Freeze(milliseconds(rng, 50, 8_000)),
        48..58 => {
            let cut = if rng.random_bool(0.5) { Cut::Holds } else { Cut::Forgets };
            What::Cut(milliseconds(rng, 100, 15_000), cut)
        }
        58..86 => What::Request(fate(rng)),
        86..92 => {
            let kinds = ["", "", "task.fence", "task.acquire", "task.heartbeat", "task.fulfill"];
            let kind = kinds.choose(rng).copied().unwrap_or_default();
            What::Requests(milliseconds(rng, 200, 5_000), kind, fate(rng))
        }
        _ => {
            let kinds = [Stream::Refused, Stream::Ends, Stream::Silent, Stream::Garbage];
            let kind = kinds.choose(rng).copied().unwrap_or(Stream::Refused);
            What::Streams(milliseconds(rng, 100, 5_000), kind)
        }
    }
}

fn fate(rng: &mut StdRng) -> Fate {
    match rng.random_range(0..10) {
        0 => Fate::Lost,
        1 => Fate::Refused,
        2 => Fate::AnswerLost,
        3 => Fate::Reset,
        4 => Fate::Doubled,
        5 => Fate::Late(milliseconds(rng, 20, 6_000)),
        _ => {
            let statuses = [200, 301, 401, 403, 404, 429, 500, 502, 503];
            let reply = match rng.random_range(0..9) {
                0 => Reply::Truncated,
                1 => Reply::OtherRequest,
                2 => Reply::Failing,
                _ => Reply::Page(statuses.choose(rng).copied().unwrap_or(502)),
            };
            Fate::Replaced(rng.random_bool(0.5), reply)
        }
    }
}

/// A duration in this range of milliseconds.
pub fn milliseconds(rng: &mut StdRng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.random_range(least..=most))
}

impl Fault {
    /// When it is over. A process that is told to stop takes a few seconds more.
    pub fn end(&self) -> Duration {
        self.at
            + match self.what {
                What::Kill(length)
                | What::Stop(length)
                | What::Freeze(length)
                | What::Cut(length, _)
                | What::Requests(length, ..)
                | What::Streams(length, _) => length,
                What::Request(_) => Duration::ZERO,
            }
    }
}
