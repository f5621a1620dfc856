//! The servers that the cases run against.

use std::{net::Ipv4Addr, time::Duration};

use embedded_server::Config;
use testkit::{Log, Resonate, Server, server::Prepared};
use tokio::{
    net::TcpListener,
    sync::{Mutex, oneshot},
    task::JoinHandle,
};

/// The retry time-out of both servers.
pub const RETRY: Duration = Duration::from_millis(500);

/// An embedded server inside this process.
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

    /// Stops it.
    ///
    /// # Panics
    /// It does not stop within 5 s, or it has failed.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let stopped = tokio::time::timeout(Duration::from_secs(5), self.task).await;
        stopped.expect("the server stops").expect("no panic").expect("no error");
    }
}

/// Starts an official server; `None` if there is none.
pub async fn start_official() -> Option<Prepared> {
    Server::official_executable()?;
    let mut server = Server::Official.prepare(&Log::new());
    server.start().await;
    Some(server)
}

static EMBEDDED: Mutex<Option<Embedded>> = Mutex::const_new(None);

static OFFICIAL: Mutex<Option<Prepared>> = Mutex::const_new(None);

/// A client of the embedded server that all cases share.
pub async fn embedded() -> Resonate {
    let mut server = EMBEDDED.lock().await;
    if server.is_none() {
        let config = Config { retry_timeout: RETRY, ..Config::default() };
        *server = Some(Embedded::start(config).await);
    }
    Resonate::new(&server.as_ref().expect("just started").url)
}

/// A client of the official server that all cases share; `None` if there is none.
pub async fn official() -> Option<Resonate> {
    let mut server = OFFICIAL.lock().await;
    if server.is_none() {
        *server = start_official().await;
    }
    server.as_ref().map(|server| Resonate::new(&server.url()))
}

/// Stops the servers that all cases share.
pub async fn stop() {
    if let Some(server) = EMBEDDED.lock().await.take() {
        server.stop().await;
    }
    *OFFICIAL.lock().await = None;
}
