//! The servers the cases run against.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use embedded_server::Config;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Both servers retry after this.
pub const RETRY: Duration = Duration::from_millis(2_000);

/// The embedded server inside this process.
pub struct Embedded {
    pub url: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Embedded {
    pub async fn start(config: Config) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(embedded_server::run(listener, config, shutdown));
        Self { url: format!("http://{address}"), stop, task }
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        let stopped = tokio::time::timeout(Duration::from_secs(5), self.task).await;
        stopped.expect("the server stops").expect("no panic").expect("no error");
    }
}

/// The official server as a process; it ends with this value.
pub struct Official {
    pub url: String,
    process: Child,
    _directory: tempfile::TempDir,
}

impl Official {
    /// Starts `RESONATE_SERVER_BIN`; `None` if it is not set.
    pub async fn start() -> Option<Self> {
        let binary = std::env::var_os("RESONATE_SERVER_BIN").filter(|path| !path.is_empty())?;
        let directory = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let process = Command::new(binary)
            .arg("serve")
            .current_dir(directory.path())
            .env("RESONATE_LEVEL", "error")
            .env("RESONATE_SERVER__BIND", "127.0.0.1")
            .env("RESONATE_SERVER__PORT", port.to_string())
            .env("RESONATE_STORAGE__SQLITE__PATH", directory.path().join("resonate.db"))
            .env("RESONATE_OBSERVABILITY__METRICS_PORT", "0")
            .env("RESONATE_MESSAGES__POLL_INTERVAL", "1")
            .env("RESONATE_TIMEOUTS__POLL_INTERVAL", "100")
            .env("RESONATE_TASKS__RETRY_TIMEOUT", RETRY.as_millis().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("RESONATE_SERVER_BIN starts");
        let url = format!("http://127.0.0.1:{port}");
        let server = Self { url, process, _directory: directory };
        let health = format!("{}/health", server.url);
        until(|| async {
            reqwest::get(&health).await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        Some(server)
    }
}

impl Drop for Official {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = std::net::TcpListener::bind(any).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Waits for a condition.
pub async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let deadline = Instant::now() + super::client::PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited too long");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
