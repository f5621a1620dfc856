//! What is done, and how long the rest takes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The steps of a run. Steps with the same label are expected to take the same time.
pub struct Progress {
    plan: Vec<String>,
    next: usize,
    start: Instant,
    /// When the step under way began.
    begin: Instant,
    known: HashMap<String, Duration>,
}

impl Progress {
    pub fn new(plan: Vec<String>) -> Self {
        let now = Instant::now();
        Self { plan, next: 0, start: now, begin: now, known: HashMap::new() }
    }

    /// The next step begins: writes a line to standard error.
    pub fn step(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.next.checked_sub(1) {
            self.known.insert(self.plan[last].clone(), now - self.begin);
        }
        self.begin = now;
        let (number, all) = (self.next + 1, self.plan.len());
        let left = match self.left() {
            Some(left) => format!(", about {} left", minutes(left)),
            None => String::new(),
        };
        let elapsed = minutes(now - self.start);
        eprintln!("[{number}/{all}] {elapsed}{left}: {}", self.plan[self.next]);
        self.next = number;
    }

    /// How long the steps that have not begun take, if anything is known.
    fn left(&self) -> Option<Duration> {
        let mean = self.known.values().sum::<Duration>().checked_div(self.known.len() as u32)?;
        let left = &self.plan[self.next..];
        Some(left.iter().map(|label| *self.known.get(label).unwrap_or(&mean)).sum())
    }
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
