//! One process: a runtime of its own, in virtual time.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use node::server::Transport;
use resonate_otel::{Identity, Telemetry};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinHandle,
    time::Instant,
};
use tracing::{Dispatch, dispatcher};

use crate::{
    observe::{self, Exporter},
    record::Record,
    world::RUNS,
};

type Life = Pin<Box<dyn Future<Output = ()> + Send>>;
type Count = Box<dyn Fn() -> usize + Send>;

/// What a process does from its start to its end.
pub(crate) type Program = Box<dyn Fn(Process) -> Life>;

/// A life of a process, as its own code sees it.
#[derive(Clone)]
pub struct Process {
    /// Its unique name.
    pub instance: String,
    /// Its way to the Resonate Server.
    pub transport: Arc<dyn Transport>,
    /// Its spans.
    pub telemetry: Arc<Telemetry>,
    stop: watch::Receiver<bool>,
    tables: Arc<Mutex<Vec<(&'static str, Count)>>>,
}

impl Process {
    /// Waits until the process is told to stop.
    pub async fn stopped(&self) {
        // It fails if nobody can tell it any more: then it never stops.
        if self.stop.clone().wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Names a table that must be empty while nothing is to do, and says how long it is.
    pub fn table(&self, name: &'static str, len: impl Fn() -> usize + Send + 'static) {
        self.tables.lock().expect("no holder of this lock panics").push((name, Box::new(len)));
    }
}

/// A process of the simulation, dead or alive.
pub(crate) struct Host {
    pub identity: Identity,
    pub frozen: Option<Duration>,
    /// When it is started, if it is dead.
    pub start_at: Option<Duration>,
    /// It was told to stop.
    pub stopping: Option<Stopping>,
    program: Program,
    life: u32,
    running: Option<Running>,
}

/// The end of a process that was told to stop.
pub(crate) struct Stopping {
    /// How long after its end it is started again.
    pub pause: Duration,
    /// How long it has been stopping, without the time in which it was frozen.
    pub awake: Duration,
    pub reported: bool,
}

struct Running {
    runtime: Runtime,
    main: JoinHandle<()>,
    dispatch: Dispatch,
    alive: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    process: Process,
}

impl Host {
    pub fn new(identity: Identity, program: Program, start_at: Duration) -> Self {
        Self {
            identity,
            frozen: None,
            start_at: Some(start_at),
            stopping: None,
            program,
            life: 0,
            running: None,
        }
    }

    pub fn instance(&self) -> &str {
        &self.identity.instance
    }

    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub fn start(&mut self, record: &Record, transport: Arc<dyn Transport>) {
        let instance = self.identity.instance.clone();
        self.life += 1;
        self.start_at = None;
        record.event(&instance, "starts", "");
        let alive = Arc::new(AtomicBool::new(true));
        let exporter = Exporter {
            record: record.clone(),
            instance: instance.clone(),
            life: self.life,
            alive: alive.clone(),
        };
        let telemetry = Arc::new(Telemetry::with_exporter(self.identity.clone(), exporter.clone()));
        let dispatch = observe::dispatch(exporter, &telemetry);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O needs nothing from the system");
        let (stop, stopped) = watch::channel(false);
        let tables = Arc::default();
        let process = Process { instance, transport, telemetry, stop: stopped, tables };
        let life = (self.program)(process.clone());
        let main = dispatcher::with_default(&dispatch, || runtime.spawn(life));
        self.running = Some(Running { runtime, main, dispatch, alive, stop, process });
    }

    /// Lets the process run until `end`. False: it has come to its own end.
    pub fn step(&mut self, end: Duration) -> bool {
        let Some(Running { runtime, main, dispatch, .. }) = &self.running else { return true };
        dispatcher::with_default(dispatch, || {
            runtime.block_on(async {
                let left = end.saturating_sub(virtual_time::now());
                tokio::time::sleep_until(Instant::now() + left).await;
            });
        });
        !main.is_finished()
    }

    /// Wakes a frozen process: its clock jumps.
    pub fn thaw(&mut self, now: Duration) {
        self.frozen = None;
        let Some(Running { runtime, dispatch, .. }) = &self.running else { return };
        dispatcher::with_default(dispatch, || {
            runtime.block_on(async {
                let lag = now.saturating_sub(virtual_time::now());
                tokio::time::advance(lag).await;
            });
        });
    }

    /// Tells the process to stop. It is started again `pause` after its end.
    pub fn stop(&mut self, pause: Duration) {
        self.stopping = Some(Stopping { pause, awake: Duration::ZERO, reported: false });
        if let Some(running) = &self.running {
            running.stop.send_replace(true);
        }
    }

    /// Ends the process at once, and everything in it.
    pub fn kill(&mut self, record: &Record, now: Duration) {
        self.frozen = None;
        self.stopping = None;
        let Some(running) = self.running.take() else { return };
        let Running { runtime, dispatch, alive, main, .. } = running;
        alive.store(false, Ordering::Relaxed);
        let killed = !main.is_finished();
        dispatcher::with_default(&dispatch, || drop(runtime));
        // What it made while it was dropped included: a process that is killed does not do that.
        if killed {
            record.lose_spans(self.instance(), self.life, now);
        }
    }

    /// How many runs the process holds.
    pub fn held(&self) -> usize {
        self.tables().iter().find(|(name, _)| *name == RUNS).map_or(0, |(_, len)| *len)
    }

    /// Tables of this process that are not empty.
    pub fn tables(&self) -> Vec<(&'static str, usize)> {
        let Some(Running { process, .. }) = &self.running else { return Vec::new() };
        let tables = process.tables.lock().expect("no holder of this lock panics");
        tables.iter().map(|(name, len)| (*name, len())).filter(|(_, len)| *len > 0).collect()
    }
}
