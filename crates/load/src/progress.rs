//! What a person sees while flows run: a table on a terminal that is drawn again and again, or
//! elsewhere a line now and then. It goes to standard error: standard output is for the summary.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Write,
    time::Duration,
};

use settings::duration;
use tokio::time::{Instant, interval};

use crate::{
    Settings,
    tally::{Counts, FlowCounts, Latency, Tally},
};

/// How often the table is drawn, and how often a line is printed.
const DRAW: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(5);

/// Flows per second are those of this time.
const RECENT: Duration = Duration::from_secs(5);

/// What was shown so far.
pub struct Progress {
    terminal: bool,
    /// The lines of the last table.
    drawn: usize,
    /// How many problems were shown.
    problems: usize,
    /// For the rate: how many flows of each kind had ended right after which time.
    right: VecDeque<(Duration, BTreeMap<&'static str, u64>)>,
}

impl Progress {
    /// Nothing was shown yet.
    pub fn new(terminal: bool) -> Self {
        Self { terminal, drawn: 0, problems: 0, right: VecDeque::from([Default::default()]) }
    }

    /// Shows the counts now and then, for ever.
    pub async fn show(&mut self, settings: &Settings, tally: &Tally, begin: Instant) {
        let mut ticks = interval(if self.terminal { DRAW } else { LINE });
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.print(settings, tally, begin);
        }
    }

    /// Shows the counts once.
    pub fn print(&mut self, settings: &Settings, tally: &Tally, begin: Instant) {
        let text = self.draw(settings, &tally.counts(), begin.elapsed());
        // It fails if nobody reads it any more.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// What to print now.
    fn draw(&mut self, settings: &Settings, counts: &Counts, elapsed: Duration) -> String {
        while self.right.len() > 1 && elapsed - self.right[1].0 >= RECENT {
            self.right.pop_front();
        }
        let (since, before) = &self.right[0];
        let seconds = (elapsed - *since).as_secs_f64().max(f64::EPSILON);
        let now: BTreeMap<_, _> =
            counts.flows.iter().map(|(name, flow)| (*name, flow.right)).collect();
        let rates = now.iter().map(|(name, right)| {
            (right - before.get(name).copied().unwrap_or_default()) as f64 / seconds
        });
        let rates: Vec<f64> = rates.collect();
        self.right.push_back((elapsed, now));

        let mut text = String::new();
        if self.terminal && self.drawn > 0 {
            // Up to the first line of the last table, and clear from there on.
            text += &format!("\x1b[{}A\x1b[J", self.drawn);
        }
        for problem in &counts.problems[self.problems..] {
            text += &format!("{problem}\n");
        }
        self.problems = counts.problems.len();
        if self.terminal {
            let table = table(settings, counts, &rates, elapsed);
            self.drawn = table.lines().count();
            text += &table;
        } else {
            text += &line(&counts.all(), rates.iter().sum(), elapsed);
            if settings.crash.is_some() {
                text += &format!(", {}", crashes(counts));
            }
            text += "\n";
        }
        text
    }
}

/// The table. `rates`: flows per second, in the order of the flows.
fn table(settings: &Settings, counts: &Counts, rates: &[f64], elapsed: Duration) -> String {
    let how = match settings.rate {
        Some(rate) => format!("{rate} flows started per second"),
        None => format!("{} flows at a time", settings.concurrency),
    };
    let (gateway, total) =
        (settings::without_credentials(&settings.gateway), duration::format(settings.duration));
    let mut text = format!(
        "{gateway}, {how}, {} of {total}; Ctrl-C ends it\n\n{:<18}{:>9}{:>10}{:>10}{:>11}{:>9}{:>7}{:>6}{:>9}\n",
        seconds(elapsed),
        "flow",
        "flows/s",
        "p50",
        "p99",
        "in flight",
        "right",
        "wrong",
        "lost",
        "retried"
    );
    let mut row = |name: &str, flow: &FlowCounts, rate: f64| {
        text += &format!(
            "{name:<18}{rate:>9.1}{:>10}{:>10}{:>11}{:>9}{:>7}{:>6}{:>9}\n",
            latency(&flow.latency, 0.5),
            latency(&flow.latency, 0.99),
            flow.open(),
            flow.right,
            flow.wrong,
            flow.lost,
            flow.retried
        );
    };
    for ((name, flow), rate) in counts.flows.iter().zip(rates) {
        row(name, flow, *rate);
    }
    row("all", &counts.all(), rates.iter().sum());
    if settings.crash.is_some() {
        text += &format!("{}\n", crashes(counts));
    }
    if counts.skipped > 0 {
        text += &format!("{} flows skipped: --most is {}\n", counts.skipped, settings.most);
    }
    text
}

/// The same in one line.
fn line(all: &FlowCounts, rate: f64, elapsed: Duration) -> String {
    format!(
        "{}: {rate:.1} flows/s, p50 {}, p99 {}, {} in flight, {} right, {} wrong, {} lost, {} retried",
        seconds(elapsed),
        latency(&all.latency, 0.5),
        latency(&all.latency, 0.99),
        all.open(),
        all.right,
        all.wrong,
        all.lost,
        all.retried
    )
}

fn crashes(counts: &Counts) -> String {
    let (crashes, takeovers) = (counts.crashes, counts.takeovers.count());
    let time = latency(&counts.takeovers, 0.5);
    format!("crashes: {crashes}, takeovers: {takeovers} (p50 {time} after the crash)")
}

/// A latency as a person reads it: `14 ms`, `2.31 s`.
fn latency(latency: &Latency, share: f64) -> String {
    if latency.count() == 0 {
        return "-".to_owned();
    }
    match latency.quantile(share).as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

fn seconds(elapsed: Duration) -> String {
    format!("{} s", elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};
    use flows::{FLOWS, Options};

    use super::*;
    use crate::plan::{End, Plan};

    fn settings() -> Settings {
        let command = Settings::augment_args(clap::Command::new("load"));
        Settings::from_arg_matches(&command.get_matches_from(["load"])).unwrap()
    }

    /// Two await chains that were right after 14 ms, one that was wrong after 2.5 s, and an open
    /// detached chain.
    fn tally() -> Tally {
        let tally = Tally::default();
        let plan =
            |n: usize, flow| Plan { flow, id: format!("x-{n}"), options: Options::default() };
        for n in 0..3 {
            let plan = plan(n, &FLOWS[0]);
            tally.started(&plan);
            tally.retried(&plan);
            tally.answered(&plan, Duration::from_millis(if n == 2 { 2_500 } else { 14 }));
            tally.ended(&plan, if n == 2 { End::Wrong("200 4".to_owned()) } else { End::Right });
        }
        tally.started(&plan(3, &FLOWS[1]));
        tally
    }

    #[test]
    fn the_table_is_drawn_over_the_last_one() {
        let (mut progress, counts) = (Progress::new(true), tally().counts());
        let first = progress.draw(&settings(), &counts, Duration::from_secs(2));
        let expected = "\
wrong: 200 4
http://127.0.0.1:5000, 8 flows at a time, 2 s of 1m; Ctrl-C ends it

flow                flows/s       p50       p99  in flight    right  wrong  lost  retried
await-chain             1.0     14 ms    2.50 s          0        2      1     0        3
detached-chain          0.0         -         -          1        0      0     0        0
all                     1.0     14 ms    2.50 s          1        2      1     0        3
";
        assert_eq!(first, expected);
        let second = progress.draw(&settings(), &counts, Duration::from_secs(4));
        let up = "\x1b[6A\x1b[Jhttp://";
        assert!(second.starts_with(up), "six lines up, and the problem stays: {second:?}");
    }

    #[test]
    fn crashes_have_a_line_below_the_table() {
        let (mut settings, tally) = (settings(), tally());
        settings.crash = Some(Duration::from_secs(5));
        tally.crashed();
        let last = |text: String| text.lines().last().unwrap().to_owned();
        let draw = || Progress::new(true).draw(&settings, &tally.counts(), Duration::from_secs(2));
        assert_eq!(last(draw()), "crashes: 1, takeovers: 0 (p50 - after the crash)");
        tally.taken_over(Duration::from_secs(3));
        assert_eq!(last(draw()), "crashes: 1, takeovers: 1 (p50 3.00 s after the crash)");
    }

    #[test]
    fn without_a_terminal_there_is_a_line() {
        let (mut progress, counts) = (Progress::new(false), tally().counts());
        progress.problems = 1;
        assert_eq!(
            progress.draw(&settings(), &counts, Duration::from_secs(2)),
            "2 s: 1.0 flows/s, p50 14 ms, p99 2.50 s, 1 in flight, 2 right, 1 wrong, 0 lost, 3 retried\n"
        );
    }

    #[test]
    fn the_rate_is_that_of_the_last_five_seconds() {
        let (mut progress, tally) = (Progress::new(false), tally());
        let mut draw = |seconds| {
            let text = progress.draw(&settings(), &tally.counts(), Duration::from_secs(seconds));
            text.lines().last().unwrap().split(" flows/s").next().unwrap().to_owned()
        };
        assert_eq!(draw(1), "1 s: 2.0");
        assert_eq!(draw(5), "5 s: 0.4");
        assert_eq!(draw(6), "6 s: 0.0");
    }
}
