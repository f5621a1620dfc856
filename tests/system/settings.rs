//! Bad settings and options: one line that says what to change, exit code 64, and nothing started.

use std::net::TcpListener;

use testkit::{
    Log, Process,
    process::{async_rpc, left},
};

/// The exit code for what the user has to change (EX_USAGE).
const USAGE: i32 = 64;

/// Runs the executable to its end: exit code and lines. Asserts that it leaves no process.
async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, Vec<String>) {
    let log = Log::new();
    let mut process = Process::start(&mut async_rpc(arguments, settings), &log);
    let status = process.exited().await;
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
        let start = format!("error: {variable}={value:?} cannot be used: ");
        assert!(lines[0].starts_with(&start) && lines[0].contains(allowed), "{context}");
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
