//! All hosts, stepped in turn.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use embedded_server::{Config, Server};
use node::{Service, Worker, config::ServiceSettings};
use rand::{SeedableRng, rngs::StdRng};
use resonate_otel::Identity;
use tokio::sync::{mpsc, oneshot};

use crate::{
    faults::{self, BUSIEST, EVERYTHING, Fault, SERVER, What},
    host::{Host, Process, Program},
    network::{self, Network, Packet, QUEUE, Reply, ToServer},
    record::Record,
    server,
    transport::Simulated,
};

const MS: Duration = Duration::from_millis(1);

/// A process that was told to stop must have ended when it was awake for this long: its drain, and
/// one request.
const LONGEST_STOP: Duration = Duration::from_secs(11);

/// The process of the main program, which no fault hits.
const MAIN: &str = "main";

/// The table of runs that a process holds.
pub(crate) const RUNS: &str = "runs";

type Inbox = Arc<Mutex<Option<mpsc::Sender<ToServer>>>>;

/// The simulated world: a Resonate Server, and processes that are connected to it.
pub struct World {
    seed: u64,
    now: Duration,
    /// The length of a tick, now and at least and at most.
    tick: Duration,
    ticks: (Duration, Duration),
    /// How many packets had been sent at the last look.
    sent: u64,
    hosts: Vec<Host>,
    network: Network,
    record: Record,
    inbox: Inbox,
    /// What has arrived at a frozen host.
    waiting: BTreeMap<usize, Vec<(usize, Packet)>>,
    plan: Vec<Fault>,
}

/// Why a simulation has no result.
#[derive(Debug, thiserror::Error)]
pub enum Stuck {
    /// The main program did not end in time.
    #[error("the main program has not ended within {0:?} of virtual time")]
    Time(Duration),
    /// The main program panicked.
    #[error("the main program panicked")]
    Panicked,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            now: Duration::ZERO,
            tick: MS,
            ticks: (2 * MS, 200 * MS),
            sent: 0,
            hosts: Vec::new(),
            network: Network::new(),
            record: Record::default(),
            inbox: Arc::default(),
            waiting: BTreeMap::new(),
            plan: Vec::new(),
        };
        let config = Config { url: Some("http://server".to_owned()), ..Config::default() };
        // It outlives the lives of its process, as a disk does.
        let server = Server::new(&config);
        let (network, record, inbox) =
            (world.network.clone(), world.record.clone(), world.inbox.clone());
        let identity = identity("server", SERVER);
        world.add(identity, move |_| {
            let (sender, packets) = mpsc::channel(QUEUE);
            *inbox.lock().expect("no holder of this lock panics") = Some(sender);
            server::serve(server.clone(), network.clone(), record.clone(), packets)
        });
        world
    }

    /// How long a packet takes at most, and how long a tick is: in a tick, each process runs once.
    /// While no packet is sent, ticks grow from the shortest to the longest. All in whole
    /// milliseconds; 10, 2 and 200 unless this is called.
    pub fn pace(&mut self, latency: Duration, shortest: Duration, longest: Duration) {
        self.network.set_latency(latency);
        self.ticks = (shortest, longest);
    }

    /// What happens.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The names of the processes, without the server.
    pub fn processes(&self) -> Vec<String> {
        self.hosts[1..].iter().map(|host| host.instance().to_owned()).collect()
    }

    /// Faults to come, in the order of their times.
    pub fn plan(&mut self, faults: Vec<Fault>) {
        self.plan = faults;
        self.plan.reverse();
    }

    /// Draws this many faults from the seed, for the processes that are there. They begin within
    /// `time`.
    pub fn random_faults(&mut self, count: usize, time: Duration) {
        let mut rng = StdRng::seed_from_u64(self.seed);
        self.plan(faults::random(&mut rng, &self.processes(), count, time));
    }

    /// Adds a process that runs `program` from its start to its end, each time it is started.
    pub fn process<F>(&mut self, identity: Identity, program: impl Fn(Process) -> F + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.add(identity, program);
    }

    fn add<F>(&mut self, identity: Identity, program: impl Fn(Process) -> F + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.network.add_host(self.seed, &identity.instance);
        let program: Program = Box::new(move |process| Box::pin(program(process)));
        self.hosts.push(Host::new(identity, program, self.now));
    }

    /// Adds a process of a service.
    pub fn service(
        &mut self,
        instance: &str,
        settings: ServiceSettings,
        service: impl Fn() -> Service + Send + Clone + 'static,
    ) {
        let identity = identity(service().group(), instance);
        self.add(identity, move |process| {
            let (service, settings) = (service(), settings.clone());
            async move {
                let Process { instance, transport, telemetry, .. } = &process;
                let transport = transport.clone();
                let worker = Worker::start(&service, &settings, instance, transport, telemetry);
                let worker = Arc::new(worker.expect("names of functions are unique"));
                let table = worker.clone();
                process.table(RUNS, move || table.held());
                process.stopped().await;
                worker.stop().await;
            }
        });
    }

    /// Runs until `main` has ended, which no fault hits.
    ///
    /// # Errors
    /// It has not ended within `limit`, or panicked.
    pub fn run<F, T>(
        &mut self,
        limit: Duration,
        main: impl FnOnce(Process) -> F + Send + 'static,
    ) -> Result<T, Stuck>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let (result, mut ended) = oneshot::channel();
        let main = Mutex::new(Some((main, result)));
        self.add(identity(MAIN, MAIN), move |process| {
            let taken = main.lock().expect("no holder of this lock panics").take();
            async move {
                if let Some((main, result)) = taken {
                    let _ = result.send(main(process).await);
                }
            }
        });
        let end = self.now + limit;
        while self.now < end {
            self.tick();
            match ended.try_recv() {
                Ok(value) => return Ok(value),
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => return Err(Stuck::Panicked),
            }
        }
        Err(Stuck::Time(limit))
    }

    /// Runs for this long.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }

    /// The time, from the start of the simulation.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// How many requests and message streams the processes have asked for, with all repeats.
    pub fn requests(&self) -> u64 {
        self.network.asked()
    }

    /// Tables that are not empty, as process, name and length.
    pub fn tables(&self) -> Vec<(String, &'static str, usize)> {
        let of = |host: &Host| {
            let name = host.instance().to_owned();
            host.tables().into_iter().map(move |(table, len)| (name.clone(), table, len))
        };
        self.hosts.iter().flat_map(of).collect()
    }

    /// The length of the next tick.
    fn next_tick(&mut self) -> Duration {
        let sent = self.network.sent();
        let (shortest, longest) = self.ticks;
        let quiet = sent == std::mem::replace(&mut self.sent, sent) && !self.network.is_busy();
        self.tick = if quiet { (self.tick * 2).min(longest) } else { shortest };
        // What is known to come comes in time.
        let times = self.hosts.iter().flat_map(|host| host.frozen.into_iter().chain(host.start_at));
        let next = times.chain(self.plan.last().map(|fault| fault.at)).min();
        let left = next.map_or(longest, |next| next.saturating_sub(self.now));
        self.tick.min(left.max(shortest))
    }

    fn tick(&mut self) {
        let (start, end) = (self.now, self.now + self.next_tick());
        while self.plan.last().is_some_and(|fault| fault.at <= start)
            && let Some(fault) = self.plan.pop()
        {
            self.begin(&fault);
        }
        for place in 0..self.hosts.len() {
            if self.hosts[place].start_at.is_some_and(|at| at <= start) {
                let (network, record) = (self.network.clone(), &self.record);
                self.hosts[place].start(record, Arc::new(Simulated { network, host: place }));
            }
        }
        let hosts = &self.hosts;
        self.network.keep_alive(|place| hosts[place].frozen.is_some());
        for (host, packet) in self.network.due(end) {
            let receiver =
                if matches!(packet, Packet::ToServer(_)) { network::SERVER } else { host };
            match self.hosts[receiver].frozen {
                Some(_) => self.waiting.entry(receiver).or_default().push((host, packet)),
                None => self.deliver(host, packet),
            }
        }
        for place in 0..self.hosts.len() {
            self.step(place, start, end);
            // Between hosts, the time is that of the tick.
            virtual_time::set(start);
        }
        self.now = end;
        virtual_time::set(end);
    }

    fn step(&mut self, place: usize, start: Duration, end: Duration) {
        match self.hosts[place].frozen {
            Some(until) if until > start => return,
            Some(_) => {
                self.record.event(self.hosts[place].instance(), "wakes", "");
                for (host, packet) in self.waiting.remove(&place).unwrap_or_default() {
                    self.deliver(host, packet);
                }
                self.hosts[place].thaw(start);
            }
            None => {}
        }
        let host = &mut self.hosts[place];
        if !host.step(end) {
            self.record.event(host.instance(), "ends", "");
            self.record.ended(host.instance());
            let pause = host.stopping.take().map(|stopping| stopping.pause);
            self.kill(place, pause);
        } else if let Some(stopping) = &mut host.stopping {
            stopping.awake += end - start;
            if stopping.awake > LONGEST_STOP && !stopping.reported {
                stopping.reported = true;
                let name = host.instance();
                let text = format!("{name} has not ended {LONGEST_STOP:?} after SIGTERM");
                self.record.violation(text);
            }
        }
    }

    /// A process dies; it is started again after `down`, if at all.
    fn kill(&mut self, place: usize, down: Option<Duration>) {
        let host = &mut self.hosts[place];
        host.kill(&self.record, self.now);
        host.start_at = down.map(|down| self.now + down);
        self.waiting.remove(&place);
        if place == network::SERVER {
            *self.inbox.lock().expect("no holder of this lock panics") = None;
            self.network.end_all();
        }
    }

    fn begin(&mut self, fault: &Fault) {
        let all = 0..self.hosts.len();
        let places: Vec<usize> = match fault.process.as_str() {
            EVERYTHING => all.filter(|place| self.hosts[*place].instance() != MAIN).collect(),
            BUSIEST => {
                let processes =
                    all.filter(|place| ![SERVER, MAIN].contains(&self.hosts[*place].instance()));
                processes.max_by_key(|place| self.hosts[*place].held()).into_iter().collect()
            }
            name => all.filter(|place| self.hosts[*place].instance() == name).collect(),
        };
        for place in places {
            let text = format!("FAULT {:?}", fault.what);
            self.record.event(self.hosts[place].instance(), &text, "");
            self.hit(place, &fault.what);
        }
    }

    fn hit(&mut self, place: usize, what: &What) {
        let now = self.now;
        let up = self.hosts[place].is_up();
        let host = &mut self.hosts[place];
        match *what {
            What::Kill(down) if up => self.kill(place, Some(down)),
            What::Stop(pause) if up && host.stopping.is_none() => host.stop(pause),
            What::Freeze(length) if up => {
                let until = host.frozen.unwrap_or_default().max(now + length);
                host.frozen = Some(until);
            }
            What::Kill(_) | What::Stop(_) | What::Freeze(_) => {}
            What::Cut(length, cut) => self.network.cut(place, length, cut),
            What::Request(fate) => self.network.add_fate(place, fate),
            What::Requests(length, kind, fate) => {
                self.network.add_fates(place, now + length, kind, fate);
            }
            What::Streams(length, fault) => self.network.break_streams(place, now + length, fault),
        }
    }

    fn deliver(&self, host: usize, packet: Packet) {
        match packet {
            Packet::ToServer(packet) => {
                let inbox = self.inbox.lock().expect("no holder of this lock panics");
                match (&*inbox, packet) {
                    (Some(inbox), packet) => {
                        // A full queue loses requests.
                        let _ = inbox.try_send(packet);
                    }
                    // Nobody listens on the server's port.
                    (None, ToServer::Request { reply: Some(reply), .. }) => {
                        let answer = Packet::Answer { reply, content: Reply::Reset };
                        self.network.send(host, answer, Duration::ZERO);
                    }
                    (None, ToServer::Open { connection, .. }) => {
                        self.network.send(host, Packet::End { connection }, Duration::ZERO);
                    }
                    (None, _) => {}
                }
            }
            Packet::Answer { reply, content } => {
                // The client may wait no longer.
                let _ = reply.send(content);
            }
            Packet::Chunk { connection, bytes } => {
                self.network.arrive(host, connection, Some(bytes));
            }
            Packet::End { connection } => self.network.arrive(host, connection, None),
        }
    }
}

/// A process of `group` called `instance`.
pub fn identity(group: &str, instance: &str) -> Identity {
    Identity {
        name: group.to_owned(),
        instance: instance.to_owned(),
        namespace: "simulation".to_owned(),
        version: "0".to_owned(),
    }
}
