//! The system under measurement: its processes, what they use, and the end of one of them.

use std::{
    io::{BufRead, BufReader},
    ops::Sub,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::Client;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_async-rpc");

/// The unit of CPU times in `/proc/*/stat`: USER_HZ, which is 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// How often the state of a flow is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A Resonate server; it ends with this value.
pub struct Server {
    pub name: &'static str,
    url: String,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Server {
    /// The embedded server.
    pub async fn embedded() -> Self {
        Self::start("embedded", |port| {
            let mut command = Command::new(EXECUTABLE);
            command.args(["server", "--listen", &format!("127.0.0.1:{port}")]);
            command
        })
        .await
    }

    /// The official server of this binary, with the settings that the README recommends.
    pub async fn official(binary: &str) -> Self {
        Self::start("official", |port| {
            let mut command = Command::new(binary);
            command
                .arg("serve")
                .env("RESONATE_SERVER__BIND", "127.0.0.1")
                .env("RESONATE_SERVER__PORT", port.to_string())
                .env("RESONATE_OBSERVABILITY__METRICS_PORT", "0")
                .env("RESONATE_MESSAGES__POLL_INTERVAL", "1")
                .env("RESONATE_TIMEOUTS__POLL_INTERVAL", "100")
                .env("RESONATE_TASKS__RETRY_TIMEOUT", "2000")
                .env("RESONATE_LEVEL", "error");
            command
        })
        .await
    }

    async fn start(name: &'static str, command: impl FnOnce(u16) -> Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = free.expect("a free port").port();
        let mut command = command(port);
        let child = command
            .current_dir(&folder)
            .env("NODE_LOG", "warn")
            .spawn()
            .expect("the server starts");
        let url = format!("http://127.0.0.1:{port}");
        while reqwest::get(format!("{url}/health")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { name, url, child, _folder: folder }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is a benchmark's server: there is nothing to be saved.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A started system; it ends with this value.
pub struct System {
    pub gateway: String,
    /// (instance, pid) of every process.
    processes: Vec<(String, u32)>,
    launcher: Child,
}

/// CPU time used by the parts of the system.
#[derive(Clone, Copy)]
pub struct Usage {
    pub services: Duration,
    pub gateway: Duration,
    pub server: Duration,
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            services: self.services - before.services,
            gateway: self.gateway - before.gateway,
            server: self.server - before.server,
        }
    }
}

impl System {
    /// Starts everything on `server`, with the spans going to the OTLP address `collector`.
    pub async fn start(server: &Server, collector: Option<&str>) -> Self {
        let mut launcher = Command::new(EXECUTABLE);
        launcher
            .args(["--no-jaeger", "--port", "0", "--server", &server.url])
            .env("NODE_LOG", "warn");
        launcher.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
        if let Some(collector) = collector {
            launcher.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
        }
        let mut launcher = launcher.stdout(Stdio::piped()).spawn().expect("the launcher starts");
        let mut lines = BufReader::new(launcher.stdout.take().expect("it is piped")).lines();
        let mut processes = Vec::new();
        let mut gateway = String::new();
        for line in &mut lines {
            let line = line.expect("the launcher's output");
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                [instance, pid, address] if pid.parse::<u32>().is_ok() => {
                    if *instance == "gateway" {
                        gateway = format!("http://{address}");
                    }
                    processes.push(((*instance).to_owned(), pid.parse().expect("just checked")));
                }
                ["Ctrl-C", ..] => break,
                _ => {}
            }
        }
        // Nobody reads the rest; it must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        processes.push(("resonate".to_owned(), server.child.id()));
        Self { gateway, processes, launcher }
    }

    /// The processes whose instance begins with `part`: the first process of a group comes first.
    fn pids<'a>(&'a self, part: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.processes
            .iter()
            .filter(move |(instance, _)| instance.starts_with(part))
            .map(|(_, pid)| *pid)
    }

    /// CPU time since the start of each process.
    pub fn usage(&self) -> Usage {
        let of = |part| self.pids(part).map(cpu).sum();
        Usage { services: of("service-"), gateway: of("gateway"), server: of("resonate") }
    }

    /// Resident memory of the largest service, in bytes.
    pub fn services_memory(&self) -> u64 {
        self.pids("service-").map(resident).max().unwrap_or_default()
    }

    /// Resident memory of the gateway, in bytes.
    pub fn gateway_memory(&self) -> u64 {
        self.pids("gateway").map(resident).sum()
    }

    /// Kills the process that holds an invocation in the middle of its work, and waits until
    /// another one holds it and until the flow has ended well. The time from kill to takeover.
    pub async fn kill_holder(&self, client: &Client, route: &str, invocation: usize) -> Duration {
        let id = format!("kill-{route}");
        let request = client.post(format!("{}/{route}?id={id}&work=3s", self.gateway)).send();
        let request = tokio::spawn(request);
        let holder = async || {
            let flow = self.inspect(client, &id).await;
            flow["invocations"][invocation]["instance"].as_str().map(str::to_owned)
        };
        let first = loop {
            match holder().await {
                Some(holder) => break holder,
                None => tokio::time::sleep(POLL).await,
            }
        };
        // In the middle of its second step.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let pid = self.pids(&first).next().expect("the holder is one of ours");
        let begin = Instant::now();
        signal(pid, "KILL");
        let elapsed = loop {
            match holder().await {
                Some(holder) if holder != first => break begin.elapsed(),
                _ => tokio::time::sleep(POLL).await,
            }
        };
        let answer = request.await.expect("the request's task").expect("an answer");
        assert!(answer.status().is_success(), "{id}: {}", answer.status());
        while self.inspect(client, &id).await["state"] != "resolved" {
            tokio::time::sleep(POLL).await;
        }
        elapsed
    }

    async fn inspect(&self, client: &Client, id: &str) -> serde_json::Value {
        let answer =
            client.get(format!("{}/flows/{id}", self.gateway)).send().await.expect("an answer");
        serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON")
    }
}

impl Drop for System {
    fn drop(&mut self) {
        signal(self.launcher.id(), "TERM");
        let _ = self.launcher.wait();
    }
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}

/// User and system time of a process. Zero for one that has ended.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the executable comes second, in brackets, and may hold spaces.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |n: usize| fields.get(n).and_then(|ticks| ticks.parse::<u32>().ok()).unwrap_or_default();
    TICK * (ticks(11) + ticks(12))
}

/// Resident memory of a process in bytes. Zero for one that has ended.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}
