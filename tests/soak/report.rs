//! What was seen, and the table that tells it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    ops::Range,
    time::{Duration, Instant, SystemTime},
};

use testkit::{Line, steps::Starts};

use crate::traces::Death;

/// What was seen so far.
#[derive(Default)]
pub struct Report {
    /// What was wrong, for a person.
    pub violations: Vec<String>,
    /// How often each fault happened.
    pub faults: BTreeMap<String, usize>,
    /// How often each kind of answer came.
    pub answers: BTreeMap<String, usize>,
    /// The flows that have not ended.
    pub open: BTreeSet<String>,
    /// How many have.
    pub ended: usize,
    /// How much longer a flow took than without faults, at most, and which one did.
    pub longest: (Duration, String),
    /// When the last fault was healed, and how long the last flow took from then on.
    pub healed: Option<Instant>,
    last: Duration,
    /// Starts of steps.
    pub starts: Starts,
    /// The process of each run, by promise and version.
    pub holders: HashMap<(String, i64), String>,
    /// The runs whose process knew that it had lost the lease.
    pub gave_up: HashSet<(String, i64)>,
    /// Every process that was killed, or ended while it was cut off.
    pub deaths: Vec<Death>,
    /// Every time that the server was frozen.
    pub frozen: Vec<Range<SystemTime>>,
    /// The flows that have ended.
    pub ids: Vec<String>,
    /// Detached chains that ended well, each of which has printed `3`.
    pub detached: usize,
    /// Lines of a bare `3`.
    printed: usize,
    runs: usize,
    abandoned: usize,
    attempts: usize,
    requests: usize,
    /// The rows about steps and processes.
    rows: Vec<(String, String)>,
}

impl Report {
    /// Counts a line of the log. Returns whether somebody waits for such lines.
    pub fn note(&mut self, line: &Line) -> bool {
        self.starts.note(line);
        for (message, count) in [
            ("run started", &mut self.runs),
            ("run abandoned", &mut self.abandoned),
            ("step failed, retrying", &mut self.attempts),
            ("retrying a request", &mut self.requests),
        ] {
            *count += usize::from(line.says(message));
        }
        if let (true, Some(promise)) = (line.says("run started"), line.field("promise")) {
            let run = (promise.to_owned(), line.version());
            self.holders.insert(run, line.instance().to_owned());
        }
        if let (true, Some(promise)) = (line.says("run abandoned"), line.field("promise")) {
            self.gave_up.insert((promise.to_owned(), line.version()));
        }
        self.printed += usize::from(line.text == "3");
        line.says("ready")
    }

    /// Something is wrong.
    pub fn violation(&mut self, text: String) {
        println!("VIOLATION: {text}");
        self.violations.push(text);
    }

    /// An answer came, or none.
    pub fn answer(&mut self, kind: impl Into<String>) {
        *self.answers.entry(kind.into()).or_default() += 1;
    }

    /// A flow has ended. `delay`: how much longer it took than without faults.
    pub fn end(&mut self, id: &str, delay: Duration) {
        self.open.remove(id);
        self.ended += 1;
        self.ids.push(id.to_owned());
        if delay > self.longest.0 {
            self.longest = (delay, id.to_owned());
        }
        if let Some(healed) = self.healed {
            self.last = healed.elapsed();
        }
    }

    /// Every flow should have ended.
    pub fn hang(&mut self) {
        for id in self.open.clone() {
            self.violation(format!("{id} hangs"));
        }
    }

    /// Judges what was printed. A process that is killed between the line and its end prints again.
    pub fn prints(&mut self) {
        self.row(
            "detached chains that ended well, lines of 3",
            format!("{}, {}", self.detached, self.printed),
        );
        if self.printed < self.detached {
            self.violation(format!(
                "{} of {} lines of 3 are missing",
                self.detached - self.printed,
                self.detached
            ));
        }
    }

    /// Takes over what is known about the steps. `again`: stored steps that ran again.
    pub fn steps(&mut self, starts: &Starts, again: Vec<String>) {
        self.row("steps", starts.steps().count());
        self.row("takeovers in the middle of a step, which started again", starts.interrupted());
        self.row("stored steps that started again", again.len());
        again.into_iter().for_each(|text| self.violation(text));
    }

    /// A row of the table.
    pub fn row(&mut self, what: impl Into<String>, value: impl ToString) {
        self.rows.push((what.into(), value.to_string()));
    }

    /// One line.
    pub fn progress(&self) -> String {
        let (faults, wrong) = (self.faults.values().sum::<usize>(), self.violations.len());
        let (ended, open) = (self.ended, self.open.len());
        format!("{ended} flows have ended, {open} are open, {faults} faults, {wrong} violations")
    }

    /// The table.
    pub fn table(&self, server: &str, seed: u64, elapsed: Duration) -> String {
        let mut table = format!("\n| {server} server, seed {seed} | |\n| --- | --- |\n");
        let mut row = |what: &str, value: String| {
            let _ = writeln!(table, "| {what} | {value} |");
        };
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        row("time", seconds(elapsed));
        row("faults", self.faults.values().sum::<usize>().to_string());
        for (kind, count) in &self.faults {
            row(&format!("fault: {kind}"), count.to_string());
        }
        row("flows that ended", self.ended.to_string());
        for (kind, count) in &self.answers {
            row(&format!("answer: {kind}"), count.to_string());
        }
        row("runs", self.runs.to_string());
        row("runs abandoned by a process that lost its lease", self.abandoned.to_string());
        row("attempts of steps that failed as requested", self.attempts.to_string());
        row("requests to the server that were repeated", self.requests.to_string());
        for (what, value) in &self.rows {
            row(what, value.clone());
        }
        let (delay, id) = &self.longest;
        row("longest delay of a flow by faults", format!("{} ({id})", seconds(*delay)));
        row("from the end of the last fault to the end of the last flow", seconds(self.last));
        row("violations", self.violations.len().to_string());
        for violation in &self.violations {
            let _ = writeln!(table, "\nVIOLATION: {violation}");
        }
        table
    }
}
