//! The launcher, as its user sees it: what it says, what it starts, and that it leaves nothing.

#[allow(dead_code, reason = "each of the test binaries uses a part of it")]
mod support;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use support::{
    Http, Log, Process, Server, System,
    process::{command_line, executable, left},
    server::free_port,
    until,
};

/// Exit code for what the user has to change (EX_USAGE).
const USAGE: i32 = 64;

/// Runs the executable to its end: exit code and lines. Nothing it started may be left.
async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, Vec<String>) {
    let log = Log::new();
    let mut process = Process::start(&mut executable(arguments, settings), &log);
    let status = process.ended().await;
    assert_eq!(left(&log), [], "left by {arguments:?} {settings:?}");
    log.ended().await;
    (status.code(), log.all(|_| true).into_iter().map(|line| line.text).collect())
}

#[tokio::test]
async fn a_port_in_use_is_one_line_and_nothing_is_left_running() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (option, other) in [("--port", "--server-port"), ("--server-port", "--port")] {
        let (code, lines) = run(&[option, &port, other, "0"], &[]).await;
        let expected = format!(
            "error: cannot listen on 127.0.0.1:{port}: Address already in use (os error 98); choose another with {option}"
        );
        assert_eq!((code, lines), (Some(USAGE), vec![expected]));
    }
    let address = format!("127.0.0.1:{port}");
    for (process, variable) in [("service-b", "NODE_HEALTH_LISTEN"), ("gateway", "GATEWAY_LISTEN")]
    {
        let (code, lines) = run(&[process], &[(variable, &address)]).await;
        assert_eq!((code, lines.len()), (Some(USAGE), 1), "{lines:?}");
        assert!(lines[0].ends_with(&format!("; choose another with {variable}")), "{lines:?}");
    }
}

#[tokio::test]
async fn a_bad_setting_names_the_variable_its_value_and_what_is_allowed() {
    let everywhere = [
        ("NODE_LEASE", "soon", "is not an integer with ms, s, m or h"),
        ("NODE_LEASE", "100ms", "from 500ms to 1h is allowed"),
        ("NODE_DRAIN", "-1s", "is not an integer with ms, s, m or h"),
        ("NODE_CONNECT_TIMEOUT", "2m", "from 10ms to 1m is allowed"),
        ("NODE_REQUEST_TIMEOUT", "", "is not an integer with ms, s, m or h"),
        (
            "NODE_SERVER_URL",
            "localhost:8001",
            "an address such as http://127.0.0.1:8001 is expected",
        ),
        ("NODE_INSTANCE", "service b", "1 to 100 characters of A-Z a-z 0-9 - _ are allowed"),
        ("NODE_ATTEMPTS", "0", "an integer from 1 to 100 is allowed"),
        ("NODE_RETRY_DELAY", "0s", "from 1ms to 1m is allowed"),
        ("NODE_RETRY_MAX_DELAY", "2h", "from 1ms to 1h is allowed"),
        ("NODE_HEALTH_LISTEN", "8080", "an IP address with a port is expected"),
        ("NODE_WORKER_THREADS", "many", "an integer from 1 to 64 is allowed"),
        ("NODE_CONFIG_FILE", "/nowhere/node.toml", "a readable TOML file is expected"),
        ("NODE_LOG_FORMAT", "xml", "human or json is expected"),
        ("NODE_LOG", "node=loud", "a filter such as info,node=debug is expected"),
    ];
    let gateway = [
        ("GATEWAY_LISTEN", "5000", "an IP address with a port is expected"),
        ("GATEWAY_AWAIT", "forever", "is not an integer with ms, s, m or h"),
        ("GATEWAY_FLOW_TIMEOUT", "1ms", "from 100ms to 8760h is allowed"),
    ];
    let launcher: &[&str] = &["--port", "0", "--server-port", "0"];
    let cases = everywhere.iter().flat_map(|case| [(launcher, case), (&["service-b"], case)]);
    let cases =
        cases.chain(gateway.iter().flat_map(|case| [(launcher, case), (&["gateway"], case)]));
    for (arguments, (variable, value, allowed)) in cases {
        let (code, lines) = run(arguments, &[(variable, value)]).await;
        let context = format!("{arguments:?} {variable}={value}: {lines:#?}");
        assert_eq!((code, lines.len()), (Some(USAGE), 1), "{context}");
        let beginning = format!("error: {variable}={value:?} cannot be used: ");
        assert!(lines[0].starts_with(&beginning) && lines[0].contains(allowed), "{context}");
    }
}

#[tokio::test]
async fn a_bad_option_names_itself_its_value_and_what_is_allowed() {
    for (arguments, says) in [
        (&["service-b", "--instance", "a b"][..], "--instance=\"a b\" cannot be used: 1 to 100"),
        (&["service-b", "--server", "ftp://x"], "--server=\"ftp://x\" cannot be used: an address"),
        (&["gateway", "--server", "resonate"], "--server=\"resonate\" cannot be used: an address"),
        (
            &["--port", "0", "--server", "nonsense"],
            "--server=\"nonsense\" cannot be used: an address",
        ),
    ] {
        let (code, lines) = run(arguments, &[]).await;
        assert_eq!((code, lines.len()), (Some(USAGE), 1), "{arguments:?}: {lines:#?}");
        assert!(lines[0].contains(says), "{arguments:?}: {lines:#?}");
    }
}

#[tokio::test]
async fn sigterm_and_sigint_end_everything() {
    for name in ["TERM", "INT"] {
        let system = System::start(Server::Embedded, &[]).await;
        let http = system.http();
        let request = tokio::spawn(async move { http.post("/await-chain?work=30s").await });
        system.log.line("a step", |line| line.in_run("step begins", "await-chain.0")).await;
        support::process::signal(system.launcher_pid(), name);
        // Whoever waits is told that the flow goes on, as far as the gateway knows.
        assert_eq!(request.await.unwrap().status, 202);
        assert_eq!(system.ended().await.code(), Some(0), "SIG{name}; {}", system.log);
        assert_eq!(left(&system.log), []);
        let stopped = system.log.all(|line| line.text.contains("\"message\":\"stopped\""));
        assert_eq!(stopped.len(), 19, "each service and the gateway stop in order");
    }
}

#[tokio::test]
async fn a_launcher_that_is_killed_takes_everything_with_it() {
    const SOON: Duration = Duration::from_secs(5);
    let system = System::start(Server::Embedded, &[]).await;
    assert_eq!(left(&system.log).len(), 21);
    let killed = Instant::now();
    support::process::signal(system.launcher_pid(), "KILL");
    let log = &system.log;
    until(log, "the end of all", async || left(log).is_empty().then_some(())).await;
    assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
}

#[tokio::test]
async fn three_replicas_are_ready_and_known_by_their_names() {
    let system = System::start_with(Server::Embedded, &[], &["--replicas", "3"]).await;
    let mut expected = vec!["gateway".to_owned(), "resonate".to_owned()];
    for letter in 'a'..='i' {
        let service = format!("service-{letter}");
        expected.extend(["", "-replica", "-replica-2"].map(|end| format!("{service}{end}")));
    }
    expected.sort();
    let pids = system.pids();
    let mut names: Vec<_> = pids.keys().cloned().collect();
    names.sort();
    assert_eq!(names, expected);
    for (instance, pid) in pids.iter().filter(|(instance, _)| *instance != "resonate") {
        let line = command_line(*pid);
        assert!(line.contains(&format!(" --instance {instance} ")), "{line}");
        let http = Http::new(&system.address(instance));
        for path in ["/healthz", "/readyz"] {
            assert_eq!(http.get(path).await.status, 200, "{instance} {path}");
        }
    }
    system.http().post("/await-chain").await.expect_message(3);
}

#[tokio::test]
async fn a_server_that_nobody_runs_is_waited_for_aloud_until_ctrl_c() {
    let log = Log::new();
    let url = format!("http://127.0.0.1:{}", free_port());
    let arguments = ["--port", "0", "--replicas", "1", "--server", &url];
    let mut launcher = Process::start(&mut executable(&arguments, &[]), &log);
    let progress = format!("(Resonate Server: {url})");
    let line = log.line("progress", |line| line.text.ends_with(&progress)).await.text;
    assert!(
        line.starts_with("0 of 10 processes are ready; waiting for gateway, service-a, "),
        "{line}"
    );
    let waiting = |line: &support::Line| line.text.contains("waiting for the Resonate Server");
    log.lines("each to say so", 10, waiting).await;
    launcher.signal("INT");
    assert_eq!(launcher.ended().await.code(), Some(0), "{log}");
    assert_eq!(left(&log), []);
    assert_eq!(log.all(waiting).len(), 10, "each says it once");
}

#[tokio::test]
async fn a_process_without_a_server_is_alive_but_not_ready() {
    let log = Log::new();
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://127.0.0.1:{}", free_port());
    let arguments = ["service-b", "--server", &url, "--health-listen", &address];
    let _process = Process::start(&mut executable(&arguments, &[]), &log);
    log.line("it to say that it waits", |line| line.text.contains("waiting for the Resonate"))
        .await;
    let http = Http::new(&address);
    assert_eq!((http.get("/healthz").await.status, http.get("/readyz").await.status), (200, 503));
}
