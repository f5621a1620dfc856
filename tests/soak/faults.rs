//! What happens to the processes.

use std::{
    collections::HashSet,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use testkit::{System, process::signal, system::instances};
use tokio::{sync::RwLock, time::sleep};

use crate::{report::Report, traces::Death};

/// The default lease.
const LEASE: Duration = Duration::from_secs(3);

/// How long a process that is told to stop may take: its drain, the last releases, and a busy machine.
const STOPPED: Duration = Duration::from_secs(8 + 3);

/// After about this long the kernel of a server gives up a connection that died, with the setting
/// `tcp_retries2` of the deployment.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// How many faults there are at the same time.
const AT_ONCE: usize = 4;

/// What can happen. The server's faults come last: not every server can be killed.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Killed,
    BothKilled,
    FrozenShort,
    FrozenLong,
    Stopped,
    StoppedCutOff,
    CutShort,
    CutLong,
    Forgotten,
    EverythingFrozen,
    ServerFrozen,
    ServerKilled,
    ServerMoved,
}

use Fault::*;

impl Fault {
    /// One of these is chosen; those that are here twice twice as often.
    const OF_PROCESSES: [Self; 12] = [
        Killed,
        Killed,
        BothKilled,
        FrozenShort,
        FrozenLong,
        FrozenLong,
        Stopped,
        StoppedCutOff,
        CutShort,
        CutLong,
        CutLong,
        Forgotten,
    ];

    const fn name(self) -> &'static str {
        match self {
            Killed => "killed",
            BothKilled => "both processes of a group killed",
            FrozenShort => "frozen for less than the lease",
            FrozenLong => "frozen for more than the lease",
            Stopped => "told to stop",
            StoppedCutOff => "told to stop while cut off",
            CutShort => "cut off for less than the lease",
            CutLong => "cut off for more than the lease",
            Forgotten => "connections dead",
            EverythingFrozen => "everything frozen for more than the lease",
            ServerFrozen => "server frozen",
            ServerKilled => "server killed",
            ServerMoved => "server killed, back under another address",
        }
    }
}

/// The faults of a run.
pub struct Faults<'a> {
    system: &'a System,
    report: &'a Mutex<Report>,
    /// Whether the server keeps its state when it is killed.
    durable: bool,
    random: Mutex<StdRng>,
    /// The processes that something happens to.
    busy: Mutex<HashSet<String>>,
    /// Held alone while everything is frozen.
    everything: RwLock<()>,
    /// Held by the server's fault.
    server: tokio::sync::Mutex<()>,
}

impl<'a> Faults<'a> {
    pub fn new(system: &'a System, report: &'a Mutex<Report>, durable: bool, seed: u64) -> Self {
        Self {
            system,
            report,
            durable,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            busy: Mutex::default(),
            everything: RwLock::default(),
            server: tokio::sync::Mutex::default(),
        }
    }

    /// Lets faults happen for this long, and heals all of them.
    pub async fn run(&self, duration: Duration) {
        let end = Instant::now() + duration;
        let mut running = FuturesUnordered::new();
        while Instant::now() < end {
            let pause = self.between(100, 1_500);
            tokio::select! {
                () = sleep(pause) => {}
                Some(()) = running.next() => continue,
            }
            if running.len() < AT_ONCE {
                running.push(self.one());
            }
        }
        while running.next().await.is_some() {}
        self.report.lock().unwrap().healed = Some(Instant::now());
    }

    fn between(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.random.lock().unwrap().random_range(least..=most))
    }

    /// A length shorter than the lease, or longer.
    fn short(&self) -> Duration {
        self.between(200, 2_500)
    }

    fn long(&self) -> Duration {
        LEASE + self.between(500, 6_000)
    }

    /// Chooses one fault, and heals it.
    async fn one(&self) {
        let own_server = self.system.server_pid().await.is_some();
        let choice = self.random.lock().unwrap().random_range(0..24);
        let fault = match choice {
            0 => EverythingFrozen,
            1 if own_server => ServerFrozen,
            2 if own_server && self.durable => ServerKilled,
            3 if own_server && self.durable => ServerMoved,
            _ => Fault::OF_PROCESSES[choice % Fault::OF_PROCESSES.len()],
        };
        match fault {
            EverythingFrozen => {
                let _alone = self.everything.write().await;
                self.count(fault.name());
                let pids = self.system.all_pids().await;
                pids.iter().for_each(|pid| signal(*pid, "STOP"));
                sleep(self.long()).await;
                pids.iter().for_each(|pid| signal(*pid, "CONT"));
            }
            ServerFrozen | ServerKilled | ServerMoved => {
                let _others = self.everything.read().await;
                let _alone = self.server.lock().await;
                self.count(fault.name());
                self.server_fault(fault).await;
            }
            _ => {
                let _others = self.everything.read().await;
                let Some(instance) = self.choose() else { return };
                let fault = match fault {
                    BothKilled if instance == "gateway" => Killed,
                    fault => fault,
                };
                let gateway = if instance == "gateway" { " (gateway)" } else { "" };
                self.count(&format!("{}{gateway}", fault.name()));
                self.process_fault(fault, &instance).await;
                self.busy.lock().unwrap().remove(&instance);
            }
        }
    }

    fn count(&self, name: &str) {
        *self.report.lock().unwrap().faults.entry(name.to_owned()).or_default() += 1;
    }

    /// A process that nothing happens to: the gateway, one that works, or any.
    fn choose(&self) -> Option<String> {
        let mut random = self.random.lock().unwrap();
        let mut busy = self.busy.lock().unwrap();
        let works = |it: &String| {
            ["service-b", "service-e", "service-g"].iter().any(|group| it.starts_with(group))
        };
        let choice = random.random_range(0..8);
        let free: Vec<_> = instances()
            .filter(|it| !busy.contains(it))
            .filter(|it| match choice {
                0 => it == "gateway",
                1..5 => works(it),
                _ => true,
            })
            .collect();
        let instance = free.get(random.random_range(0..free.len().max(1)))?.clone();
        busy.insert(instance.clone());
        Some(instance)
    }

    async fn server_fault(&self, fault: Fault) {
        if let ServerFrozen = fault {
            let Some(pid) = self.system.server_pid().await else { return };
            let begin = SystemTime::now();
            signal(pid, "STOP");
            sleep(self.between(500, 6_000)).await;
            self.report.lock().unwrap().frozen.push(begin..SystemTime::now());
            signal(pid, "CONT");
            return;
        }
        self.system.kill_server().await;
        sleep(self.between(0, 6_000)).await;
        match fault {
            ServerMoved => self.system.move_server().await,
            _ => self.system.start_server().await,
        }
    }

    async fn process_fault(&self, fault: Fault, instance: &str) {
        let (system, cable) = (self.system, self.system.cable(instance));
        match fault {
            FrozenShort | FrozenLong => {
                system.freeze(instance);
                sleep(if let FrozenShort = fault { self.short() } else { self.long() }).await;
                system.wake(instance);
            }
            CutShort | CutLong => {
                cable.cut();
                sleep(if let CutShort = fault { self.short() } else { self.long() }).await;
                cable.heal();
            }
            Forgotten => {
                cable.cut();
                sleep(self.between(0, 4_000)).await;
                cable.heal_forgetting();
                sleep(GIVEN_UP).await;
                cable.close_forgotten();
            }
            Stopped => {
                self.stop(instance).await;
                self.restart(instance).await;
            }
            StoppedCutOff => {
                cable.cut();
                sleep(self.short()).await;
                self.stop(instance).await;
                self.died(instance, true);
                cable.heal();
                self.restart(instance).await;
            }
            BothKilled => {
                let other = match instance.strip_suffix("-replica") {
                    Some(first) => first.to_owned(),
                    None => format!("{instance}-replica"),
                };
                let free = self.busy.lock().unwrap().insert(other.clone());
                self.kill(instance);
                if free {
                    self.kill(&other);
                    self.restart(&other).await;
                    self.busy.lock().unwrap().remove(&other);
                }
                self.restart(instance).await;
            }
            _ => {
                self.kill(instance);
                self.restart(instance).await;
            }
        }
    }

    fn kill(&self, instance: &str) {
        self.died(instance, false);
        self.system.kill(instance);
    }

    fn died(&self, instance: &str, cut_off: bool) {
        let death = Death { instance: instance.to_owned(), at: SystemTime::now(), cut_off };
        self.report.lock().unwrap().deaths.push(death);
    }

    /// Tells a process to stop, and judges how it does.
    async fn stop(&self, instance: &str) {
        signal(self.system.pid(instance), "TERM");
        let since = Instant::now();
        let status = self.system.exit_of(instance).await;
        let after = since.elapsed();
        if status.code() != Some(0) || after > STOPPED {
            let text = format!("{instance} was told to stop and took {after:.1?}: {status}");
            self.report.lock().unwrap().violation(text);
        }
    }

    /// Starts a process that has ended, after a while.
    async fn restart(&self, instance: &str) {
        sleep(self.between(0, 5_000)).await;
        self.system.start_again(instance).await;
    }
}
