//! Bad settings and options: one line that says what to change, exit code 64, and nothing is started.

use std::{ffi::OsStr, net::TcpListener, os::unix::ffi::OsStrExt};

use testkit::{
    Line, Log, Process, Stopped, free_port,
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
            "error: cannot listen on 127.0.0.1:{port}: Address already in use (os error 98); choose another address with {option}"
        );
        assert_eq!((code, lines), (Some(USAGE), vec![expected]));
    }
    let address = format!("127.0.0.1:{port}");
    for (process, variable) in [("service-b", "NODE_HEALTH_LISTEN"), ("gateway", "GATEWAY_LISTEN")]
    {
        let (code, lines) = run(&[process], &[(variable, &address)]).await;
        assert_eq!((code, lines.len()), (Some(USAGE), 1), "{lines:?}");
        assert!(
            lines[0].ends_with(&format!("; choose another address with {variable}")),
            "{lines:?}"
        );
    }
}

#[tokio::test]
async fn https_without_certificates_is_one_clear_error() {
    let none = "/nowhere";
    let settings = [
        ("NODE_SERVER_URL", "https://127.0.0.1:1"),
        ("SSL_CERT_FILE", none),
        ("SSL_CERT_DIR", none),
    ];
    for process in ["service-b", "gateway"] {
        let (code, lines) = run(&[process], &settings).await;
        let expected = "error: cannot use TLS for https://127.0.0.1:1: \
            No CA certificates were loaded from the system; \
            install the CA certificates of this system (on Debian: ca-certificates), \
            or name those of the server by NODE_SERVER_CA_FILE";
        assert_eq!((code, lines.last().unwrap().as_str()), (Some(1), expected), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_bad_setting_names_the_variable_its_value_and_what_is_allowed() {
    const DURATION: &str = "expected a duration such as 500ms or 3s";
    const ADDRESS: &str = "expected an IP address with a port, such as 127.0.0.1:8080";
    const URL: &str = "expected an address such as http://127.0.0.1:8001";
    let everywhere = [
        ("NODE_LEASE", "soon", DURATION),
        ("NODE_LEASE", "100ms", "must be between 500ms and 1h"),
        ("NODE_DRAIN", "-1s", DURATION),
        ("NODE_CONNECT_TIMEOUT", "2m", "must be between 10ms and 1m"),
        ("NODE_REQUEST_TIMEOUT", "2", DURATION),
        ("NODE_SERVER_URL", "localhost:8001", URL),
        ("NODE_INSTANCE", "service b", "expected 1 to 100 characters of A-Z a-z 0-9 - _"),
        ("NODE_ATTEMPTS", "0", "expected an integer from 1 to 100"),
        ("NODE_RETRY_DELAY", "0s", "must be between 1ms and 1m"),
        ("NODE_RETRY_MAX_DELAY", "2h", "must be between 1ms and 1h"),
        ("NODE_HEALTH_LISTEN", "8080", ADDRESS),
        ("NODE_WORKER_THREADS", "many", "expected an integer from 1 to 64"),
        ("NODE_CONFIG_FILE", "/nowhere/node.toml", "expected a readable TOML file"),
        ("NODE_LOG_FORMAT", "xml", "expected human or json"),
        ("NODE_LOG", "node=loud", "expected a filter such as info,hyper=debug"),
        ("NODE_SPANS", "shop=loud", "expected a filter such as info,hyper=debug"),
    ];
    let gateway = [
        ("GATEWAY_LISTEN", "5000", ADDRESS),
        ("GATEWAY_AWAIT", "forever", DURATION),
        ("GATEWAY_FLOW_TIMEOUT", "1ms", "must be between 100ms and 8760h"),
    ];
    let launcher: &[&str] = &["--port", "0", "--server-port", "0"];
    let cases = everywhere.iter().flat_map(|case| [(launcher, case), (&["service-b"], case)]);
    let cases =
        cases.chain(gateway.iter().flat_map(|case| [(launcher, case), (&["gateway"], case)]));
    for (arguments, (variable, value, expected)) in cases {
        let (code, lines) = run(arguments, &[(variable, value)]).await;
        let context = format!("{arguments:?} {variable}={value}: {lines:#?}");
        assert_eq!((code, lines.len()), (Some(USAGE), 1), "{context}");
        let start = format!("error: invalid {variable} {value:?}: {expected}");
        assert!(lines[0].starts_with(&start), "{context}");
    }
}

#[tokio::test]
async fn a_bad_option_names_itself_its_value_and_what_is_allowed() {
    const URL: &str = "expected an address such as http://127.0.0.1:8001";
    const NAME: &str = "expected 1 to 100 characters of A-Z a-z 0-9 - _";
    for (arguments, option, value, expected) in [
        (&["service-b", "--instance", "a b"][..], "--instance", "a b", NAME),
        (&["service-b", "--server", "ftp://x"], "--server", "ftp://x", URL),
        (&["gateway", "--server", "resonate"], "--server", "resonate", URL),
        (&["--port", "0", "--server", "nonsense"], "--server", "nonsense", URL),
    ] {
        let (code, lines) = run(arguments, &[]).await;
        assert_eq!((code, lines.len()), (Some(USAGE), 1), "{arguments:?}: {lines:#?}");
        let start = format!("error: invalid {option} {value:?}: {expected}");
        assert!(lines[0].starts_with(&start), "{arguments:?}: {lines:#?}");
    }
}

#[tokio::test]
async fn a_setting_that_is_not_utf_8_names_its_variable() {
    let log = Log::new();
    let mut command = async_rpc(&["service-b"], &[]);
    command.env("NODE_LEASE", OsStr::from_bytes(b"\xff"));
    let status = Process::start(&mut command, &log).exited().await;
    log.ended().await;
    let lines: Vec<_> = log.all(|_| true).into_iter().map(|line| line.text).collect();
    assert_eq!(lines, ["error: invalid NODE_LEASE: not valid UTF-8"]);
    assert_eq!(status.code(), Some(USAGE));
}

#[tokio::test]
async fn an_empty_setting_counts_as_unset_and_an_unknown_one_is_reported() {
    let log = Log::new();
    let url = format!("http://127.0.0.1:{}", free_port());
    let arguments = ["service-b", "--server", &url, "--health-listen", "127.0.0.1:0"];
    let settings = [("NODE_LEASE", ""), ("NODE_LAESE", "5s")];
    let mut process = Process::start(&mut async_rpc(&arguments, &settings), &log);
    let unknown =
        |line: &Line| line.says("unknown setting") && line.field("name") == Some("NODE_LAESE");
    log.line("a warning about NODE_LAESE", unknown).await;
    // From here on it handles signals.
    log.line("it to wait", |line| line.says("waiting for the Resonate Server")).await;
    assert_eq!(process.stop().await.code(), Some(0), "{log}");
    Stopped::check(&log);
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_one_line_that_does_not_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let lines = file("lines", "s3cret\ns3cret\n");
    let toml = file("node.toml", "server_token = \"s3cret s3cret\"\n");
    let broken = file("broken.toml", "server_token = s3cret\n");
    let token = ("NODE_SERVER_TOKEN", "s3cret");
    for (settings, expected) in [
        (
            vec![token, ("NODE_SERVER_TOKEN_FILE", &*lines)],
            "invalid NODE_SERVER_TOKEN: NODE_SERVER_TOKEN_FILE is set too; set only one of them"
                .to_owned(),
        ),
        (
            vec![("NODE_SERVER_TOKEN_FILE", &*lines)],
            format!(
                "invalid NODE_SERVER_TOKEN_FILE {lines:?}: it has several lines; expected a token in one \
                 line"
            ),
        ),
        (
            vec![("NODE_CONFIG_FILE", &*toml)],
            "invalid NODE_SERVER_TOKEN: it has spaces or special characters; expected a token"
                .to_owned(),
        ),
        (
            vec![("NODE_CONFIG_FILE", &*broken)],
            format!("invalid NODE_CONFIG_FILE {broken:?}: expected a readable TOML file"),
        ),
        (
            vec![("NODE_SERVER_CA_FILE", &*lines)],
            format!(
                "invalid NODE_SERVER_CA_FILE {lines:?}: expected a PEM file with CA certificates (there \
                 is none in it)"
            ),
        ),
    ] {
        for process in [&["service-b"][..], &["gateway"], &["--port=0", "--server-port=0"]] {
            let (code, lines) = run(process, &settings).await;
            assert_eq!((code, lines.len()), (Some(USAGE), 1), "{process:?}: {lines:#?}");
            assert!(lines[0].starts_with(&format!("error: {expected}")), "{process:?}: {lines:#?}");
            assert!(!lines[0].contains("s3cret"), "{lines:#?}");
        }
        if settings[0] != ("NODE_CONFIG_FILE", &broken) {
            let (code, lines) = run(&["service-b", "--help"], &settings).await;
            assert_eq!(code, Some(0), "{lines:#?}");
            assert!(!lines.iter().any(|line| line.contains("s3cret")), "{lines:#?}");
        }
    }
    let tokens = file("tokens", "s3cret\n");
    let (code, lines) = run(&["gateway"], &[("GATEWAY_TOKENS_FILE", &tokens)]).await;
    let expected = format!(
        "error: invalid GATEWAY_TOKENS_FILE {tokens:?}: line 1: a token has 16 characters or more"
    );
    assert_eq!((code, lines), (Some(USAGE), vec![expected]));
}
