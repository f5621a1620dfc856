//! What one promise or task says.

use node::server::instance_of;
use resonate_otel::attributes::{
    HEADER_BEGUN, HEADER_FAILURES, HEADER_INSTANCE, HEADER_SETTLER, HEADER_VERSION,
};
use serde_json::Value;
use wire::{Promise, PromiseState, Task, TaskState};

use crate::client;

/// A run: the process, and the version of the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub instance: String,
    pub version: i64,
}

/// A promise.
#[derive(Debug, Clone)]
pub struct Record {
    pub state: PromiseState,
    pub created: i64,
    pub settled: Option<i64>,
    /// When it is settled at the latest; a durable timer is due then.
    pub due: i64,
    /// The run that created it. None: the gateway did, or a process that writes no such headers.
    pub creator: Option<Run>,
    /// The run that settled it.
    pub settler: Option<Run>,
    /// When that run began the step.
    pub begun: Option<i64>,
    /// How many attempts of the step failed in that run.
    pub failures: u32,
    /// The result, if it is settled and went well.
    pub result: Value,
    /// Why not.
    pub error: Option<String>,
}

impl Record {
    pub fn of(promise: &Promise) -> Self {
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
        let run = |instance: &str, version: Option<&str>| {
            Some(Run { instance: instance.to_owned(), version: number(version)? })
        };
        let (param, value) = (&promise.param, &promise.value);
        let creator = param.header(HEADER_INSTANCE);
        let settler = value.header(HEADER_SETTLER).and_then(|text| text.rsplit_once(' '));
        let resolved = promise.state == PromiseState::Resolved;
        Self {
            state: promise.state,
            created: promise.created_at,
            settled: promise.settled_at.filter(|_| !promise.is_pending()),
            due: promise.timeout_at,
            creator: creator.and_then(|instance| run(instance, param.header(HEADER_VERSION))),
            settler: settler.and_then(|(instance, version)| run(instance, Some(version))),
            begun: number(value.header(HEADER_BEGUN)),
            failures: number(value.header(HEADER_FAILURES)).unwrap_or_default() as u32,
            result: if resolved { client::value_of(promise) } else { Value::Null },
            error: (!resolved && !promise.is_pending()).then(|| client::error_of(promise)),
        }
    }

    pub fn is_pending(&self) -> bool {
        self.state == PromiseState::Pending
    }

    pub fn is_resolved(&self) -> bool {
        self.state == PromiseState::Resolved
    }
}

/// A task, as it was at a moment.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it was first seen so.
    pub at: i64,
    /// When it was looked at before that, if it was.
    pub before: Option<i64>,
    pub state: TaskState,
    pub version: i64,
    /// Whether it is pending because a wait of it has ended.
    pub resumed: bool,
    /// Who holds it.
    pub pid: Option<String>,
    /// How long its lease is, in milliseconds.
    pub lease: i64,
}

impl Seen {
    pub fn of(task: &Task, at: i64) -> Self {
        Self {
            at,
            before: None,
            state: task.state,
            version: task.version,
            resumed: task.resumes > 0,
            pid: task.pid.as_deref().map(str::to_owned),
            lease: task.ttl.unwrap_or_default(),
        }
    }

    /// Whether the task has not changed since.
    pub fn is_still(&self, now: &Self) -> bool {
        let key = |it: &Self| (it.state, it.version, it.resumed);
        key(self) == key(now) && self.pid == now.pid
    }

    /// The run that holds it.
    pub fn run(&self) -> Option<Run> {
        let pid = self.pid.as_deref().filter(|_| self.state == TaskState::Acquired)?;
        Some(Run { instance: instance_of(pid).to_owned(), version: self.version })
    }

    /// Whether a run lost it: its lease expired, or it was released.
    pub fn is_lost(&self) -> bool {
        self.state == TaskState::Pending && self.version > 0 && !self.resumed
    }
}

/// A process that the crash button killed.
#[derive(Debug, Clone)]
pub struct Crash {
    pub group: String,
    /// The instance.
    pub instance: String,
    /// What to type to start it again.
    pub start: Option<String>,
    /// When it confirmed that it dies.
    pub at: i64,
}
