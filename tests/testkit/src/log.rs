//! What processes print, line by line.

use std::{
    fmt,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use serde_json::Value;
use tokio::{sync::watch, time::timeout};

use crate::{DEADLINE, process};

/// How many lines a failed test shows.
const TAIL: usize = 60;

/// One line of standard output or standard error.
#[derive(Debug, Clone)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    /// The line as printed.
    pub text: String,
    /// The log event, if the line is one.
    event: Value,
}

impl Line {
    /// A field of the event, or else of the run in which it was written.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.event[name].as_str().or_else(|| self.event["span"][name].as_str())
    }

    /// A number among the fields of the event.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.event[name].as_u64().and_then(|number| number.try_into().ok())
    }

    /// Whether this is an event with `message`.
    pub fn says(&self, message: &str) -> bool {
        self.event["message"] == message
    }

    /// Whether this is an event with `message`, written in the run of `promise`.
    pub fn in_run(&self, message: &str, promise: &str) -> bool {
        self.says(message) && self.event["span"]["promise"] == promise
    }

    /// Whether this is an event with `message` about `promise`.
    pub fn about(&self, message: &str, promise: &str) -> bool {
        self.says(message) && self.field("promise") == Some(promise)
    }

    /// When the process wrote the event.
    pub fn time(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(self.event["timestamp"].as_str()?).ok()
    }

    /// The process that wrote it; empty if the line is not an event.
    pub fn instance(&self) -> &str {
        self.field("instance").unwrap_or_default()
    }

    /// The version of the run in which it was written, or 0.
    pub fn version(&self) -> i64 {
        self.event["span"]["version"].as_i64().unwrap_or_default()
    }

    /// Whether it was written in a run.
    pub fn is_of_a_run(&self) -> bool {
        self.event["span"]["name"] == "run"
    }
}

/// The lines of several processes, in the order in which they arrived. Clones share the lines.
#[derive(Clone)]
pub struct Log(Arc<Contents>);

struct Contents {
    start: Instant,
    lines: Mutex<Vec<Line>>,
    count: watch::Sender<usize>,
    /// How many outputs are still open.
    open: watch::Sender<usize>,
    /// Where all lines go, if not all of them are kept in memory.
    sink: Option<Mutex<Sink>>,
}

/// A file that all lines go to, and which of them are kept in memory.
struct Sink {
    file: File,
    keep: Box<dyn FnMut(&Line) -> bool + Send>,
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl Log {
    /// An empty log.
    pub fn new() -> Self {
        Self::with(None)
    }

    /// A log for a long run: all lines go to `file`, and those that `keep` wants stay in memory.
    pub fn to_file(file: File, keep: impl FnMut(&Line) -> bool + Send + 'static) -> Self {
        Self::with(Some(Mutex::new(Sink { file, keep: Box::new(keep) })))
    }

    fn with(sink: Option<Mutex<Sink>>) -> Self {
        let [count, open] = [0, 0].map(watch::Sender::new);
        let (start, lines) = (Instant::now(), Mutex::default());
        Self(Arc::new(Contents { start, lines, count, open, sink }))
    }

    /// Adds each line of `output` until it ends. A thread of its own reads it.
    pub fn collect(&self, output: impl Read + Send + 'static) {
        self.collect_until(output, |_| false);
    }

    /// The same, but closes `output` after this line.
    pub fn collect_until(
        &self,
        output: impl Read + Send + 'static,
        is_last: impl Fn(&str) -> bool + Send + 'static,
    ) {
        let log = self.clone();
        log.0.open.send_modify(|open| *open += 1);
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let last = is_last(&line);
                log.add(line);
                if last {
                    break;
                }
            }
            log.0.open.send_modify(|open| *open -= 1);
        });
    }

    /// Waits until all outputs have ended.
    pub async fn ended(&self) {
        // This cannot fail: the log itself holds the sender.
        let _ = self.0.open.subscribe().wait_for(|open| *open == 0).await;
    }

    fn add(&self, text: String) {
        let event = serde_json::from_str(&text).unwrap_or_default();
        let line = Line { at: Instant::now(), text, event };
        if let Some(sink) = &self.0.sink {
            let mut sink = sink.lock().unwrap();
            sink.file.write_all(self.format(&line).as_bytes()).unwrap();
            if !(sink.keep)(&line) {
                return;
            }
        }
        let mut lines = self.0.lines.lock().unwrap();
        lines.push(line);
        self.0.count.send_replace(lines.len());
    }

    /// The lines so far that match.
    pub fn all(&self, mut matches: impl FnMut(&Line) -> bool) -> Vec<Line> {
        self.0.lines.lock().unwrap().iter().filter(|line| matches(line)).cloned().collect()
    }

    /// A text that no other log has. Processes carry it in their environment.
    pub fn mark(&self) -> String {
        format!("{}-{:p}", std::process::id(), self.0)
    }

    /// Writes all lines to a file under `target/tmp`, for whoever wants to know why a test failed.
    pub fn keep(&self) -> PathBuf {
        let folder = process::executable_folder().join("../tmp");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{}.log", self.mark()));
        let lines = self.0.lines.lock().unwrap();
        let text: String = lines.iter().map(|line| self.format(line)).collect();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn format(&self, Line { at, text, .. }: &Line) -> String {
        format!("{:8.3} {text}\n", (*at - self.0.start).as_secs_f64())
    }

    /// Waits for the first line that matches.
    pub async fn line(&self, what: &str, matches: impl FnMut(&Line) -> bool) -> Line {
        self.lines(what, 1, matches).await.remove(0)
    }

    /// Waits for the first `count` lines that match.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub async fn lines(
        &self,
        what: &str,
        count: usize,
        mut matches: impl FnMut(&Line) -> bool,
    ) -> Vec<Line> {
        let mut changes = self.0.count.subscribe();
        let mut seen = 0;
        let mut found = Vec::new();
        let search = async {
            loop {
                let new = self.0.lines.lock().unwrap()[seen..].to_vec();
                seen += new.len();
                found.extend(new.into_iter().filter(|line| matches(line)));
                if found.len() >= count {
                    return;
                }
                // This cannot fail: the log itself holds the sender.
                let _ = changes.wait_for(|count| *count > seen).await;
            }
        };
        if timeout(DEADLINE, search).await.is_err() {
            let found = found.len();
            panic!("{DEADLINE:?} passed without {what} ({found} of {count} lines)\n{self}");
        }
        found.truncate(count);
        found
    }
}

/// Shows the last lines.
impl fmt::Display for Log {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lines.lock().unwrap();
        let last = &lines[lines.len().saturating_sub(TAIL)..];
        writeln!(to, "the last {} lines of the log:", last.len())?;
        last.iter().try_for_each(|line| to.write_str(&self.format(line)))
    }
}
