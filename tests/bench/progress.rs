//! What is done, and how long the rest takes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// A step of a run.
pub struct Step {
    /// Steps with the same label are expected to take the same time.
    pub label: String,
    /// How much there is to do, compared with other steps.
    pub size: usize,
}

/// The steps of a run.
pub struct Progress {
    plan: Vec<Step>,
    next: usize,
    start: Instant,
    /// When the step under way began.
    begin: Instant,
    /// The last time of the steps with a label, and their size.
    known: HashMap<String, (Duration, usize)>,
}

impl Progress {
    pub fn new(plan: Vec<Step>) -> Self {
        let now = Instant::now();
        Self { plan, next: 0, start: now, begin: now, known: HashMap::new() }
    }

    /// The next step begins: writes a line to standard error.
    pub fn step(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.next.checked_sub(1) {
            let Step { label, size } = &self.plan[last];
            self.known.insert(label.clone(), (now - self.begin, *size));
        }
        self.begin = now;
        let (number, all) = (self.next + 1, self.plan.len());
        let left = match self.left() {
            Some(left) => format!(", about {} left", minutes(left)),
            None => String::new(),
        };
        let elapsed = minutes(now - self.start);
        eprintln!("[{number}/{all}] {elapsed}{left}: {}", self.plan[self.next].label);
        self.next = number;
    }

    /// How long the steps take that have not ended, if anything is known.
    fn left(&self) -> Option<Duration> {
        let (times, sizes): (Vec<_>, Vec<_>) = self.known.values().copied().unzip();
        let done = sizes.iter().sum::<usize>();
        if done == 0 {
            return None;
        }
        let unit = times.iter().sum::<Duration>().div_f64(done as f64);
        let time = |Step { label, size }: &Step| match self.known.get(label) {
            Some((time, _)) => *time,
            None => unit.mul_f64(*size as f64),
        };
        Some(self.plan[self.next..].iter().map(time).sum())
    }
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
