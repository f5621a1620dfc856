//! One watcher of each flow that somebody looks at, however many do. It asks the server for what can have
//! changed, and ends when nobody looks any more. What it knows is kept for a moment after that, so that a
//! browser that connects again costs nothing.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::{
    known::Known,
    outage::Outage,
    record::Crash,
    view::{View, view},
};
use crate::{
    Settings,
    client::{self, Client},
    held::Held,
    problem::Problem,
    stats::Stats,
};

/// How often a flow is looked at, in which something may happen at any time.
const OFTEN: Duration = Duration::from_millis(250);

/// How often, if nothing has happened for a while, or the server is unreachable.
const SELDOM: Duration = Duration::from_secs(1);

/// How long nothing must have happened before a flow is looked at less often.
const QUIET: Duration = Duration::from_secs(20);

/// How long a flow is remembered that nobody looks at.
pub(super) const LINGER: Duration = Duration::from_secs(30);

/// The same for a flow with an interrupted run or an outage: a viewer who returns sees the same
/// page. Promises alone do not show when the server was unreachable, when a lease expired, or who
/// lost a step twice.
const LINGER_INTERRUPTED: Duration = Duration::from_mins(10);

/// Most flows that are remembered at once.
pub(super) const MOST_FLOWS: usize = 256;

/// How many crashes are remembered.
const MOST_CRASHES: usize = 256;

/// All watchers of this process. Clones share them.
#[derive(Clone)]
pub struct Watchers(Arc<Shared>);

struct Shared {
    client: Client,
    settings: Arc<Settings>,
    stats: Stats,
    flows: Mutex<HashMap<String, Arc<Watched>>>,
    crashes: Mutex<Vec<Crash>>,
}

/// A flow that is watched.
struct Watched {
    published: watch::Sender<Option<Published>>,
    /// Somebody looks again.
    woken: Notify,
    /// It is remembered for longer.
    interrupted: AtomicBool,
}

/// What viewers get.
#[derive(Debug, Clone)]
pub enum Published {
    /// The state of the flow.
    State {
        /// Another one for each state, also of another process.
        id: Arc<str>,
        /// The flow as JSON: see `view`.
        json: Arc<str>,
        /// It is the last one.
        complete: bool,
        /// How far the server's clock is ahead of the own one, in milliseconds.
        ahead: i64,
    },
    /// There is no such flow.
    Unknown,
    /// The server could not tell.
    Failed(Arc<client::Error>),
}

/// Somebody who looks at a flow.
pub struct Viewer(watch::Receiver<Option<Published>>);

impl Viewer {
    /// What is known now, at the first time; then what is new.
    pub async fn next(&mut self) -> Option<Published> {
        loop {
            let published = self.0.borrow_and_update().clone();
            if published.is_some() {
                return published;
            }
            self.0.changed().await.ok()?;
        }
    }

    /// Waits until there is something new. False: the watcher has ended.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

impl Watchers {
    /// Nobody is watched yet.
    pub fn new(client: Client, settings: Arc<Settings>, stats: Stats) -> Self {
        let (flows, crashes) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { client, settings, stats, flows, crashes }))
    }

    /// Looks at the flow `id`.
    ///
    /// # Errors
    /// [`Problem::Full`]: too many flows are watched.
    pub fn watch(&self, id: &str) -> Result<Viewer, Problem> {
        let mut flows = self.flows();
        if let Some(watched) = flows.get(id) {
            if watched.published.receiver_count() == 0 {
                // What is known may be of an earlier flow with this id.
                watched.published.send_replace(None);
            }
            let viewer = Viewer(watched.published.subscribe());
            watched.woken.notify_one();
            return Ok(viewer);
        }
        if flows.len() >= MOST_FLOWS {
            // One that nobody looks at makes room; one that was interrupted only if there is no other.
            let unwatched = flows.iter().filter(|(_, it)| it.published.receiver_count() == 0);
            let first = unwatched.min_by_key(|(_, it)| it.interrupted.load(Ordering::Relaxed));
            let id = first.map(|(id, _)| id.clone()).ok_or(Problem::Full)?;
            if let Some(watched) = flows.remove(&id) {
                watched.woken.notify_one();
            }
        }
        let (published, viewer) = watch::channel(None);
        let watched = Arc::new(Watched {
            published,
            woken: Notify::new(),
            interrupted: AtomicBool::new(false),
        });
        flows.insert(id.to_owned(), watched.clone());
        tokio::spawn(self.clone().run(id.to_owned(), watched));
        Ok(Viewer(viewer))
    }

    /// Notes that the crash button killed a process some time ago, so that flows can show it at once. It
    /// is noted by the own clock.
    pub fn crashed(&self, group: &str, held: &Held, ago: Duration) {
        let mut crashes = self.crashes();
        if crashes.len() == MOST_CRASHES {
            crashes.remove(0);
        }
        crashes.push(Crash {
            group: group.to_owned(),
            instance: held.instance.clone(),
            start: held.start.clone(),
            at: own_clock() - ago.as_millis() as i64,
        });
    }

    fn flows(&self) -> MutexGuard<'_, HashMap<String, Arc<Watched>>> {
        self.0.flows.lock().expect("no holder of this lock panics")
    }

    fn crashes(&self) -> MutexGuard<'_, Vec<Crash>> {
        self.0.crashes.lock().expect("no holder of this lock panics")
    }

    /// Watches a flow for as long as somebody looks at it.
    async fn run(self, id: String, watched: Arc<Watched>) {
        let mut watcher = Watcher {
            client: self.0.client.clone(),
            known: None,
            last: None,
            linger: LINGER,
            boot: uuid::Uuid::new_v4().as_u64_pair().0,
            revision: 0,
            changed: tokio::time::Instant::now(),
            ahead: 0,
            looked: 0,
            away: None,
        };
        loop {
            if watched.published.receiver_count() == 0 {
                let is_over = tokio::select! {
                    () = watched.woken.notified() => false,
                    () = sleep(watcher.linger) => true,
                };
                // Viewers come only while this is locked.
                let mut flows = self.flows();
                let is_mine = flows.get(&id).is_some_and(|it| Arc::ptr_eq(it, &watched));
                if is_over && is_mine && watched.published.receiver_count() == 0 {
                    flows.remove(&id);
                    return;
                }
                if !is_mine {
                    // It has made room for another one.
                    return;
                }
                continue;
            }
            let pause = match watcher.look(&id, &self, &watched).await {
                Next::Look(pause) => pause,
                Next::Rest => {
                    tokio::select! {
                        () = watched.published.closed() => {}
                        () = watched.woken.notified() => {}
                    }
                    continue;
                }
                Next::Give(published) => {
                    // The next request gets a new watcher.
                    self.flows().retain(|_, it| !Arc::ptr_eq(it, &watched));
                    watched.published.send_replace(Some(published));
                    return;
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = watched.published.closed() => {}
            }
        }
    }
}

/// What to do after a look.
enum Next {
    /// Look again after this time.
    Look(Duration),
    /// Nothing can change any more.
    Rest,
    /// There is nothing to watch.
    Give(Published),
}

struct Watcher {
    client: Client,
    known: Option<Known>,
    /// What was published last of this flow.
    last: Option<Published>,
    /// How long it is kept when nobody looks.
    linger: Duration,
    boot: u64,
    revision: u64,
    /// When that was.
    changed: tokio::time::Instant,
    /// How far the server's clock is ahead of the own one at least, in milliseconds.
    ahead: i64,
    /// When the last look began that went well, in Unix milliseconds of the server's clock.
    looked: i64,
    /// Since when the server is unreachable, by the same clock.
    away: Option<i64>,
}

impl Watcher {
    async fn look(&mut self, id: &str, watchers: &Watchers, watched: &Watched) -> Next {
        self.check(id, watched).await;
        if self.known.is_none() {
            let jaeger = watchers.0.settings.jaeger_url.as_deref();
            match self.client.get(id).await {
                Ok(first) => self.known = first.and_then(|first| Known::new(&first, jaeger)),
                Err(error) => return Next::Give(Published::Failed(Arc::new(error))),
            }
        }
        let Some(known) = &mut self.known else { return Next::Give(Published::Unknown) };
        if known.is_complete() && self.last.is_some() {
            return Next::Rest;
        }
        let (ahead, began) = (self.ahead, own_clock());
        let result = known.refresh(&self.client, || own_clock() + ahead).await;
        self.ahead = self.ahead.max(known.latest() - own_clock());
        let trouble = match result {
            // The server has lost it: it was started again, and keeps nothing.
            Ok(()) if known.calls[0].record.is_none() => return Next::Give(Published::Unknown),
            Ok(()) => {
                if let Some(from) = self.away.take() {
                    // It may have answered only at the end of this look.
                    known.was_away(Outage { from, to: own_clock() + self.ahead });
                }
                self.looked = began + self.ahead;
                None
            }
            Err(error) if self.last.is_none() => {
                return Next::Give(Published::Failed(Arc::new(error)));
            }
            Err(error) => {
                // If nobody looked for a while, the last look tells little of when that began.
                let latest = began + ahead - SELDOM.as_millis() as i64;
                self.away.get_or_insert(self.looked.max(latest));
                Some(Trouble { reason: Problem::from(&error).detail(), as_of: self.looked })
            }
        };
        let complete = known.is_complete();
        let mut crashes = watchers.crashes().clone();
        crashes.iter_mut().for_each(|crash| crash.at += self.ahead);
        let view = view(known, &crashes, &watchers.0.settings);
        let json = json(&view, trouble.as_ref());
        watchers.0.stats.takeovers(&view.found);
        if view.is_interrupted() || !known.outages.is_empty() {
            self.linger = LINGER_INTERRUPTED;
            watched.interrupted.store(true, Ordering::Relaxed);
        }
        let is_known =
            |last: &Published| matches!(last, Published::State { json: it, .. } if **it == json);
        if !self.last.as_ref().is_some_and(is_known) {
            self.revision += 1;
            self.changed = tokio::time::Instant::now();
            self.last = Some(Published::State {
                id: format!("{:x}-{}", self.boot, self.revision).into(),
                json: json.as_str().into(),
                complete,
                ahead: self.ahead,
            });
            watched.published.send_replace(self.last.clone());
        }
        match complete {
            true => Next::Rest,
            false if trouble.is_some() || self.changed.elapsed() > QUIET => Next::Look(SELDOM),
            false => Next::Look(OFTEN),
        }
    }

    /// Whether the flow is still the one that is known, if that is in doubt: a viewer has come back, or the
    /// server, which may have lost its store. If it is another one, nothing is known.
    async fn check(&mut self, id: &str, watched: &Watched) {
        let has_returned = watched.published.borrow().is_none();
        let Some(known) = self.known.as_ref().filter(|_| has_returned || self.away.is_some())
        else {
            return;
        };
        // An unreachable server says nothing.
        if let Ok(first) = self.client.get(id).await
            && !first.is_some_and(|first| known.starts_with(&first))
        {
            (self.known, self.last, self.away, self.linger) = (None, None, None, LINGER);
            watched.interrupted.store(false, Ordering::Relaxed);
        } else if has_returned {
            watched.published.send_replace(self.last.clone());
        }
    }
}

/// Why a state is old.
#[derive(Serialize)]
struct Trouble {
    /// What the server answers, or that it does not.
    reason: String,
    /// Of when the state is, in Unix milliseconds of the server's clock.
    as_of: i64,
}

fn json(view: &View, trouble: Option<&Trouble>) -> String {
    #[derive(Serialize)]
    struct State<'a> {
        #[serde(flatten)]
        view: &'a View<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        trouble: Option<&'a Trouble>,
    }
    serde_json::to_string(&State { view, trouble }).unwrap_or_default()
}

/// Unix milliseconds of this process's clock.
pub fn own_clock() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as i64
}
