//! The system under measurement: what its processes use, and how long a takeover takes.

use std::{
    ops::Sub,
    time::{Duration, Instant},
};

use reqwest::Client;
use testkit::{
    Log, Server as Kind, Stopped,
    process::{cpu, resident, signal},
    server::Prepared,
};

/// The pause between two looks at the state of a flow.
const POLL: Duration = Duration::from_millis(5);

/// A Resonate Server.
pub struct Server {
    pub name: &'static str,
    process: Prepared,
    _folder: tempfile::TempDir,
}

impl Server {
    /// The embedded server.
    pub async fn embedded() -> Self {
        Self::start("embedded", Kind::Embedded).await
    }

    /// The official server, with the settings that the README recommends.
    pub async fn official() -> Self {
        Self::start("official", Kind::Official).await
    }

    async fn start(name: &'static str, kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = kind.prepare(&Log::new());
        let database = folder.path().join("resonate.db");
        process.settings = vec![
            // On disk, as in a deployment.
            ("RESONATE_STORAGE__SQLITE__PATH".to_owned(), database.display().to_string()),
            ("NODE_LOG".to_owned(), "warn".to_owned()),
        ];
        process.start().await;
        Self { name, process, _folder: folder }
    }
}

/// A started system.
pub struct System {
    pub gateway: String,
    /// Instance and pid of every process, in the order of the launcher's table.
    processes: Vec<(String, u32)>,
    system: testkit::System,
}

/// The CPU time that the parts of the system have used.
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
    /// Starts everything on `server`. Spans go to the OTLP address `collector`.
    pub async fn start(server: &Server, collector: Option<&str>) -> Self {
        let mut settings = vec![("NODE_LOG", "warn"), ("NODE_LOG_FORMAT", "human")];
        settings.extend(collector.map(|address| ("OTEL_EXPORTER_OTLP_ENDPOINT", address)));
        let system = testkit::System::start_on(&server.process.url(), &settings, &[]).await;
        let mut processes: Vec<_> = system.pids().into_iter().collect();
        // The first process of a group precedes its replica.
        processes.sort();
        let pid = server.process.pid().expect("a server that runs");
        processes.push(("resonate".to_owned(), pid));
        Self { gateway: format!("http://{}", system.gateway), processes, system }
    }

    /// Stops everything but the server.
    pub async fn stop(self) -> Stopped {
        self.system.stop().await
    }

    /// The pids of the instances that start with `part`. The first process of a group comes first.
    fn pids<'a>(&'a self, part: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.processes
            .iter()
            .filter(move |(instance, _)| instance.starts_with(part))
            .map(|(_, pid)| *pid)
    }

    /// The CPU time since the start of each process.
    pub fn usage(&self) -> Usage {
        let of = |part| self.pids(part).map(cpu).sum();
        Usage { services: of("service-"), gateway: of("gateway"), server: of("resonate") }
    }

    /// The resident memory of the largest service, in bytes.
    pub fn services_memory(&self) -> u64 {
        self.pids("service-").map(resident).max().unwrap_or_default()
    }

    /// The resident memory of the gateway, in bytes.
    pub fn gateway_memory(&self) -> u64 {
        self.pids("gateway").map(resident).sum()
    }

    /// Kills the process that holds an invocation in the middle of its work, and waits until another
    /// process holds it and the flow has succeeded. Returns the time from the kill to the takeover.
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
        let pid = self.pids(&first).next().expect("the holder is one of the system's processes");
        let start = Instant::now();
        signal(pid, "KILL");
        let elapsed = loop {
            match holder().await {
                Some(holder) if holder != first => break start.elapsed(),
                _ => tokio::time::sleep(POLL).await,
            }
        };
        let answer = request.await.expect("the task of the request").expect("an answer");
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
