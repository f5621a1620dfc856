//! The launcher as its user sees it: what it says, what it starts, and that it leaves nothing.

use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use testkit::{
    Http, Line, Log, Process, Server, Stopped, System, free_port,
    process::{
        EXECUTABLE, async_rpc, command_line, executable_folder, left, runs, set, signal, table,
    },
    until,
};

#[tokio::test]
async fn sigterm_and_sigint_end_everything() {
    for name in ["TERM", "INT"] {
        let system = System::start(Server::Embedded, &[]).await;
        let http = system.http();
        let request = tokio::spawn(async move { http.post("/await-chain?work=30s").await });
        system.log.line("a step", |line| line.in_run("step started", "await-chain.0")).await;
        signal(system.launcher_pid(), name);
        // The client is told that the flow continues, which is all that the gateway knows.
        assert_eq!(request.await.unwrap().status, 202);
        assert_eq!(system.exited().await.code(), Some(0), "SIG{name}; {}", system.log);
        let stopped = system.log.all(|line| line.says("stopped"));
        assert_eq!(stopped.len(), 19, "the gateway and the services stop by themselves");
        system.stop().await;
    }
}

#[tokio::test]
async fn a_launcher_that_is_killed_takes_everything_with_it() {
    const SOON: Duration = Duration::from_secs(5);
    let system = System::start(Server::Embedded, &[]).await;
    let log = &system.log;
    assert_eq!(left(log).len(), 21);
    let killed = Instant::now();
    signal(system.launcher_pid(), "KILL");
    until(log, "the end of all processes", async || left(log).is_empty().then_some(())).await;
    assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
    system.stop().await;
}

#[tokio::test]
async fn three_replicas_are_ready_and_known_by_their_names() {
    let system = System::start_with(Server::Embedded, &[], &["--replicas", "3"]).await;
    let mut expected = vec!["gateway".to_owned(), "resonate".to_owned()];
    for group in testkit::flows::groups() {
        expected.extend(["", "-replica", "-replica-2"].map(|suffix| format!("{group}{suffix}")));
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
    system.stop().await;
}

#[tokio::test]
async fn a_server_that_nobody_runs_is_waited_for_aloud_until_ctrl_c() {
    let log = Log::new();
    let url = format!("http://127.0.0.1:{}", free_port());
    let arguments = ["--port", "0", "--replicas", "1", "--server", &url, "--no-jaeger"];
    let mut launcher = Process::start(&mut async_rpc(&arguments, &[]), &log);
    let progress = format!("(Resonate Server: {url})");
    let line = log.line("a line of progress", |line| line.text.ends_with(&progress)).await.text;
    assert!(
        line.starts_with("0 of 10 processes are ready; waiting for gateway, service-a, "),
        "{line}"
    );
    let waiting = |line: &Line| line.text.contains("waiting for the Resonate Server");
    log.lines("each process to say that it waits", 10, waiting).await;
    launcher.signal("INT");
    assert_eq!(launcher.exited().await.code(), Some(0), "{log}");
    assert_eq!(log.all(waiting).len(), 10, "each process says it once");
    Stopped::check(&log);
}

#[tokio::test]
async fn a_process_without_a_server_is_alive_but_not_ready() {
    let log = Log::new();
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://127.0.0.1:{}", free_port());
    let arguments = ["service-b", "--server", &url, "--health-listen", &address];
    let mut process = Process::start(&mut async_rpc(&arguments, &[]), &log);
    let waiting = |line: &Line| line.text.contains("waiting for the Resonate Server");
    log.line("the process to say that it waits", waiting).await;
    let http = Http::new(&address);
    assert_eq!((http.get("/healthz").await.status, http.get("/readyz").await.status), (200, 503));
    assert_eq!(process.stop().await.code(), Some(0));
    Stopped::check(&log);
}

#[tokio::test]
async fn at_the_beginning_and_end_only_the_launcher_prints() {
    let system = System::start(Server::Embedded, &[("NODE_LOG", "info")]).await;
    let lines = system.log.all(|line| !line.text.is_empty());
    let page = format!("The system is up: open http://{} in a browser", system.gateway);
    assert_eq!(lines[0].text, page, "{}", system.log);
    assert!(lines[1].text.starts_with("process "), "{}", system.log);
    // The same at the end.
    let started = lines.len();
    signal(system.launcher_pid(), "TERM");
    system.exited().await;
    system.log.ended().await;
    let lines: Vec<_> = system.log.all(|line| !line.text.is_empty());
    let last: Vec<_> = lines[started..].iter().map(|line| line.text.as_str()).collect();
    assert_eq!(last, ["stopping 20 processes"]);
    system.stop().await;
}

/// As in `async-rpc | head`: neither the launcher nor `cog` may mind.
#[tokio::test]
async fn nobody_has_to_read_what_is_printed() {
    let (log, is_last) = (Log::new(), |line: &str| line.starts_with("Press Ctrl-C"));
    let arguments = ["--port", "0", "--server-port", "0", "--no-jaeger"];
    let mut launcher = Process::start_until(&mut async_rpc(&arguments, &[]), &log, is_last);
    log.line("the summary", |line| is_last(&line.text)).await;
    let lines: Vec<_> = log.all(|_| true).into_iter().map(|line| line.text).collect();
    let (pids, ports): (HashMap<_, _>, HashMap<_, _>) = table(&lines)
        .map(|(instance, pid, port)| ((instance.clone(), pid), (instance, port)))
        .unzip();
    let pid = pids["service-f"];
    signal(pid, "KILL");
    until(&log, "its end", async || (!runs(pid)).then_some(())).await;
    let http = Http::new(&format!("127.0.0.1:{}", ports["gateway"]));
    http.post("/detached-chain?id=unread").await;
    until(&log, "the end of the flow", async || {
        let state = http.get("/flows/unread").await.body["state"].clone();
        (state != "pending").then(|| assert_eq!(state, "resolved", "{log}"))
    })
    .await;
    launcher.signal("TERM");
    assert_eq!(launcher.exited().await.code(), Some(0), "{log}");
    Stopped::check(&log);
}

/// A build replaces the file that the launcher runs.
#[tokio::test]
async fn after_a_build_the_launcher_starts_the_new_executable() {
    let folder = tempfile::tempdir_in(executable_folder()).unwrap();
    let path = folder.path().join("async-rpc");
    let build = || std::fs::hard_link(&*EXECUTABLE, &path).unwrap();
    build();
    let (log, mut command) = (Log::new(), Command::new(&path));
    command.args(["--port", "0", "--server-port", "0", "--no-jaeger", "--replicas", "1"]);
    set(command.args(["--restart", "100ms"]), &[]);
    let mut launcher = Process::start(&mut command, &log);
    log.line("the summary", |line| line.text.starts_with("Press Ctrl-C")).await;
    std::fs::remove_file(&path).unwrap();
    build();
    let lines: Vec<_> = log.all(|_| true).into_iter().map(|line| line.text).collect();
    let (_, pid, _) = table(&lines).find(|(instance, ..)| instance == "service-c").unwrap();
    signal(pid, "KILL");
    log.line("it to be back", |line| line.text.starts_with("service-c is back (pid ")).await;
    launcher.signal("TERM");
    assert_eq!(launcher.exited().await.code(), Some(0), "{log}");
    Stopped::check(&log);
}

#[tokio::test]
async fn open_opens_the_page_in_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let opened = folder.path().join("opened");
    // What the system has instead of a browser.
    for program in ["xdg-open", "open"] {
        let path = folder.path().join(program);
        std::fs::write(&path, format!("#!/bin/sh\necho \"$1\" >{}\n", opened.display())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let settings = [("PATH", &*path)];
    let system = System::start_with(Server::Embedded, &settings, &["--open"]).await;
    let url = until(&system.log, "a browser", async || {
        let text = std::fs::read_to_string(&opened).ok()?;
        text.strip_suffix('\n').map(str::to_owned)
    });
    assert_eq!(url.await, format!("http://{}", system.gateway));
    system.stop().await;

    let none = [("PATH", "/nowhere")];
    let system = System::start_with(Server::Embedded, &none, &["--open"]).await;
    let line = |line: &Line| line.text.starts_with("cannot open a browser: ");
    system.log.line("a line about the browser", line).await;
    system.http().post("/await-chain").await.expect_message(3);
    system.stop().await;
}

#[tokio::test]
async fn with_restart_whoever_dies_comes_back_where_it_was() {
    let options = ["--restart", "100ms", "--replicas", "1"];
    let system = System::start_with(Server::Embedded, &[], &options).await;
    for instance in ["service-c", "gateway"] {
        system.kill(instance);
        let line = system.exit_line(instance).await.text;
        assert!(line.ends_with(". Restarting it in 100ms"), "{line}");
        let back = format!("{instance} is back (pid ");
        system.log.line("it to be back", |line| line.text.starts_with(&back)).await;
        system.http().post(&format!("/await-chain?id=after-{instance}")).await.expect_message(3);
    }
    system.kill("resonate");
    let line = system.exit_line("resonate").await.text;
    assert!(line.contains(". Restart it with: "), "it has lost its state: {line}");
    system.stop().await;
}
