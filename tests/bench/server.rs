//! The servers: Resonate, embedded and official, and Restate.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::Serialize;
use tempfile::TempDir;
use testkit::{Http, Process, free_port, server::Prepared, until};

use crate::{machine, peers, program};

/// Which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// This project's own, in memory.
    Embedded,
    /// The executable at this path.
    Official(PathBuf),
    /// A Resonate Server at this URL, which is left alone.
    External(String),
    /// Restate, as it is or without its fsyncs.
    Restate { fsync: bool },
}

impl Kind {
    /// Reads `embedded`, a path or a URL.
    ///
    /// # Errors
    /// There is no file at the path.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            url if url.contains("://") => Ok(Self::External(url.trim_end_matches('/').to_owned())),
            // It is started in a folder of its own.
            path => Path::new(path)
                .canonicalize()
                .map(Self::Official)
                .map_err(|error| error.to_string()),
        }
    }

    /// The name in tables.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded => "embedded server".to_owned(),
            Self::Official(path) => match machine::version(path) {
                Some(version) => format!("official server ({version})"),
                None => "official server".to_owned(),
            },
            Self::External(url) => format!("server at {url}"),
            Self::Restate { .. } => "Restate".to_owned(),
        }
    }
}

/// A server that runs.
pub struct Server {
    pub url: String,
    /// Seconds from its start until it answered.
    pub start: Option<f64>,
    process: Running,
    /// Where services register, if they have to.
    pub admin: Option<String>,
    /// The port of its Prometheus metrics.
    metrics: Option<u16>,
    folder: TempDir,
}

enum Running {
    Resonate(Box<Prepared>),
    Other(Process),
    /// It is somebody else's.
    External,
}

/// What a server has done since its start.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// By kind.
    pub requests: BTreeMap<String, f64>,
    /// By kind.
    pub messages: BTreeMap<String, f64>,
}

impl Server {
    /// Starts a server with an empty store on disk, as in a deployment, and the settings that the
    /// documentation recommends; or uses one that runs.
    pub async fn start(kind: &Kind) -> Self {
        // Not in /tmp, which may be in memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let begin = Instant::now();
        let mut server = match kind {
            Kind::External(url) => {
                let (url, process) = (url.clone(), Running::External);
                return Self { url, start: None, process, admin: None, metrics: None, folder };
            }
            Kind::Restate { fsync } => restate(*fsync, folder).await,
            Kind::Embedded => resonate(testkit::Server::Embedded, None, folder).await,
            Kind::Official(path) => resonate(testkit::Server::Official, Some(path), folder).await,
        };
        server.start = Some(begin.elapsed().as_secs_f64());
        server
    }

    /// None: it is not ours.
    pub fn pid(&self) -> Option<u32> {
        match &self.process {
            Running::Resonate(process) => process.pid(),
            Running::Other(process) => Some(process.pid),
            Running::External => None,
        }
    }

    /// What it has done so far, if it tells.
    pub async fn counts(&self) -> Option<Counts> {
        let metrics = Http::new(&format!("127.0.0.1:{}", self.metrics?));
        let text = metrics.get("/metrics").await.text;
        Some(Counts {
            requests: by_kind(&text, "resonate_request_total"),
            messages: by_kind(&text, "resonate_messages_total"),
        })
    }

    /// How much its store takes on disk, in bytes.
    pub fn stored(&self) -> u64 {
        size(self.folder.path())
    }
}

impl Counts {
    /// What was added since `before`, for each of `flows`.
    pub fn since(&self, before: &Self, flows: usize) -> Self {
        let since = |now: &BTreeMap<String, f64>, before: &BTreeMap<String, f64>| {
            let each = |(kind, count): (&String, &f64)| {
                let before = before.get(kind).copied().unwrap_or_default();
                (kind.clone(), (count - before) / flows as f64)
            };
            now.iter().map(each).collect()
        };
        Self {
            requests: since(&self.requests, &before.requests),
            messages: since(&self.messages, &before.messages),
        }
    }
}

async fn resonate(kind: testkit::Server, path: Option<&PathBuf>, folder: TempDir) -> Server {
    let mut process = kind.prepare(&program::log());
    process.executable = path.map(|path| path.clone().into_os_string());
    let metrics = path.map(|_| free_port());
    let database = folder.path().join("resonate.db").display().to_string();
    process.settings = [
        ("RESONATE_STORAGE__SQLITE__PATH", database),
        ("RESONATE_OBSERVABILITY__METRICS_PORT", metrics.unwrap_or_default().to_string()),
        ("NODE_LOG", "warn".to_owned()),
        // The official server forgets nothing either.
        ("EMBEDDED_SERVER_MAX_SETTLED_FLOWS", "10000000".to_owned()),
        ("EMBEDDED_SERVER_RETENTION", "24h".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    process.start().await;
    let (url, process) = (process.url(), Running::Resonate(Box::new(process)));
    Server { url, start: None, process, admin: None, metrics, folder }
}

async fn restate(fsync: bool, folder: TempDir) -> Server {
    let (program, ingress, admin) = peers::restate_server(folder.path(), fsync);
    let log = program::log();
    let process = program.start(&log);
    let health = Http::new(&admin);
    until(&log, "the Restate server", async || {
        health.status("/health").await.filter(|status| *status == 200)
    })
    .await;
    let (url, admin) = (format!("http://{ingress}"), Some(format!("http://{admin}")));
    Server { url, start: None, process: Running::Other(process), admin, metrics: None, folder }
}

/// The sums of the counters called `name` in Prometheus' text format, by their label `kind`.
fn by_kind(text: &str, name: &str) -> BTreeMap<String, f64> {
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with(name)) {
        let kind = line.split_once("kind=\"").and_then(|(_, rest)| rest.split('"').next());
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
        if let (Some(kind), Some(count)) = (kind, count) {
            *counts.entry(kind.to_owned()).or_default() += count;
        }
    }
    counts
}

/// The size of everything in a folder.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size_of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        // It is gone.
        Err(_) => 0,
    };
    entries.map(size_of).sum()
}
