//! Processes: what they use, and how they start and stop.

use std::{
    cell::RefCell,
    fs::OpenOptions,
    iter::Sum,
    ops::{Add, Sub},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use serde::Serialize;
use testkit::{
    Http, Log, Process, Stopped,
    process::{cpu, executable_folder, resident, set, try_signal},
    until,
};

/// How long a process may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(10);

/// The pause between two looks at processes that may end.
const POLL: Duration = Duration::from_millis(20);

/// How a process is started.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// `gateway`, or the group of a service; its replicas have a number behind that.
    pub name: String,
    pub executable: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// The address of `/readyz`, if it has one.
    pub health: Option<String>,
}

impl Program {
    pub fn start(&self, log: &Log) -> Process {
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        let mut command = Command::new(&self.executable);
        set(&mut command, &environment);
        // Servers are on this machine.
        Process::start(command.args(&self.arguments).env("NO_PROXY", "127.0.0.1"), log)
    }
}

/// A log for the processes of one measurement: everything goes to one file, nothing stays in memory.
pub fn log() -> Log {
    let path = executable_folder().join("bench.log");
    let file = OpenOptions::new().create(true).append(true).open(&path);
    Log::to_file(file.unwrap_or_else(|error| panic!("{}: {error}", path.display())), |_| false)
}

/// A started system: its gateway, its services, and the pid of its server.
pub struct Deployment {
    /// The URL of the gateway.
    pub gateway: String,
    processes: RefCell<Vec<(Program, Process)>>,
    server: Option<u32>,
    log: Log,
}

/// Something for each part of a system: the gateway, all services, the server.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Parts<T> {
    pub gateway: T,
    pub services: T,
    /// None: the server is not a process that the benchmark started.
    pub server: Option<T>,
}

impl<T: Sub<Output = T>> Sub for Parts<T> {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            gateway: self.gateway - before.gateway,
            services: self.services - before.services,
            server: self.server.zip(before.server).map(|(now, before)| now - before),
        }
    }
}

impl Deployment {
    /// Starts the processes. They may not be ready yet.
    pub fn start(programs: Vec<Program>, gateway: String, server: Option<u32>) -> Self {
        let log = log();
        let processes = programs.into_iter().map(|program| {
            let process = program.start(&log);
            (program, process)
        });
        let processes = RefCell::new(processes.collect());
        Self { gateway, processes, server, log }
    }

    /// The CPU seconds since the start of each part.
    pub fn cpu(&self) -> Parts<f64> {
        let cpu = |pid| cpu(pid).as_secs_f64();
        self.parts(cpu, f64::add)
    }

    /// The resident memory in bytes: of the services, the largest.
    pub fn memory(&self) -> Parts<u64> {
        self.parts(resident, u64::max)
    }

    fn parts<T: Default + Sum>(&self, of: impl Fn(u32) -> T, both: impl Fn(T, T) -> T) -> Parts<T> {
        let processes = self.processes.borrow();
        let pids = |gateway: bool| {
            let of_kind =
                move |(program, _): &&(Program, Process)| (program.name == "gateway") == gateway;
            processes.iter().filter(of_kind).map(|(_, process)| process.pid)
        };
        Parts {
            gateway: pids(true).map(&of).sum(),
            services: pids(false).map(&of).reduce(both).unwrap_or_default(),
            server: self.server.map(&of),
        }
    }

    /// The pid of a process.
    ///
    /// # Panics
    /// No process has this name.
    pub fn pid(&self, name: &str) -> u32 {
        let processes = self.processes.borrow();
        let process = processes.iter().find(|(program, _)| program.name == name);
        process.unwrap_or_else(|| panic!("no process is called {name}")).1.pid
    }

    /// Waits until a process ends, and says which one.
    pub async fn first_end(&self) -> String {
        loop {
            let ended = |(program, process): &mut (Program, Process)| {
                process.status().map(|status| format!("{} has ended ({status})", program.name))
            };
            if let Some(ended) = self.processes.borrow_mut().iter_mut().find_map(ended) {
                return ended;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills a process, if it still runs, starts it again, and waits until it is ready.
    pub async fn restart(&self, name: &str) {
        let health = {
            let mut processes = self.processes.borrow_mut();
            let found = processes.iter_mut().find(|(program, _)| program.name == name);
            let (program, process) = found.expect("a process of this deployment");
            process.kill();
            *process = program.start(&self.log);
            Http::new(program.health.as_ref().expect("a program with a health check"))
        };
        until(&self.log, &format!("{name} to be ready"), async || {
            health.status("/readyz").await.filter(|status| *status == 200)
        })
        .await;
    }

    /// Stops all processes but the server.
    pub async fn stop(self) -> Stopped {
        let mut processes = self.processes.take();
        for (_, process) in &processes {
            try_signal(process.pid, "TERM");
        }
        let all_stopped = async {
            for (_, process) in &mut processes {
                while process.status().is_none() {
                    tokio::time::sleep(POLL).await;
                }
            }
        };
        // Those that have not stopped are killed on drop.
        let _ = tokio::time::timeout(STOP, all_stopped).await;
        drop(processes);
        Stopped::check(&self.log)
    }
}
