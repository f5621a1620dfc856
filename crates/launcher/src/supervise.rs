//! What becomes of the processes: waits until they are ready, reports and restarts those that exit,
//! and stops them in order.

use std::{convert::Infallible, net::SocketAddr, process::ExitStatus, time::Duration};

use node::error::Error;
use settings::EXIT_SETTING;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, interval_at, sleep, timeout},
};

use crate::{
    process::{Process, Program, Role, Spec},
    report::{self, Progress, Row},
};

/// How often the launcher prints which processes are not ready.
const PROGRESS: Duration = Duration::from_secs(3);

/// How long a process may take to stop, beyond its drain deadline, before it is killed.
const GRACE: Duration = Duration::from_secs(4);

/// How long another program may take to listen before it is killed.
const START: Duration = Duration::from_secs(60);

/// A process that exits at once is not restarted more often.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// The pause before a process that could not be started is tried again.
const FAILED: Duration = Duration::from_secs(5);

/// How many events may wait to be handled; then the tasks that watch processes wait.
const EVENTS: usize = 64;

/// The order of stopping: each can still finish its work with those that come later, and Jaeger
/// has everybody's spans before it stops.
const STOP_ORDER: [Role; 4] = [Role::Gateway, Role::Service, Role::Server, Role::Jaeger];

/// The processes, in the order of their start.
pub struct System {
    drain: Duration,
    restart: Option<Duration>,
    progress: Progress,
    processes: Vec<Supervised>,
    events: mpsc::Receiver<Event>,
    tell: mpsc::Sender<Event>,
}

/// What happens to a process: its place in the list, and what.
enum Event {
    Ready(usize, SocketAddr),
    Exited(usize, ExitStatus),
    /// It has exited a while ago, and is to be restarted.
    Restart(usize),
}

/// A process, and the task that watches it.
struct Supervised {
    spec: Spec,
    pid: u32,
    /// Where it listens; none until it is ready.
    address: Option<SocketAddr>,
    exited: bool,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl System {
    /// No process yet. `drain`: how long each may take to finish its work when it is stopped.
    /// `restart`: when services and gateways that have exited are restarted.
    pub fn new(drain: Duration, restart: Option<Duration>) -> Self {
        let (tell, events) = mpsc::channel(EVENTS);
        let progress = Progress::default();
        let restart = restart.map(|after| after.max(LEAST_PAUSE));
        Self { drain, restart, progress, processes: Vec::new(), events, tell }
    }

    /// Starts a process.
    ///
    /// # Errors
    /// It cannot be executed.
    pub fn start(&mut self, spec: Spec) -> Result<(), Error> {
        let process = self.start_at(self.processes.len(), spec)?;
        self.processes.push(process);
        Ok(())
    }

    /// Starts the process that has this place in the list.
    fn start_at(&self, place: usize, spec: Spec) -> Result<Supervised, Error> {
        let process = Process::start(spec.clone())?;
        let (stop, pid) = (watch::Sender::new(false), process.pid);
        let patience = self.drain + GRACE;
        let task =
            tokio::spawn(supervise(process, place, stop.subscribe(), patience, self.tell.clone()));
        Ok(Supervised { spec, pid, address: None, exited: false, stop, task })
    }

    /// Waits until every process is ready. Prints how many are, and every three seconds which are not.
    /// `server`: the Resonate Server that they connect to.
    ///
    /// # Errors
    /// A process exited.
    pub async fn all_ready(&mut self, server: &str) -> Result<(), Error> {
        let total = self.waiting().len();
        let mut progress = interval_at(Instant::now() + PROGRESS, PROGRESS);
        while !self.waiting().is_empty() {
            self.progress.show(total - self.waiting().len(), total);
            tokio::select! {
                // This struct holds a sender, so there is always a next event.
                Some(event) = self.events.recv() => match event {
                    Event::Ready(place, address) => self.processes[place].ready(address),
                    Event::Exited(place, status) => return Err(self.failed_start(place, status)),
                    Event::Restart(_) => {}
                },
                _ = progress.tick() => report::print_waiting(&self.waiting(), total, server),
            }
        }
        self.progress.clear();
        Ok(())
    }

    /// The instances that are not ready.
    fn waiting(&self) -> Vec<&str> {
        let waiting = self.processes.iter().filter(|process| process.address.is_none());
        waiting.map(|process| process.spec.instance.as_str()).collect()
    }

    /// Where an instance listens, once it is ready.
    pub fn address(&self, instance: &str) -> Option<SocketAddr> {
        self.processes.iter().find(|process| process.spec.instance == instance)?.address
    }

    /// Every process, for the summary.
    pub fn rows(&self) -> Vec<Row<'_>> {
        self.processes
            .iter()
            .map(|Supervised { spec, pid, address, .. }| Row { spec, pid: *pid, address: *address })
            .collect()
    }

    /// The process has printed the reason itself. Its exit code becomes the launcher's.
    fn failed_start(&mut self, place: usize, status: ExitStatus) -> Error {
        let process = &mut self.processes[place];
        process.exited = true;
        let text = report::failed_start(&process.spec, status);
        match status.code() {
            Some(code) if code == i32::from(EXIT_SETTING) => Error::Usage(text),
            _ => Error::Other(text),
        }
    }

    /// Prints a line for each process that exits: what that means, and how to restart it. Restarts it,
    /// if the user wants that.
    pub async fn supervise(&mut self) -> Infallible {
        loop {
            match self.events.recv().await {
                Some(Event::Exited(place, status)) => self.exited(place, status),
                Some(Event::Restart(place)) => self.restart(place),
                Some(Event::Ready(place, address)) => {
                    let process = &mut self.processes[place];
                    process.ready(address);
                    report::print_back(&process.spec.instance, process.pid, address);
                }
                // This struct holds a sender, so there is always a next event.
                None => {}
            }
        }
    }

    fn exited(&mut self, place: usize, status: ExitStatus) {
        self.processes[place].exited = true;
        let Supervised { spec, pid, .. } = &self.processes[place];
        let others = self.processes.iter().filter(|it| !it.exited && it.spec.group == spec.group);
        let others: Vec<_> = others.map(|other| other.spec.instance.as_str()).collect();
        // A server that lost its state would only hide that.
        let restarts = matches!(spec.role, Role::Gateway | Role::Service);
        let restart = self.restart.filter(|_| restarts);
        report::print_exit(spec, *pid, status, &others, restart);
        if let Some(after) = restart {
            self.restart_later(place, after);
        }
    }

    fn restart_later(&self, place: usize, after: Duration) {
        let tell = self.tell.clone();
        tokio::spawn(async move {
            sleep(after).await;
            // It fails if the launcher stops meanwhile.
            drop(tell.send(Event::Restart(place)).await);
        });
    }

    fn restart(&mut self, place: usize) {
        match self.start_at(place, self.processes[place].spec.clone()) {
            Ok(process) => self.processes[place] = process,
            Err(error) => {
                report::print_error(&Error::Other(format!("{error}; trying again in {FAILED:?}")));
                self.restart_later(place, FAILED);
            }
        }
    }

    /// Stops all processes, and waits until they have exited.
    pub async fn stop(mut self) {
        let running = self.processes.iter().filter(|process| !process.exited).count();
        if running > 0 {
            report::print_stopping(running);
        }
        for role in STOP_ORDER {
            let these = self.processes.extract_if(.., |process| process.spec.role == role);
            let these: Vec<_> = these.collect();
            for process in &these {
                process.stop.send_replace(true);
            }
            for process in these {
                // It fails only if the task panicked, and then there is nothing to wait for.
                let _ = process.task.await;
            }
        }
    }
}

impl Supervised {
    /// It listens on `address`.
    fn ready(&mut self, address: SocketAddr) {
        self.address = Some(address);
        self.spec.keep_address(address);
    }
}

/// Watches one process: until it is ready, until it exits, or until it is told to stop.
async fn supervise(
    mut process: Process,
    place: usize,
    mut stop: watch::Receiver<bool>,
    patience: Duration,
    tell: mpsc::Sender<Event>,
) {
    // Sending fails only if nobody handles events any more: then the launcher is exiting.
    let life = async {
        let ready = match process.spec.program {
            Program::Own => Ok(process.ready().await),
            Program::Other { .. } => timeout(START, process.ready()).await,
        };
        match ready {
            Ok(Ok(address)) => drop(tell.send(Event::Ready(place, address)).await),
            Ok(Err(_)) => {}
            Err(_) => {
                report::print_silent(&process.spec.instance, process.pid, START);
                process.kill().await;
            }
        }
        let status = process.exited().await;
        drop(tell.send(Event::Exited(place, status)).await);
    };
    tokio::select! {
        () = life => return,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    process.stop();
    if timeout(patience, process.exited()).await.is_err() {
        process.kill().await;
        report::print_killed(&process.spec.instance, process.pid, patience);
    }
}
