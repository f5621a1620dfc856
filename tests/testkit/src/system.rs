//! The whole system, started by its launcher.

mod cabled;

use std::{
    collections::HashMap,
    process::{Command, ExitStatus},
    sync::Mutex,
    time::Instant,
};

pub use self::cabled::instances;
use crate::{
    Cable, Http, Line, Log, Pool, Process, Resonate, Server, Shared, Stop, Stopped,
    process::{self, async_rpc},
    server::Prepared,
    until,
};

/// The last line of the launcher's summary.
const LAST_LINE: &str = "Press Ctrl-C to stop everything.";

/// What precedes the command in the launcher's line about a process that has exited.
const RESTART: &str = "Restart it with: ";

/// A launcher with its processes; or the same processes without a launcher, each with a [`Cable`].
pub struct System {
    /// What all processes print.
    pub log: Log,
    /// The address of the gateway.
    pub gateway: String,
    /// The URL of the Resonate Server.
    pub server_url: String,
    /// The server, unless the launcher has started it, or it is somebody else's.
    server: tokio::sync::Mutex<Option<Prepared>>,
    settings: Vec<(String, String)>,
    launcher: Mutex<Option<Process>>,
    /// The cables by instance.
    cables: HashMap<String, Cable>,
    /// The pid of each instance: from the launcher's table, or of a process that a test started.
    pids: Mutex<HashMap<String, u32>>,
    /// Processes that a test started.
    extra: Mutex<Vec<Process>>,
}

impl System {
    /// Starts the system with these settings and waits until it is ready.
    pub async fn start(server: Server, settings: &[(&str, &str)]) -> Self {
        Self::start_with(server, settings, &[]).await
    }

    /// [`System::start`] with more options for the launcher.
    pub async fn start_with(server: Server, settings: &[(&str, &str)], options: &[&str]) -> Self {
        let log = Log::new();
        if server == Server::Embedded {
            return Self::launch(log, None, settings, options).await;
        }
        let prepared = start_server(server, &log, settings).await;
        let system = Self::launch(log, Some(&prepared.url()), settings, options).await;
        *system.server.lock().await = Some(prepared);
        system
    }

    /// Starts the system on a server that is running: it stays the caller's.
    pub async fn start_on(url: &str, settings: &[(&str, &str)], options: &[&str]) -> Self {
        Self::launch(Log::new(), Some(url), settings, options).await
    }

    /// Starts the launcher: on the server at `url`, or on an embedded one.
    async fn launch(
        log: Log,
        url: Option<&str>,
        settings: &[(&str, &str)],
        options: &[&str],
    ) -> Self {
        let mut arguments = vec!["--port", "0"];
        arguments.extend(url.map_or(["--server-port", "0"], |url| ["--server", url]));
        if !options.iter().any(|option| option.starts_with("--jaeger")) {
            arguments.push("--no-jaeger");
        }
        arguments.extend(options);
        let launcher = Process::start(&mut async_rpc(&arguments, settings), &log);
        log.line("the launcher's summary", |line| line.text == LAST_LINE).await;
        let table = table(&log);
        let server_url =
            url.map_or_else(|| format!("http://{}", table["resonate"].1), str::to_owned);
        Self {
            gateway: table["gateway"].1.clone(),
            server_url,
            server: None.into(),
            settings: owned(settings),
            launcher: Some(launcher).into(),
            cables: HashMap::new(),
            pids: Mutex::new(table.into_iter().map(|(name, (pid, _))| (name, pid)).collect()),
            extra: Mutex::default(),
            log,
        }
    }

    /// The system that tests share if they kill nothing.
    pub async fn shared(server: Server) -> Shared<Self> {
        static POOL: Pool<System> = Pool::new();
        POOL.get(server, async || Self::start(server, &[]).await).await
    }

    /// A client of the gateway.
    pub fn http(&self) -> Http {
        Http::new(&self.gateway)
    }

    /// A client of the Resonate Server.
    pub fn resonate(&self) -> Resonate {
        Resonate::new(&self.server_url)
    }

    /// The pids by instance.
    pub fn pids(&self) -> HashMap<String, u32> {
        self.pids.lock().unwrap().clone()
    }

    /// The pid of an instance.
    pub fn pid(&self, instance: &str) -> u32 {
        self.pids()[instance]
    }

    /// The address of an instance in the launcher's table.
    pub fn address(&self, instance: &str) -> String {
        table(&self.log)[instance].1.clone()
    }

    /// The pid of the launcher.
    pub fn launcher_pid(&self) -> u32 {
        self.launcher.lock().unwrap().as_ref().expect("a launcher").pid
    }

    /// Kills an instance as `kill -9` does. Returns the moment just before.
    pub fn kill(&self, instance: &str) -> Instant {
        let at = Instant::now();
        process::signal(self.pid(instance), "KILL");
        at
    }

    /// Kills the server as `kill -9` does. The official one keeps its database.
    pub async fn kill_server(&self) {
        self.server.lock().await.as_mut().expect("a server").kill();
    }

    /// Starts the server again, and waits until it answers.
    pub async fn start_server(&self) {
        self.server.lock().await.as_mut().expect("a server").start().await;
    }

    /// Waits for the launcher's line about a process that has exited.
    pub async fn exit_line(&self, instance: &str) -> Line {
        let start = format!("{instance} (pid {})", self.pid(instance));
        let what = format!("the launcher's line about the exit of {instance}");
        self.log.line(&what, |line| line.text.starts_with(&start)).await
    }

    /// Restarts a process by the command that the launcher printed when it exited, and waits until
    /// it is ready. Returns a client of it.
    pub async fn restart(&self, instance: &str) -> Http {
        let line = self.exit_line(instance).await;
        let (_, command) = line.text.split_once(RESTART).expect("a command");
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {command}")]);
        Http::new(&self.start_command(instance, shell, &[]).await)
    }

    /// Starts `async-rpc` with these arguments, with the settings of the system and these, and waits
    /// until it is ready. Returns its address.
    pub async fn start_process(
        &self,
        instance: &str,
        arguments: &[&str],
        settings: &[(&str, &str)],
    ) -> String {
        let arguments = [arguments, &["--instance", instance]].concat();
        self.start_command(instance, async_rpc(&arguments, &[]), settings).await
    }

    /// Starts another gateway with settings of its own. Returns a client of it.
    pub async fn another_gateway(&self, instance: &str, settings: &[(&str, &str)]) -> Http {
        let arguments = ["gateway", "--server", &self.server_url, "--listen", "127.0.0.1:0"];
        Http::new(&self.start_process(instance, &arguments, settings).await)
    }

    async fn start_command(
        &self,
        instance: &str,
        mut command: Command,
        settings: &[(&str, &str)],
    ) -> String {
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        process::set(&mut command, &own.chain(settings.iter().copied()).collect::<Vec<_>>());
        let process = Process::start(&mut command, &self.log);
        let pid = process.pid;
        self.extra.lock().unwrap().push(process);
        self.pids.lock().unwrap().insert(instance.to_owned(), pid);
        let ready = |line: &Line| line.says("ready") && line.number("pid") == Some(pid as usize);
        let ready = self.log.line(&format!("{instance} to be ready"), ready).await;
        ready.field("health").expect("its address").to_owned()
    }

    /// Waits until a process that a test started has exited.
    pub async fn exit_of(&self, instance: &str) -> ExitStatus {
        let pid = self.pid(instance);
        until(&self.log, &format!("the exit of {instance}"), async || {
            let mut extra = self.extra.lock().unwrap();
            let process = extra.iter_mut().find(|process| process.pid == pid);
            process.expect("a process that this test started").status()
        })
        .await
    }

    /// Waits until the launcher has exited.
    pub async fn exited(&self) -> ExitStatus {
        until(&self.log, "the exit of the launcher", async || {
            self.launcher.lock().unwrap().as_mut().expect("a launcher").status()
        })
        .await
    }

    /// Stops all processes.
    ///
    /// # Panics
    /// A process does not stop, or the launcher leaves one behind.
    pub async fn stop(mut self) -> Stopped {
        let mut extra = std::mem::take(self.extra.get_mut().unwrap());
        for process in &mut extra {
            if process.status().is_none() {
                process.signal("TERM");
                // A frozen process does not see it.
                process.signal("CONT");
            }
        }
        for process in &mut extra {
            process.exited().await;
        }
        if let Some(launcher) = self.launcher.get_mut().unwrap() {
            launcher.stop().await;
        }
        *self.server.get_mut() = None;
        Stopped::check(&self.log)
    }
}

impl Stop for System {
    fn stop(self) -> impl Future<Output = Stopped> {
        Self::stop(self)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the complete log of this system: {}", self.log.keep().display());
        }
        for (pid, _) in process::left(&self.log) {
            process::try_signal(pid, "KILL");
        }
    }
}

/// Starts a server with those of `settings` that are its own.
async fn start_server(server: Server, log: &Log, settings: &[(&str, &str)]) -> Prepared {
    let mut prepared = server.prepare(log);
    prepared.settings =
        owned(settings).into_iter().filter(|(name, _)| name.starts_with("RESONATE_")).collect();
    prepared.start().await;
    prepared
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    settings.iter().map(owned).collect()
}

/// The launcher's table `process / pid / port`: pid and address by instance.
fn table(log: &Log) -> HashMap<String, (u32, String)> {
    let lines: Vec<_> = log.all(|_| true).into_iter().map(|line| line.text).collect();
    let rows = process::table(&lines);
    rows.map(|(instance, pid, port)| (instance, (pid, format!("127.0.0.1:{port}")))).collect()
}
