//! The whole system, started by its launcher.

use std::{
    collections::HashMap,
    process::Command,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use super::{
    Http, Line, Log, Process, Resonate, Server,
    process::{self, EXECUTABLE, executable},
    server::Prepared,
};

/// A launcher with its processes. All are ended, and seen to be ended, when this is dropped.
pub struct System {
    pub log: Log,
    /// Where the gateway answers.
    pub gateway: String,
    /// The Resonate Server's address.
    pub server_url: String,
    /// Official server only: the launcher has its own embedded one.
    pub server: tokio::sync::Mutex<Option<Prepared>>,
    settings: Vec<(String, String)>,
    launcher: Mutex<Process>,
    /// Processes by instance, as the launcher's table has them or as a test started them.
    pids: Mutex<HashMap<String, u32>>,
    /// Started by a test, by the command that the launcher printed.
    extra: Mutex<Vec<Process>>,
}

impl System {
    /// Starts everything with these settings, and waits until it is ready.
    pub async fn start(server: Server, settings: &[(&str, &str)]) -> Self {
        Self::start_with(server, settings, &[]).await
    }

    /// The same, with more options for the launcher.
    pub async fn start_with(server: Server, settings: &[(&str, &str)], options: &[&str]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let log = Log::new();
        let mut arguments = vec!["--port", "0", "--server-port", "0"];
        if !options.iter().any(|option| option.starts_with("--jaeger")) {
            arguments.push("--no-jaeger");
        }
        arguments.extend(options);
        let (mut prepared, mut url) = (None, String::new());
        if server == Server::Official {
            let server = prepared.insert(server.prepare(&log));
            let of_server = settings.iter().filter(|(name, _)| name.starts_with("RESONATE_"));
            server.settings = of_server.map(owned).collect();
            server.start().await;
            url = server.url();
            arguments.extend(["--server", &url]);
        }
        let launcher = Process::start(&mut executable(&arguments, settings), &log);
        log.line("the launcher's last line", |line| line.text == "Ctrl-C ends everything.").await;
        let table = table(&log);
        let address = |instance: &str| table[instance].1.clone();
        if url.is_empty() {
            url = address("resonate");
        }
        Self {
            gateway: address("gateway"),
            server_url: url,
            server: prepared.into(),
            settings: settings.iter().map(owned).collect(),
            launcher: launcher.into(),
            pids: table
                .iter()
                .map(|(name, (pid, _))| (name.clone(), *pid))
                .collect::<HashMap<_, _>>()
                .into(),
            extra: Mutex::default(),
            log,
        }
    }

    /// The system that tests share which kill nothing: it ends with the last of them.
    pub async fn shared(server: Server) -> Arc<Self> {
        static SHARED: tokio::sync::Mutex<Vec<(Server, Weak<System>)>> =
            tokio::sync::Mutex::const_new(Vec::new());
        let mut shared = SHARED.lock().await;
        let there = shared.iter().find(|(kind, _)| *kind == server);
        if let Some(system) = there.and_then(|(_, system)| system.upgrade()) {
            return system;
        }
        let system = Arc::new(Self::start(server, &[]).await);
        shared.retain(|(kind, _)| *kind != server);
        shared.push((server, Arc::downgrade(&system)));
        system
    }

    /// A client of the gateway. Each test needs its own: a client lives on its test's runtime.
    pub fn http(&self) -> Http {
        Http::new(&self.gateway)
    }

    /// A client of the Resonate Server.
    pub fn resonate(&self) -> Resonate {
        Resonate::new(&self.server_url)
    }

    /// The instances and their process ids.
    pub fn pids(&self) -> HashMap<String, u32> {
        self.pids.lock().unwrap().clone()
    }

    pub fn pid(&self, instance: &str) -> u32 {
        self.pids()[instance]
    }

    /// Where a process of the launcher's table listens.
    pub fn address(&self, instance: &str) -> String {
        table(&self.log)[instance].1.clone()
    }

    pub fn launcher_pid(&self) -> u32 {
        self.launcher.lock().unwrap().pid
    }

    /// `kill -9`: the moment of it.
    pub fn kill(&self, instance: &str) -> Instant {
        let at = Instant::now();
        process::signal(self.pid(instance), "KILL");
        at
    }

    /// The launcher's line about a process that has ended.
    pub async fn obituary(&self, instance: &str) -> Line {
        let beginning = format!("{instance} (pid {})", self.pid(instance));
        self.log
            .line("the launcher's line about it", |line| line.text.starts_with(&beginning))
            .await
    }

    /// Starts a process that has ended by the command that the launcher printed, and waits until
    /// it is ready: a client of it.
    pub async fn start_again(&self, instance: &str) -> Http {
        let line = self.obituary(instance).await;
        let (_, command) = line.text.split_once("To start it again: ").expect("a command");
        Http::new(&self.start_by(instance, command, &[]).await)
    }

    /// Starts a process by a line for the shell, with more settings than the rest has, and waits
    /// until it is ready: the address that it listens on.
    pub async fn start_by(
        &self,
        instance: &str,
        command: &str,
        settings: &[(&str, &str)],
    ) -> String {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {command}")]);
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        process::set(&mut shell, &own.chain(settings.iter().copied()).collect::<Vec<_>>());
        let process = Process::start(&mut shell, &self.log);
        let pid = process.pid;
        self.extra.lock().unwrap().push(process);
        self.pids.lock().unwrap().insert(instance.to_owned(), pid);
        let text = format!("\"pid\":{pid}");
        let ready = self.log.line("a process to be ready", |line| line.text.contains(&text)).await;
        ready.field("health").expect("its address").to_owned()
    }

    /// Starts one more gateway, with settings of its own: a client of it.
    pub async fn another_gateway(&self, instance: &str, settings: &[(&str, &str)]) -> Http {
        let command = format!(
            "{EXECUTABLE} gateway --instance {instance} --server {} --port 0",
            self.server_url
        );
        Http::new(&self.start_by(instance, &command, settings).await)
    }

    /// The exit status of a process that a test has started.
    pub async fn exit_of(&self, instance: &str) -> std::process::ExitStatus {
        let pid = self.pid(instance);
        super::until(&self.log, "its end", async || {
            let mut extra = self.extra.lock().unwrap();
            extra.iter_mut().find(|process| process.pid == pid).expect("started here").status()
        })
        .await
    }

    /// Waits until the launcher has ended.
    pub async fn ended(&self) -> std::process::ExitStatus {
        super::until(&self.log, "the end of the launcher", async || {
            self.launcher.lock().unwrap().status()
        })
        .await
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("all logs of this system: {}", self.log.keep().display());
        }
        let launcher = self.launcher.get_mut().unwrap();
        if launcher.status().is_none() {
            launcher.signal("TERM");
        }
        let ended = launcher.end_within(Duration::from_secs(30));
        self.extra.get_mut().unwrap().clear();
        *self.server.get_mut() = None;
        let left = process::left(&self.log);
        for (pid, _) in &left {
            process::signal(*pid, "KILL");
        }
        if !std::thread::panicking() {
            assert!(ended, "the launcher did not end by SIGTERM; the logs:\n{}", self.log);
            assert!(left.is_empty(), "still there: {left:?}; the logs:\n{}", self.log);
        }
    }
}

/// The launcher's table `process / pid / listens on`.
fn table(log: &Log) -> HashMap<String, (u32, String)> {
    let lines = log.all(|_| true);
    let head = lines.iter().position(|line| line.text.starts_with("process ")).expect("a table");
    let row = |line: &Line| {
        let mut words = line.text.split_whitespace();
        let row =
            (words.next()?.to_owned(), (words.next()?.parse().ok()?, words.next()?.to_owned()));
        Some(row)
    };
    // Lines of the log may stand between.
    lines[head + 1..].iter().filter_map(row).collect()
}
