//! What the processes of a system print, line by line.

use std::{
    fmt,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Instant,
};

use serde_json::Value;
use tokio::{sync::watch, time::timeout};

use super::DEADLINE;

/// How many lines a failed test shows.
const TAIL: usize = 60;

/// One line of standard output or standard error.
#[derive(Debug, Clone)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    pub text: String,
    /// What it says, if it is a line of the processes' own log.
    event: Value,
}

impl Line {
    /// A field of the log line, or else of the run it was written in.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.event[name].as_str().or_else(|| self.event["span"][name].as_str())
    }

    /// Whether this is the log line `message`, written in the run of `promise`.
    pub fn in_run(&self, message: &str, promise: &str) -> bool {
        self.event["message"] == message && self.event["span"]["promise"] == promise
    }

    /// Whether this is the log line `message` about `promise`.
    pub fn about(&self, message: &str, promise: &str) -> bool {
        self.event["message"] == message && self.field("promise") == Some(promise)
    }

    /// The process that wrote it.
    pub fn instance(&self) -> &str {
        self.field("instance").unwrap_or_default()
    }

    /// The version of the run it was written in.
    pub fn version(&self) -> i64 {
        self.event["span"]["version"].as_i64().unwrap_or_default()
    }
}

/// All lines of all processes of a system, in the order of their arrival.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    start: Instant,
    lines: Mutex<Vec<Line>>,
    count: watch::Sender<usize>,
    /// How many outputs have not ended.
    open: watch::Sender<usize>,
}

impl Log {
    pub fn new() -> Self {
        let [count, open] = [0, 0].map(watch::Sender::new);
        Self(Arc::new(Shared { start: Instant::now(), lines: Mutex::default(), count, open }))
    }

    /// Adds each line of `from` until it ends, on a thread of its own.
    pub fn collect(&self, from: impl Read + Send + 'static) {
        let log = self.clone();
        log.0.open.send_modify(|open| *open += 1);
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                log.add(String::from_utf8_lossy(&line).into_owned());
            }
            log.0.open.send_modify(|open| *open -= 1);
        });
    }

    /// Waits until every process that could add a line has ended.
    pub async fn ended(&self) {
        // The sender lives as long as this log.
        let _ = self.0.open.subscribe().wait_for(|open| *open == 0).await;
    }

    fn add(&self, text: String) {
        let event = serde_json::from_str(&text).unwrap_or_default();
        let mut lines = self.0.lines.lock().unwrap();
        lines.push(Line { at: Instant::now(), text, event });
        self.0.count.send_replace(lines.len());
    }

    /// The lines so far that fit.
    pub fn all(&self, mut fits: impl FnMut(&Line) -> bool) -> Vec<Line> {
        self.0.lines.lock().unwrap().iter().filter(|line| fits(line)).cloned().collect()
    }

    /// What tells the processes of this log from all others.
    pub fn mark(&self) -> String {
        format!("{}-{:p}", std::process::id(), self.0)
    }

    /// Writes all lines to a file, for whoever wants to know why a test failed.
    pub fn keep(&self) -> PathBuf {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", self.mark()));
        let lines = self.0.lines.lock().unwrap();
        let text: String = lines.iter().map(|line| self.write(line)).collect();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn write(&self, Line { at, text, .. }: &Line) -> String {
        format!("{:8.3} {text}\n", (*at - self.0.start).as_secs_f64())
    }

    /// The first line that fits; waits for it.
    pub async fn line(&self, what: &str, fits: impl FnMut(&Line) -> bool) -> Line {
        self.lines(what, 1, fits).await.remove(0)
    }

    /// The first `count` lines that fit; waits for them.
    pub async fn lines(
        &self,
        what: &str,
        count: usize,
        mut fits: impl FnMut(&Line) -> bool,
    ) -> Vec<Line> {
        let mut changed = self.0.count.subscribe();
        let mut seen = 0;
        let mut found = Vec::new();
        let search = async {
            loop {
                let new = self.0.lines.lock().unwrap()[seen..].to_vec();
                seen += new.len();
                found.extend(new.into_iter().filter(|line| fits(line)));
                if found.len() >= count {
                    return;
                }
                // The sender lives as long as this log.
                let _ = changed.wait_for(|count| *count > seen).await;
            }
        };
        if timeout(DEADLINE, search).await.is_err() {
            panic!(
                "{} of {count} lines: waited in vain for {what}; the logs:\n{self}",
                found.len()
            );
        }
        found.truncate(count);
        found
    }
}

/// The last lines.
impl fmt::Display for Log {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lines.lock().unwrap();
        let last = &lines[lines.len().saturating_sub(TAIL)..];
        last.iter().try_for_each(|line| to.write_str(&self.write(line)))
    }
}
