//! Starts the whole system, says what became of its processes, and ends them in order.

use std::{
    net::{SocketAddr, TcpListener},
    process::ExitStatus,
    time::Duration,
};

use clap::Args;
use node::{
    config::{self, Config},
    lifecycle::{self, EXIT_CONFIGURATION, Error, Stop},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    jaeger::{self, JAEGER, Traces},
    process::{Process, Program, Spec, command_line, ending},
    services,
};

/// What is still missing is said this often.
const PROGRESS: Duration = Duration::from_secs(3);

/// What a process may take beyond its own drain before it is killed.
const GRACE: Duration = Duration::from_secs(4);

/// The instance of the embedded server, and its group.
const SERVER: &str = "resonate";

/// The launcher's options.
#[derive(Args)]
pub struct Launch {
    /// Processes of each service
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=50))]
    replicas: u16,
    /// Use the Resonate Server at this address instead of the embedded one
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Port of the gateway; 0 takes a free one
    #[arg(long, default_value_t = 5000)]
    port: u16,
    /// Port of the embedded Resonate server; 0 takes a free one
    #[arg(long, default_value_t = 8001)]
    server_port: u16,
    #[command(flatten)]
    jaeger: jaeger::Options,
}

/// What a process tells the launcher.
enum Event {
    Ready { instance: String, address: SocketAddr },
    Ended { instance: String, status: ExitStatus },
}

/// A process and the task that looks after it.
struct Kept {
    spec: Spec,
    pid: u32,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    ended: bool,
}

/// Starts everything, and waits until it is told to stop.
///
/// # Errors
/// A setting cannot be used or a port is taken: then nothing is left running.
pub fn run(launch: Launch) -> Result<(), Error> {
    // A wrong setting is said once, here, and not by each process.
    let config = Config::load("launcher")?;
    gateway::config::Config::load()?;
    node::logging::start(None)?;
    if let Some(server) = &launch.server {
        let bad = |allowed| config::Error::new("--server", server, allowed);
        config::url(server).map_err(bad)?;
    }
    lifecycle::block_on(1, async move {
        let mut stop = Stop::listen("launcher")?;
        listener(launch.port, "--port")?;
        if launch.server.is_none() {
            listener(launch.server_port, "--server-port")?;
        }
        let traces = Traces::choose(&launch.jaeger)?;
        let mut system = System::new(config.drain);
        let result = tokio::select! {
            result = system.live(launch, &traces) => result,
            () = stop.requested() => Ok(()),
        };
        system.stop().await;
        result
    })
}

/// Fails before anything is started, with one line, where the process itself would fail later.
pub fn listener(port: u16, variable: &'static str) -> Result<TcpListener, Error> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpListener::bind(address).map_err(|source| Error::Listen { address, source, variable })
}

struct System {
    drain: Duration,
    /// In the order of their start.
    processes: Vec<Kept>,
    events: mpsc::UnboundedReceiver<Event>,
    tell: mpsc::UnboundedSender<Event>,
}

impl System {
    fn new(drain: Duration) -> Self {
        let (tell, events) = mpsc::unbounded_channel();
        Self { drain, processes: Vec::new(), events, tell }
    }

    /// Starts everything and reports what happens to it. Ends only with an error.
    async fn live(&mut self, launch: Launch, traces: &Traces) -> Result<(), Error> {
        let spec = |group: &str, instance: &str, arguments: &[&str]| Spec {
            group: group.to_owned(),
            instance: instance.to_owned(),
            program: Program::Own,
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            environment: traces.environment(group),
        };
        let (server, kind) = match launch.server {
            Some(url) => (url, "yours"),
            None => {
                let listen = format!("127.0.0.1:{}", launch.server_port);
                self.start(spec(SERVER, SERVER, &["server", "--listen", &listen]))?;
                let address = self.all_ready("").await?[0].1;
                (
                    format!("http://{address}"),
                    "embedded: it keeps everything in memory, a restart forgets it",
                )
            }
        };
        if let Traces::Jaeger(jaeger) = traces {
            self.start(jaeger.spec()?)?;
        }
        let port = launch.port.to_string();
        self.start(spec(
            "gateway",
            "gateway",
            &["gateway", "--instance", "gateway", "--server", &server, "--port", &port],
        ))?;
        for service in services() {
            let group = service.group();
            for n in 0..launch.replicas {
                let instance = instance(group, n);
                self.start(spec(
                    group,
                    &instance,
                    &[group, "--instance", &instance, "--server", &server],
                ))?;
            }
        }
        let ready = self.all_ready(&server).await?;
        self.introduce(&ready, &server, kind, traces);
        loop {
            // This struct holds a sender, so the channel does not end.
            if let Some(Event::Ended { instance, status }) = self.events.recv().await {
                self.report(&instance, status);
            }
        }
    }

    fn start(&mut self, spec: Spec) -> Result<(), Error> {
        let process = Process::start(spec.clone())?;
        let (stop, stopped) = watch::channel(false);
        let pid = process.pid;
        let task = tokio::spawn(keep(process, stopped, self.drain + GRACE, self.tell.clone()));
        self.processes.push(Kept { spec, pid, stop, task, ended: false });
        Ok(())
    }

    /// Waits until every process is ready: their instances and addresses, in the order of events.
    async fn all_ready(&mut self, server: &str) -> Result<Vec<(String, SocketAddr)>, Error> {
        let mut ready: Vec<(String, SocketAddr)> = Vec::new();
        let awaited: Vec<String> = self
            .processes
            .iter()
            .map(|kept| kept.spec.instance.clone())
            .filter(|instance| server.is_empty() || instance != SERVER)
            .collect();
        let mut progress =
            tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS, PROGRESS);
        while ready.len() < awaited.len() {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Ready { instance, address }) => ready.push((instance, address)),
                    Some(Event::Ended { instance, status }) => return Err(self.failed_start(&instance, status)),
                    None => {}
                },
                _ = progress.tick() => {
                    let missing: Vec<_> = awaited.iter().filter(|name| ready.iter().all(|(there, _)| there != *name)).cloned().collect();
                    println!("{} of {} processes are ready; waiting for {} (Resonate Server: {server})", ready.len(), awaited.len(), missing.join(", "));
                }
            }
        }
        Ok(ready)
    }

    /// The process itself has said why; its exit code is passed on.
    fn failed_start(&mut self, instance: &str, status: ExitStatus) -> Error {
        self.mark_ended(instance);
        let mut text = format!("{instance} {} before it was ready", ending(status));
        if instance == JAEGER {
            text += "; --no-jaeger starts the rest";
        }
        match status.code() {
            Some(code) if code == i32::from(EXIT_CONFIGURATION) => Error::Usage(text),
            _ => Error::Other(text),
        }
    }

    fn introduce(&self, ready: &[(String, SocketAddr)], server: &str, kind: &str, traces: &Traces) {
        let address = |instance: &str| {
            ready.iter().find(|(name, _)| name == instance).map(|(_, address)| *address)
        };
        println!("\n{:<24}{:>8}  listens on", "process", "pid");
        for kept in &self.processes {
            let listens = address(&kept.spec.instance)
                .map_or(server.to_owned(), |address| address.to_string());
            println!("{:<24}{:>8}  {listens}", kept.spec.instance, kept.pid);
        }
        let Some(gateway) = address("gateway") else { return };
        println!("\nResonate Server: {server} ({kind})");
        traces.introduce();
        println!("\nTry:            curl -X POST http://{gateway}/await-chain");
        println!(
            "Then a crash:   curl -X POST \"http://{gateway}/await-chain?id=crash-$(date +%s)&work=6s\""
        );
        if let Some(holder) = self.processes.iter().find(|kept| kept.spec.instance == "service-b") {
            println!("and meanwhile:  kill -9 {}", holder.pid);
        }
        println!("Ctrl-C ends everything.\n");
    }

    /// One line about a process that has ended: who goes on, and how to have it back.
    fn report(&mut self, instance: &str, status: ExitStatus) {
        self.mark_ended(instance);
        let Some(kept) = self.processes.iter().find(|kept| kept.spec.instance == instance) else {
            return;
        };
        let Spec { group, .. } = &kept.spec;
        let others: Vec<_> = self
            .processes
            .iter()
            .filter(|other| !other.ended && other.spec.group == *group)
            .map(|other| other.spec.instance.as_str())
            .collect();
        let consequence = match (group.as_str(), others.as_slice()) {
            (SERVER, _) => "everything it knew is lost".to_owned(),
            (JAEGER, _) => "flows go on, nobody receives their spans".to_owned(),
            ("gateway", _) => "flows go on, requests fail".to_owned(),
            (_, []) => format!("nobody of {group} is left, its flows wait"),
            (_, others) => format!("{} takes over", others.join(" or ")),
        };
        let again = match kept.spec.program {
            Program::Own => format!(". To start it again: {}", command_line(&kept.spec)),
            Program::Other { .. } => String::new(),
        };
        println!("{instance} (pid {}) {}: {consequence}{again}", kept.pid, ending(status));
    }

    fn mark_ended(&mut self, instance: &str) {
        for kept in &mut self.processes {
            kept.ended |= kept.spec.instance == instance;
        }
    }

    /// Ends the gateway, then the services, then the server, so that each can still finish; then
    /// Jaeger, which has all their spans by then.
    async fn stop(mut self) {
        let running = self.processes.iter().filter(|kept| !kept.ended).count();
        if running > 0 {
            println!("stopping {running} processes");
        }
        for part in [
            |group: &str| group == "gateway",
            |group: &str| group.starts_with("service-"),
            |group: &str| group == SERVER,
            |group: &str| group == JAEGER,
        ] {
            let (these, others) =
                self.processes.into_iter().partition::<Vec<_>, _>(|kept| part(&kept.spec.group));
            self.processes = others;
            for kept in &these {
                kept.stop.send_replace(true);
            }
            for kept in these {
                // It ends by itself once the process has ended.
                let _ = kept.task.await;
            }
        }
    }
}

/// Looks after one process: until it is ready, until it ends, or until it is told to stop.
async fn keep(
    mut process: Process,
    mut stop: watch::Receiver<bool>,
    patience: Duration,
    tell: mpsc::UnboundedSender<Event>,
) {
    let instance = process.spec.instance.clone();
    let life = async {
        if let Ok(address) = process.ready().await {
            // The receiver lives as long as the launcher.
            let _ = tell.send(Event::Ready { instance: instance.clone(), address });
        }
        process.ended().await
    };
    tokio::select! {
        status = life => {
            let _ = tell.send(Event::Ended { instance, status });
            return;
        }
        _ = stop.wait_for(|stop| *stop) => {}
    }
    process.stop();
    if tokio::time::timeout(patience, process.ended()).await.is_err() {
        println!("{instance} (pid {}) did not stop within {patience:?}: killed", process.pid);
        process.kill().await;
    }
}

/// `service-b`, `service-b-replica`, `service-b-replica-2`, …
fn instance(group: &str, n: u16) -> String {
    match n {
        0 => group.to_owned(),
        1 => format!("{group}-replica"),
        n => format!("{group}-replica-{n}"),
    }
}
