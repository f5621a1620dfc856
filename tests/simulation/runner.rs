//! Runs many histories, one process each, and shortens the plan of one that fails.

use std::{
    fmt::Write,
    io::Read,
    num::NonZero,
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{Arguments, story::Outcome};

/// A history that takes longer is stuck.
const LONGEST: Duration = Duration::from_secs(300);

/// How often a plan is tried with fewer faults.
const ATTEMPTS: usize = 120;

/// Failing histories that are shortened and printed; of others only the seed is.
const PRINTED: usize = 3;

const PROGRESS: Duration = Duration::from_secs(20);

/// Figures of all histories.
#[derive(Default)]
struct Total {
    histories: u64,
    faults: usize,
    flows: usize,
    requests: u64,
    takeovers: u64,
    spans: usize,
    orphans: usize,
    time: f64,
    repeated: u64,
    /// The longest time from the last fault to the end of all flows, and its seed.
    settled: (f64, u64),
    /// The most requests for each flow, and their seed.
    busiest: (f64, u64),
    failed: Vec<Outcome>,
}

impl Total {
    fn add(&mut self, outcome: Outcome) {
        self.histories += 1;
        self.faults += outcome.faults;
        self.flows += outcome.flows;
        self.requests += outcome.requests;
        self.takeovers += outcome.takeovers;
        self.spans += outcome.spans;
        self.orphans += outcome.orphans;
        self.time += outcome.time;
        let busy = outcome.requests as f64 / outcome.flows.max(1) as f64;
        if outcome.settled > self.settled.0 {
            self.settled = (outcome.settled, outcome.seed);
        }
        if busy > self.busiest.0 {
            self.busiest = (busy, outcome.seed);
        }
        if !outcome.violations.is_empty() {
            eprintln!("seed {} fails: {}", outcome.seed, outcome.violations[0]);
            self.failed.push(outcome);
        }
    }

    fn print(&self, real: Duration) {
        eprintln!(
            "{} histories in {:.0} s ({:.0} s of virtual time): {} faults, {} flows, {} requests, \
             {} takeovers, {} spans ({} without their parents); {} ran twice; {} failed; \
             at most {:.1} s from the last fault to the last answer (seed {}), \
             at most {:.0} requests a flow (seed {})",
            self.histories,
            real.as_secs_f64(),
            self.time,
            self.faults,
            self.flows,
            self.requests,
            self.takeovers,
            self.spans,
            self.orphans,
            self.repeated,
            self.failed.len(),
            self.settled.0,
            self.settled.1,
            self.busiest.0,
            self.busiest.1,
        );
    }
}

/// Runs the histories; the exit code says whether all are right.
pub fn run(arguments: &Arguments) -> ExitCode {
    if !cfg!(target_os = "linux") {
        eprintln!("NOT CHECKED: the simulation needs Linux");
        return ExitCode::SUCCESS;
    }
    let start = Instant::now();
    let next = AtomicU64::new(arguments.seed);
    let total = Mutex::new((Total::default(), start));
    let jobs = arguments.jobs.or(thread::available_parallelism().ok()).map_or(1, NonZero::get);
    let wanted = |total: &Total, seed: u64| match arguments.faults {
        Some(faults) => total.faults < faults,
        None => seed < arguments.seed + arguments.count,
    };
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !wanted(&total.lock().unwrap().0, seed) {
                return;
            }
            let outcome = checked(seed, seed.is_multiple_of(arguments.again));
            let (total, shown) = &mut *total.lock().unwrap();
            total.repeated += u64::from(seed.is_multiple_of(arguments.again));
            total.add(outcome);
            if shown.elapsed() > PROGRESS {
                *shown = Instant::now();
                total.print(start.elapsed());
            }
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let (mut total, _) = total.into_inner().unwrap();
    total.failed.sort_by_key(|outcome| outcome.seed);
    for outcome in total.failed.iter().take(PRINTED) {
        eprintln!("{}", shortened(outcome));
    }
    total.print(start.elapsed());
    if total.failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    let seeds: Vec<u64> = total.failed.iter().map(|outcome| outcome.seed).collect();
    eprintln!("failing seeds: {seeds:?}");
    ExitCode::FAILURE
}

/// Runs a history. With `twice`, runs it again and reports any difference.
fn checked(seed: u64, twice: bool) -> Outcome {
    let mut outcome = child(seed, None);
    if twice {
        let again = child(seed, None);
        if again.hash != outcome.hash {
            let (first, second) = (outcome.hash, again.hash);
            outcome.violations.push(format!("not the same twice: {first:x}, {second:x}"));
        }
    }
    outcome
}

/// Lives through a history in a process of its own.
fn child(seed: u64, only: Option<&[usize]>) -> Outcome {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--child", "--seed", &seed.to_string()]);
    if let Some(only) = only {
        // A list of none cannot be written: no plan has as many faults.
        let only = if only.is_empty() { &[usize::MAX] } else { only };
        let only: Vec<String> = only.iter().map(usize::to_string).collect();
        command.args(["--only", &only.join(",")]);
    }
    let mut process =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
    let errors = thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).map(|_| text).unwrap_or_default()
    });
    let output = thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text).unwrap_or_default()
    });
    let start = Instant::now();
    while !output.is_finished() && start.elapsed() < LONGEST {
        #[expect(clippy::disallowed_methods, reason = "this thread is not one of a runtime")]
        thread::sleep(Duration::from_millis(5));
    }
    let spins = !output.is_finished();
    if spins {
        let _ = process.kill();
    }
    let _ = process.wait();
    let (output, errors) = (output.join().unwrap(), errors.join().unwrap());
    // What the functions print comes before it.
    let last = output.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|_| {
        let what = if spins { "it spins" } else { "it panicked" };
        Outcome { seed, violations: vec![format!("{what}: {errors}")], ..Outcome::default() }
    })
}

/// The plan of a failing history with as few faults as it takes to fail, and what happened then.
fn shortened(failed: &Outcome) -> String {
    let mut kept: Vec<usize> = (0..failed.plan.len()).collect();
    let mut size = kept.len().div_ceil(2);
    let mut attempts = 0;
    let mut shortest = None;
    while size > 0 && attempts < ATTEMPTS {
        let mut from = 0;
        while from < kept.len() && attempts < ATTEMPTS {
            attempts += 1;
            let mut fewer = kept.clone();
            fewer.drain(from..(from + size).min(kept.len()));
            let outcome = child(failed.seed, Some(&fewer));
            if outcome.violations.is_empty() {
                from += size;
            } else {
                kept = fewer;
                shortest = Some(outcome);
            }
        }
        size /= 2;
    }
    let outcome = shortest.as_ref().unwrap_or(failed);
    let mut text = outcome.log.clone();
    text += &describe(outcome);
    let only = match (&kept[..], failed.plan.len()) {
        // It has died before it could tell its plan.
        ([], 0) => String::new(),
        // Without any fault: there is none with this number.
        ([], number) => format!(" --only {number}"),
        (kept, _) => {
            format!(" --only {}", kept.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
        }
    };
    let _ = writeln!(
        text,
        "again, with the whole log: cargo test -p simulation --test simulation -- --log --seed {}{only}",
        failed.seed,
    );
    text
}

/// The plan of a history, its violations and figures.
pub fn describe(outcome: &Outcome) -> String {
    let mut text = format!("faults of seed {}:\n", outcome.seed);
    for (number, fault) in outcome.plan.iter().enumerate() {
        let _ = writeln!(text, "{number:>3} {fault}");
    }
    for violation in &outcome.violations {
        let _ = writeln!(text, "VIOLATION {violation}");
    }
    let Outcome { hash, flows, requests, takeovers, spans, orphans, time, settled, .. } = outcome;
    let _ = writeln!(
        text,
        "history {hash:016x}: {flows} flows, {requests} requests, {takeovers} takeovers, {spans} spans \
         ({orphans} without their parents), {time:.1} s, {settled:.1} s after the last fault",
    );
    text
}
