//! The network between the processes and the server: packets in flight, and faults on their way.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::body::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::{mpsc, oneshot};

use crate::faults::{Cut, Fate, Stream};

/// The server's place in the list of hosts.
pub(crate) const SERVER: usize = 0;

/// A client notices a dead connection after this time, by its keep-alive.
const KEEP_ALIVE: Duration = Duration::from_secs(11);

/// The server gives a dead connection up this long after it has sent something on it.
const GIVE_UP: Duration = Duration::from_secs(20);

/// Packets that wait at one receiver.
pub(crate) const QUEUE: usize = 1 << 16;

/// What comes back for a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A response, as HTTP status and text.
    Response(u16, String),
    /// The connection was refused or reset.
    Reset,
}

/// What the server gets.
pub(crate) enum ToServer {
    /// A request, and whom to answer; nobody, if the client is not to hear of it.
    Request { host: usize, text: String, reply: Option<oneshot::Sender<Reply>> },
    /// A new message stream.
    Open { host: usize, connection: u64, group: String, id: String },
    /// The client has closed a message stream.
    Close { connection: u64 },
}

/// What is on its way.
pub(crate) enum Packet {
    ToServer(ToServer),
    Answer {
        reply: oneshot::Sender<Reply>,
        content: Reply,
    },
    /// Bytes of a message stream.
    Chunk {
        connection: u64,
        bytes: Bytes,
    },
    /// The end of a message stream.
    End {
        connection: u64,
    },
}

/// A message stream, as its client sees it.
struct Connection {
    host: usize,
    chunks: mpsc::Sender<io::Result<Bytes>>,
    /// When its last packet arrives: they stay in order.
    last: Duration,
    /// Since when it carries nothing any more.
    dead: Option<Duration>,
}

/// What the network does to one process.
struct Link {
    name: String,
    rng: StdRng,
    cut: Option<(Duration, Cut)>,
    next_fates: VecDeque<Fate>,
    fates: Vec<(Duration, &'static str, Fate)>,
    streams: Option<(Duration, Stream)>,
}

struct Inner {
    flying: BTreeMap<(Duration, u64), (usize, Packet)>,
    sent: u64,
    asked: u64,
    connections: BTreeMap<u64, Connection>,
    links: Vec<Link>,
    longest: Duration,
}

/// The network. Clones share it.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<Inner>>);

impl Network {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            flying: BTreeMap::new(),
            sent: 0,
            asked: 0,
            connections: BTreeMap::new(),
            links: Vec::new(),
            longest: Duration::from_millis(10),
        })))
    }

    /// What a packet takes at most.
    pub fn set_latency(&self, longest: Duration) {
        self.lock().longest = longest;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Connects a host.
    pub fn add_host(&self, seed: u64, name: &str) {
        let mut inner = self.lock();
        let rng = StdRng::seed_from_u64(seed ^ ((inner.links.len() as u64 + 1) << 32));
        inner.links.push(Link {
            name: name.to_owned(),
            rng,
            cut: None,
            next_fates: VecDeque::new(),
            fates: Vec::new(),
            streams: None,
        });
    }

    pub fn name(&self, host: usize) -> String {
        self.lock().links[host].name.clone()
    }

    /// Sends a packet between `host` and the server. It arrives `late` after its usual time.
    pub fn send(&self, host: usize, packet: Packet, late: Duration) {
        self.lock().send(host, packet, late);
    }

    /// What becomes of the next request of `host`, if it is of this kind.
    pub fn fate(&self, host: usize, kind: &str) -> Option<Fate> {
        let now = virtual_time::now();
        let mut inner = self.lock();
        inner.asked += 1;
        let link = &mut inner.links[host];
        link.next_fates.pop_front().or_else(|| {
            link.fates.retain(|(until, ..)| *until > now);
            let fates = link.fates.iter();
            fates.clone().find(|(_, of, _)| kind.starts_with(of)).map(|(.., fate)| *fate)
        })
    }

    pub fn add_fate(&self, host: usize, fate: Fate) {
        self.lock().links[host].next_fates.push_back(fate);
    }

    pub fn add_fates(&self, host: usize, until: Duration, kind: &'static str, fate: Fate) {
        self.lock().links[host].fates.push((until, kind, fate));
    }

    /// What new message streams of `host` do now.
    pub fn stream_fault(&self, host: usize) -> Option<Stream> {
        let now = virtual_time::now();
        let mut inner = self.lock();
        inner.asked += 1;
        inner.links[host].streams.filter(|(until, _)| *until > now).map(|(_, fault)| fault)
    }

    /// Ends the message streams of `host`, and lets new ones fail.
    pub fn break_streams(&self, host: usize, until: Duration, fault: Stream) {
        let mut inner = self.lock();
        inner.links[host].streams = Some((until, fault));
        let of_host = inner.connections.iter().filter(|(_, one)| one.host == host);
        let connections: Vec<u64> = of_host.map(|(connection, _)| *connection).collect();
        for connection in connections {
            inner.send(host, Packet::End { connection }, Duration::ZERO);
            inner.close_at_server(host, connection, Duration::ZERO);
        }
    }

    /// Carries nothing between `host` and the server for this time.
    pub fn cut(&self, host: usize, length: Duration, cut: Cut) {
        let now = virtual_time::now();
        let mut inner = self.lock();
        inner.links[host].cut = Some((now + length, cut));
        if cut == Cut::Forgets || length >= KEEP_ALIVE {
            for connection in inner.connections.values_mut().filter(|one| one.host == host) {
                connection.dead.get_or_insert(now);
            }
        }
    }

    /// A new message stream of `host`. Its client reads what comes back.
    pub fn open(&self, host: usize) -> (u64, mpsc::Receiver<io::Result<Bytes>>) {
        let mut inner = self.lock();
        inner.sent += 1;
        let connection = inner.sent;
        let (chunks, received) = mpsc::channel(QUEUE);
        let last = Duration::ZERO;
        inner.connections.insert(connection, Connection { host, chunks, last, dead: None });
        (connection, received)
    }

    /// The client has closed a message stream.
    pub fn close(&self, connection: u64) {
        let mut inner = self.lock();
        if let Some(Connection { host, dead, .. }) = inner.connections.remove(&connection)
            && dead.is_none()
        {
            inner.close_at_server(host, connection, Duration::ZERO);
        }
    }

    /// The server has died: its message streams end.
    pub fn end_all(&self) {
        let mut inner = self.lock();
        let ends: Vec<_> = inner.connections.iter().map(|(id, one)| (one.host, *id)).collect();
        for (host, connection) in ends {
            inner.send(host, Packet::End { connection }, Duration::ZERO);
        }
    }

    /// How many packets were ever sent.
    pub fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// How many requests and message streams the processes have asked for, with all repeats.
    pub fn asked(&self) -> u64 {
        self.lock().asked
    }

    /// Whether a packet is on its way.
    pub fn is_busy(&self) -> bool {
        !self.lock().flying.is_empty()
    }

    /// Takes the packets that arrive before `end`, each with the host that it belongs to.
    pub fn due(&self, end: Duration) -> Vec<(usize, Packet)> {
        let now = virtual_time::now();
        let mut inner = self.lock();
        let mut due = Vec::new();
        while let Some(first) = inner.flying.first_entry()
            && first.key().0 < end
        {
            let (host, packet) = first.remove();
            match inner.links[host].cut.filter(|(until, _)| *until > now) {
                Some((_, Cut::Forgets)) => {
                    if let Packet::Chunk { connection, .. } = packet {
                        inner.close_at_server(host, connection, GIVE_UP);
                    }
                }
                Some((until, Cut::Holds)) => inner.send(host, packet, until - now),
                None => due.push((host, packet)),
            }
        }
        due
    }

    /// Hands bytes of a message stream of `host` to its client, or its end.
    pub fn arrive(&self, host: usize, connection: u64, bytes: Option<Bytes>) {
        let mut inner = self.lock();
        let Some(Connection { chunks, dead, .. }) = inner.connections.get(&connection) else {
            // The client's system knows no such connection, and says so.
            if bytes.is_some() {
                inner.close_at_server(host, connection, Duration::ZERO);
            }
            return;
        };
        match bytes {
            _ if dead.is_some() => inner.close_at_server(host, connection, GIVE_UP),
            Some(bytes) => {
                // A full queue loses messages, as the server's own does.
                let _ = chunks.try_send(Ok(bytes));
            }
            None => {
                inner.connections.remove(&connection);
            }
        }
    }

    /// Lets clients notice dead connections. `frozen`: hosts that notice nothing.
    pub fn keep_alive(&self, frozen: impl Fn(usize) -> bool) {
        let now = virtual_time::now();
        let mut inner = self.lock();
        inner.connections.retain(|_, one| {
            let noticed = one.dead.is_some_and(|since| now >= since + KEEP_ALIVE);
            if noticed && !frozen(one.host) {
                let _ = one.chunks.try_send(Err(io::ErrorKind::TimedOut.into()));
                return false;
            }
            true
        });
    }
}

impl Inner {
    fn close_at_server(&mut self, host: usize, connection: u64, late: Duration) {
        self.send(host, Packet::ToServer(ToServer::Close { connection }), late);
    }

    fn send(&mut self, host: usize, packet: Packet, late: Duration) {
        let now = virtual_time::now();
        let longest = self.longest.as_micros() as u64;
        let latency = self.links[host].rng.random_range(500..=longest.max(501));
        let mut at = now + Duration::from_micros(latency) + late;
        if let Packet::Chunk { connection, .. } | Packet::End { connection } = &packet
            && let Some(connection) = self.connections.get_mut(connection)
        {
            at = at.max(connection.last);
            connection.last = at;
        }
        self.sent += 1;
        self.flying.insert((at, self.sent), (host, packet));
    }
}
