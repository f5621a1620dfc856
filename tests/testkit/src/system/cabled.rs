//! The system without a launcher: each process has a cable of its own to the server.

use std::{collections::HashMap, net::SocketAddr};

use futures_util::future::join_all;

use super::{System, owned, start_server};
use crate::{Cable, Log, Server, flows, free_port, process, server::Prepared};

/// The cable through which the tests themselves reach the server.
const OWN: &str = "test";

impl System {
    /// Starts the system on a server of its own.
    pub async fn start_cabled(server: Server, settings: &[(&str, &str)]) -> Self {
        let log = Log::new();
        let prepared = start_server(server, &log, settings).await;
        Self::cabled(log, prepared.address(), Some(prepared), settings).await
    }

    /// Starts the system on the server at `address`. `server`: the same, if the system can kill it.
    pub async fn cabled(
        log: Log,
        address: SocketAddr,
        server: Option<Prepared>,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut cables: HashMap<_, _> =
            instances().map(|instance| (instance, Cable::to(address))).collect();
        cables.insert(OWN.to_owned(), Cable::to(address));
        let system = Self {
            log,
            gateway: format!("127.0.0.1:{}", free_port()),
            server_url: cables[OWN].url(),
            server: server.into(),
            settings: owned(settings),
            launcher: None.into(),
            cables,
            pids: Default::default(),
            extra: Default::default(),
        };
        join_all(instances().map(async |instance| system.start_again(&instance).await)).await;
        system
    }

    /// Starts an instance that does not run, and waits until it is ready.
    pub async fn start_again(&self, instance: &str) {
        let group = instance.trim_end_matches("-replica");
        let server = self.cable(instance).url();
        let listen = if group == "gateway" {
            ["--listen", &self.gateway]
        } else {
            ["--health-listen", "127.0.0.1:0"]
        };
        let arguments = [&[group, "--server", &server], &listen[..]].concat();
        self.start_process(instance, &arguments, &[]).await;
    }

    /// The cable of an instance.
    pub fn cable(&self, instance: &str) -> &Cable {
        &self.cables[instance]
    }

    /// Freezes an instance. It holds its connections, and does nothing.
    pub fn freeze(&self, instance: &str) {
        process::signal(self.pid(instance), "STOP");
    }

    /// Wakes an instance that is frozen.
    pub fn wake(&self, instance: &str) {
        process::signal(self.pid(instance), "CONT");
    }

    /// The pid of the server, if it is the system's own and runs.
    pub async fn server_pid(&self) -> Option<u32> {
        self.server.lock().await.as_ref()?.pid()
    }

    /// The pids of everything: the system's processes and its server.
    pub async fn all_pids(&self) -> Vec<u32> {
        self.pids().into_values().chain(self.server_pid().await).collect()
    }

    /// Starts the server again under another address, and waits until it answers.
    pub async fn move_server(&self) {
        let mut server = self.server.lock().await;
        let server = server.as_mut().expect("a server");
        server.port = free_port();
        for cable in self.cables.values() {
            cable.move_to(server.address());
        }
        server.start().await;
    }
}

/// Every instance: the gateway, and two of each group.
pub fn instances() -> impl Iterator<Item = String> {
    let services = flows::groups().flat_map(|group| [group.to_owned(), format!("{group}-replica")]);
    std::iter::once("gateway".to_owned()).chain(services)
}
