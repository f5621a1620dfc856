//! What the launcher prints: to standard output, for the person who started it.

use std::{net::SocketAddr, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use flows::FLOWS;

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

/// Prints which processes are not ready.
pub fn print_progress(waiting: &[&str], total: usize, server: &str) {
    let (ready, waiting) = (total - waiting.len(), waiting.join(", "));
    println!(
        "{ready} of {total} processes are ready; waiting for {waiting} (Resonate Server: {server})"
    );
}

/// Prints the table of processes, the addresses, and what to try first.
pub fn print_summary(rows: &[Row], server: &str, kind: &str, traces: &Traces) {
    println!("\n{:<24}{:>8}  listens on", "process", "pid");
    for Row { spec, pid, address } in rows {
        let scheme = if spec.role == Role::Server { "http://" } else { "" };
        let address = address.map(|address| format!("{scheme}{address}")).unwrap_or_default();
        println!("{:<24}{pid:>8}  {address}", spec.instance);
    }
    println!("\nResonate Server: {server} ({kind})");
    for line in traces_lines(traces, jaeger::endpoint()) {
        println!("{line}");
    }
    let gateway = rows.iter().find(|row| row.spec.role == Role::Gateway);
    if let Some(address) = gateway.and_then(|row| row.address) {
        print_demo(rows, address);
    }
    println!("Press Ctrl-C to stop everything.\n");
}

/// Prints commands that start the first flow, and one that kills the process that works in it.
fn print_demo(rows: &[Row], gateway: SocketAddr) {
    let Some(flow) = FLOWS.first() else { return };
    let url = format!("http://{gateway}{}", flow.route());
    println!("\nTry:            curl -X POST {url}");
    println!("Crash demo:     curl -X POST \"{url}?id=crash-$(date +%s)&work=6s\"");
    let works = flow.functions.iter().find(|function| function.works);
    let first = rows.iter().find(|row| works.is_some_and(|it| it.group == row.spec.instance));
    if let Some(Row { pid, .. }) = first {
        println!("  meanwhile:    kill -9 {pid}");
    }
}

/// Where spans go. `endpoint`: the user's own, and the variable that names it.
fn traces_lines(traces: &Traces, endpoint: Option<(&str, String)>) -> Vec<String> {
    let elsewhere =
        endpoint.map(|(variable, url)| format!("Traces:          go to {url} ({variable})"));
    match traces {
        Traces::Jaeger(jaeger) => {
            let page = format!("Jaeger:          http://{} (traces are in memory)", jaeger.page());
            let elsewhere = elsewhere.map(|line| format!("{line}, not to this Jaeger"));
            std::iter::once(page).chain(elsewhere).collect()
        }
        Traces::Elsewhere => elsewhere.into_iter().collect(),
        Traces::Off(reason) => vec![format!("Traces:          off ({reason})")],
    }
}

/// Prints that a process exited, what that means, and how to restart it. `others`: the processes
/// of its group that still run.
pub fn print_exit(spec: &Spec, pid: u32, status: ExitStatus, others: &[&str]) {
    println!("{}", exit_line(spec, pid, status, others));
}

fn exit_line(spec: &Spec, pid: u32, status: ExitStatus, others: &[&str]) -> String {
    let Spec { group, instance, .. } = spec;
    let consequence = match (spec.role, others) {
        (Role::Server, _) => "all its state is lost".to_owned(),
        (Role::Jaeger, _) => "flows continue, spans are lost".to_owned(),
        (Role::Gateway, _) => "flows continue, HTTP requests fail".to_owned(),
        (Role::Service, []) => format!("no {group} process is left; {group} calls will wait"),
        (Role::Service, others) => format!("{} takes over", others.join(" or ")),
    };
    let restart = match spec.program {
        Program::Own => format!(". Restart it with: {}", command_line(spec)),
        Program::Other { .. } => String::new(),
    };
    format!("{instance} (pid {pid}) {}; {consequence}{restart}", ending(status))
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
    println!("stopping {processes} processes");
}

/// Prints that a process was killed because it did not stop in time.
pub fn print_killed(instance: &str, pid: u32, patience: Duration) {
    println!("{instance} (pid {pid}) did not stop within {patience:?} and was killed");
}

/// Prints that a process was killed because it does not listen.
pub fn print_silent(instance: &str, pid: u32, patience: Duration) {
    println!("{instance} (pid {pid}) did not listen within {patience:?} and was killed");
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
            let line = exit_line(&spec(role, group), 1, killed, others);
            let beginning = format!("{group} (pid 1) was killed (SIGKILL); {expected}");
            assert!(line.starts_with(&beginning) && line.ends_with(group), "{line}");
        }
        assert_eq!(
            exit_line(&spec(Role::Jaeger, "jaeger"), 1, killed, &[]),
            "jaeger (pid 1) was killed (SIGKILL); flows continue, spans are lost"
        );
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
    fn the_summary_says_where_spans_go() {
        let endpoint = || Some(("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x:4318".to_owned()));
        assert_eq!(
            traces_lines(&Traces::Off("--no-jaeger"), None),
            ["Traces:          off (--no-jaeger)"]
        );
        assert_eq!(
            traces_lines(&Traces::Elsewhere, endpoint()),
            ["Traces:          go to http://x:4318 (OTEL_EXPORTER_OTLP_ENDPOINT)"]
        );
    }
}
