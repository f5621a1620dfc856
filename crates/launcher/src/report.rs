//! What the launcher prints: to standard output, for the person who started it.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    time::Duration,
};

use flows::FLOWS;
use node::error::Error;

use crate::{
    jaeger::{self, Traces},
    process::{Program, Role, Spec, command_line},
};

/// A line of the table of processes.
pub struct Row<'a> {
    pub spec: &'a Spec,
    pub pid: u32,
    pub address: Option<SocketAddr>,
}

/// How many processes of a line the table has.
const PER_LINE: usize = 2;

/// The number of processes that are ready, on a terminal, in a line that is overwritten.
pub struct Progress {
    terminal: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { terminal: std::io::stdout().is_terminal() }
    }
}

impl Progress {
    /// Shows the number. Whatever is printed next overwrites it.
    pub fn show(&self, ready: usize, total: usize) {
        self.print(&format!("starting: {ready} of {total} processes are ready"));
    }

    /// Removes the line.
    pub fn clear(&self) {
        self.print("");
    }

    fn print(&self, text: &str) {
        if self.terminal {
            say(&format!("{text}\x1b[K\r"));
        }
    }
}

/// Prints a text. That nobody reads it any more (`async-rpc | less`) is no reason to stop the system.
fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// Prints which processes are not ready.
pub fn print_waiting(waiting: &[&str], total: usize, server: &str) {
    let (ready, waiting) = (total - waiting.len(), waiting.join(", "));
    say(&format!(
        "{ready} of {total} processes are ready; waiting for {waiting} (Resonate Server: {server})\n"
    ));
}

/// Prints the address of the page, the table of processes, and what to try first. `server`: its
/// address, and what kind of server it is.
pub fn print_summary(rows: &[Row], page: &str, server: (&str, &str), traces: &Traces) {
    // In one piece: processes print too.
    say(&summary(rows, page, server, &traces_lines(traces, jaeger::endpoint())));
}

fn summary(rows: &[Row], page: &str, (server, kind): (&str, &str), traces: &[String]) -> String {
    let head = format!("{:<20}{:>8}{:>7}", "process", "pid", "port");
    let mut lines = vec![
        format!("\nThe system is up: open {page} in a browser\n"),
        std::iter::repeat_n(head, PER_LINE).collect::<Vec<_>>().join("    "),
    ];
    let (services, others): (Vec<_>, Vec<_>) =
        rows.iter().partition(|row| row.spec.role == Role::Service);
    // The processes of a service share a line.
    let groups = services.chunk_by(|one, other| one.spec.group == other.spec.group);
    let parts = std::iter::once(&others[..]).chain(groups);
    for row in parts.flat_map(|part| part.chunks(PER_LINE)) {
        let cells = row.iter().map(|Row { spec, pid, address }| {
            let port = address.map_or(0, |address| address.port());
            format!("{:<20}{pid:>8}{port:>7}", spec.instance)
        });
        lines.push(cells.collect::<Vec<_>>().join("    "));
    }
    lines.push(format!("\nResonate Server: {server} ({kind})"));
    lines.extend_from_slice(traces);
    lines.extend(demo(rows, page));
    lines.push("Press Ctrl-C to stop everything.\n\n".to_owned());
    lines.join("\n")
}

/// Commands that start the first flow, and one that kills the process that works in it.
fn demo(rows: &[Row], page: &str) -> Vec<String> {
    let Some(flow) = FLOWS.first() else { return Vec::new() };
    let url = format!("{page}{}", flow.route());
    let mut lines = vec![
        format!("Without browser: curl -X POST {url}"),
        format!("Crash demo:      curl -X POST \"{url}?id=crash-$(date +%s)&work=6s\""),
    ];
    let works = flow.functions.iter().find(|function| function.works);
    let first = rows.iter().find(|row| works.is_some_and(|it| it.group == row.spec.instance));
    lines.extend(first.map(|Row { pid, .. }| format!("  meanwhile:     kill -9 {pid}")));
    lines
}

/// Where spans go. `endpoint`: the user's own, and the variable that names it.
fn traces_lines(traces: &Traces, endpoint: Option<(&str, String)>) -> Vec<String> {
    let elsewhere = endpoint.map(|(variable, url)| {
        format!("Traces:          go to {} ({variable})", settings::without_credentials(&url))
    });
    match traces {
        Traces::Jaeger(jaeger) => {
            let page = format!("Jaeger:          http://{} (traces are in memory)", jaeger.page());
            let elsewhere = elsewhere.map(|line| format!("{line}, not to this Jaeger"));
            std::iter::once(page).chain(elsewhere).collect()
        }
        Traces::Elsewhere => elsewhere.into_iter().collect(),
        Traces::Off => Vec::new(),
    }
}

/// Prints that a process exited, what that means, and how to restart it, or that this happens after
/// the time `restart`. `others`: the processes of its group that still run.
pub fn print_exit(
    spec: &Spec,
    pid: u32,
    status: ExitStatus,
    others: &[&str],
    restart: Option<Duration>,
) {
    say(&format!("{}\n", exit_line(spec, pid, status, others, restart)));
}

fn exit_line(
    spec: &Spec,
    pid: u32,
    status: ExitStatus,
    others: &[&str],
    restart: Option<Duration>,
) -> String {
    let Spec { group, instance, .. } = spec;
    let consequence = match (spec.role, others) {
        (Role::Server, _) => "all its state is lost".to_owned(),
        (Role::Jaeger, _) => "flows continue, spans are lost".to_owned(),
        (Role::Gateway, _) => "flows continue, HTTP requests fail".to_owned(),
        (Role::Service, []) => format!("no {group} process is left; {group} calls will wait"),
        (Role::Service, others) => format!("{} takes over", others.join(" or ")),
    };
    let restart = match (&spec.program, restart) {
        (Program::Own, Some(after)) => format!(". Restarting it in {after:?}"),
        (Program::Own, None) => format!(". Restart it with: {}", command_line(spec)),
        (Program::Other { .. }, _) => String::new(),
    };
    format!("{instance} (pid {pid}) {}; {consequence}{restart}", ending(status))
}

/// Prints that a process was restarted, and is ready.
pub fn print_back(instance: &str, pid: u32, address: SocketAddr) {
    say(&format!("{instance} is back (pid {pid}, port {})\n", address.port()));
}

/// Prints that no browser could be opened.
pub fn print_no_browser(program: &str, error: &std::io::Error) {
    say(&format!("cannot open a browser: {program}: {error}\n"));
}

/// Prints why something failed that the launcher can do without.
pub fn print_error(error: &Error) {
    say(&format!("{error}\n"));
}

/// What is wrong if a process exits before it is ready.
pub fn failed_start(spec: &Spec, status: ExitStatus) -> String {
    let advice = match spec.role {
        Role::Jaeger => "; --no-jaeger starts the system without it",
        _ => "",
    };
    format!("{} {} before it was ready{advice}", spec.instance, ending(status))
}

/// Prints that the launcher stops its processes.
pub fn print_stopping(processes: usize) {
    say(&format!("stopping {processes} processes\n"));
}

/// Prints that a process was killed because it did not stop in time.
pub fn print_killed(instance: &str, pid: u32, patience: Duration) {
    say(&format!("{instance} (pid {pid}) did not stop within {patience:?} and was killed\n"));
}

/// Prints that a process was killed because it does not listen.
pub fn print_silent(instance: &str, pid: u32, patience: Duration) {
    say(&format!("{instance} (pid {pid}) did not listen within {patience:?} and was killed\n"));
}

/// How a process ended.
fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "was killed (SIGKILL)".to_owned(),
        (Some(signal), _) => format!("was terminated by signal {signal}"),
        (None, code) => format!("exited with code {}", code.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(role: Role, group: &str) -> Spec {
        Spec {
            role,
            group: group.to_owned(),
            instance: group.to_owned(),
            program: match role {
                Role::Jaeger => Program::Other { path: "jaeger".into(), listens: Vec::new() },
                _ => Program::Own,
            },
            arguments: vec![group.to_owned()],
            environment: Vec::new(),
            secrets: Vec::new(),
        }
    }

    #[test]
    fn an_exit_says_what_it_means_and_how_to_restart_the_process() {
        let killed = ExitStatus::from_raw(9);
        for (role, group, others, expected) in [
            (
                Role::Service,
                "service-b",
                &["service-b-replica", "service-b-replica-2"][..],
                "service-b-replica or service-b-replica-2 takes over. Restart it with: ",
            ),
            (
                Role::Service,
                "service-b",
                &[],
                "no service-b process is left; service-b calls will wait. Restart it with: ",
            ),
            (Role::Server, "resonate", &[], "all its state is lost. Restart it with: "),
            (
                Role::Gateway,
                "gateway",
                &[],
                "flows continue, HTTP requests fail. Restart it with: ",
            ),
        ] {
            let line = exit_line(&spec(role, group), 1, killed, others, None);
            let beginning = format!("{group} (pid 1) was killed (SIGKILL); {expected}");
            assert!(line.starts_with(&beginning) && line.ends_with(group), "{line}");
        }
        assert_eq!(
            exit_line(&spec(Role::Jaeger, "jaeger"), 1, killed, &[], None),
            "jaeger (pid 1) was killed (SIGKILL); flows continue, spans are lost"
        );
        let (spec, second) = (spec(Role::Service, "service-b"), Some(Duration::from_secs(1)));
        let line =
            exit_line(&spec, 1, ExitStatus::from_raw(137 << 8), &["service-b-replica"], second);
        let expected = "exited with code 137; service-b-replica takes over. Restarting it in 1s";
        assert!(line.ends_with(expected), "{line}");
    }

    #[test]
    fn an_ending_is_told_by_signal_or_exit_code() {
        // The raw status of wait(2): a signal, or an exit code in the next byte.
        for (raw, expected) in [
            (9, "was killed (SIGKILL)"),
            (15, "was terminated by signal 15"),
            (0, "exited with code 0"),
            (64 << 8, "exited with code 64"),
        ] {
            assert_eq!(ending(ExitStatus::from_raw(raw)), expected);
        }
        assert_eq!(
            failed_start(&spec(Role::Service, "service-b"), ExitStatus::from_raw(64 << 8)),
            "service-b exited with code 64 before it was ready"
        );
    }

    #[test]
    fn the_summary_begins_with_the_page_and_has_each_process_once() {
        let specs: Vec<_> = [
            (Role::Server, "resonate", "resonate"),
            (Role::Gateway, "gateway", "gateway"),
            (Role::Service, "service-a", "service-a"),
            (Role::Service, "service-b", "service-b"),
            (Role::Service, "service-b", "service-b-replica"),
            (Role::Service, "service-b", "service-b-replica-2"),
        ]
        .into_iter()
        .map(|(role, group, instance)| Spec { instance: instance.to_owned(), ..spec(role, group) })
        .collect();
        let row = |(n, spec)| Row {
            spec,
            pid: 700 + n as u32,
            address: Some(SocketAddr::from(([127, 0, 0, 1], 5_000 + n as u16))),
        };
        let rows: Vec<_> = specs.iter().enumerate().map(row).collect();
        let server = ("http://127.0.0.1:5000", "embedded");
        let expected = r#"
The system is up: open http://127.0.0.1:5001 in a browser

process                  pid   port    process                  pid   port
resonate                 700   5000    gateway                  701   5001
service-a                702   5002
service-b                703   5003    service-b-replica        704   5004
service-b-replica-2      705   5005

Resonate Server: http://127.0.0.1:5000 (embedded)
Jaeger:          somewhere
Without browser: curl -X POST http://127.0.0.1:5001/await-chain
Crash demo:      curl -X POST "http://127.0.0.1:5001/await-chain?id=crash-$(date +%s)&work=6s"
  meanwhile:     kill -9 703
Press Ctrl-C to stop everything.

"#;
        let jaeger = ["Jaeger:          somewhere".to_owned()];
        assert_eq!(summary(&rows, "http://127.0.0.1:5001", server, &jaeger), expected);
    }

    #[test]
    fn the_summary_says_where_spans_go() {
        let endpoint = Some(("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x:4318".to_owned()));
        assert_eq!(traces_lines(&Traces::Off, None), [""; 0]);
        assert_eq!(
            traces_lines(&Traces::Elsewhere, endpoint),
            ["Traces:          go to http://x:4318 (OTEL_EXPORTER_OTLP_ENDPOINT)"]
        );
    }
}
