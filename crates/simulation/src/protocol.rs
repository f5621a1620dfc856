//! What must hold for the requests that the server has handled, in their order.

use std::collections::BTreeMap;

use node::server::instance_of;
use wire::{
    Answer, AnswerBody, Operation, Promise, PromiseState, Request,
    operation::{FencedAction, TaskRef},
};

/// The state that follows from requests and answers.
#[derive(Default)]
pub(crate) struct Protocol {
    tasks: BTreeMap<String, Task>,
    promises: BTreeMap<String, Option<Settled>>,
    takeovers: u64,
}

#[derive(Default)]
struct Task {
    version: i64,
    /// The process whose run holds it, as far as requests tell: the lease may have expired.
    holder: Option<String>,
}

/// How a promise was settled. That never changes.
#[derive(PartialEq, Eq)]
struct Settled {
    state: &'static str,
    value: String,
    at: Option<i64>,
}

impl Protocol {
    /// A line for the log, and what must not have happened.
    pub fn handled(&mut self, request: &str, answer: &str) -> (String, Vec<String>) {
        let Ok(request) = Request::parse(request.to_owned()) else {
            return (format!("unreadable request {request}"), vec!["unreadable request".into()]);
        };
        let Ok(answer) = Answer::parse(&request, answer.to_owned()) else {
            let line = format!("{} → {answer}", describe(&request));
            return (line, vec![format!("unreadable answer {answer}")]);
        };
        let mut broken = Vec::new();
        if answer.status() < 400 {
            self.task(&request, &answer, &mut broken);
            if let Some(promise) = answer.promise() {
                self.promise(promise, &mut broken);
            }
        }
        let (line, status) = (describe(&request), answer.status());
        (format!("{line} → {status} {}", answer.reason()), broken)
    }

    fn task(&mut self, request: &Request, answer: &Answer, broken: &mut Vec<String>) {
        let (id, version, ends) = match request.operation() {
            Operation::TaskAcquire(_) => {
                let AnswerBody::Acquired(task, ..) = answer.body() else { return };
                let known = self.tasks.entry(task.id.to_string()).or_default();
                if task.version <= known.version {
                    broken.push(format!("version {} of {} begins twice", task.version, task.id));
                }
                self.takeovers += u64::from(known.holder.is_some());
                let pid = task.pid.as_deref().unwrap_or_default();
                let holder = instance_of(pid).to_owned();
                *known = Task { version: task.version, holder: Some(holder) };
                return;
            }
            Operation::TaskFence(task) => (&task.id, task.version, false),
            Operation::TaskSuspend(task) => (&task.id, task.version, answer.status() == 200),
            Operation::TaskFulfill(task) => (&task.id, task.version, true),
            Operation::TaskRelease(TaskRef { id, version }) => (id, *version, true),
            Operation::PromiseSettle(settle) => {
                // Nobody holds the task of a promise that is settled.
                if let Some(task) = self.tasks.get_mut(&*settle.id) {
                    task.holder = None;
                }
                return;
            }
            _ => return,
        };
        let known = self.tasks.entry(id.to_string()).or_default();
        if known.version != version || known.holder.is_none() {
            broken.push(format!(
                "{} of {id} took effect for the stale version {version}",
                request.kind()
            ));
        }
        if ends {
            known.holder = None;
        }
    }

    fn promise(&mut self, promise: &Promise, broken: &mut Vec<String>) {
        let settled = (!promise.is_pending()).then(|| Settled {
            state: promise.state.as_str(),
            value: promise.value.data().to_owned(),
            at: promise.settled_at,
        });
        let known = self.promises.entry(promise.id.to_string()).or_default();
        if known.is_some() && *known != settled {
            broken.push(format!("the outcome of {} has changed", promise.id));
        }
        *known = settled;
    }

    /// The tasks that a process holds.
    pub fn held_by(&self, process: &str) -> Vec<String> {
        let held = self.tasks.iter().filter(|(_, task)| task.holder.as_deref() == Some(process));
        held.map(|(id, _)| id.clone()).collect()
    }

    /// Whether the promise of a step has an outcome that no run may make again. A run that has created
    /// a step does not see that it is canceled.
    pub fn is_stored(&self, step: &str) -> bool {
        let settled = self.promises.get(step).and_then(Option::as_ref);
        settled.is_some_and(|it| it.state != PromiseState::RejectedCanceled.as_str())
    }

    pub fn takeovers(&self) -> u64 {
        self.takeovers
    }
}

/// A request in a few words.
fn describe(request: &Request) -> String {
    let kind = request.kind();
    match request.operation() {
        Operation::TaskFence(task) => {
            let (what, of) = match &task.action {
                FencedAction::Create(create) => ("create", create.id.to_string()),
                FencedAction::Settle(settle) => ("settle", settle.id.to_string()),
            };
            format!("{kind} {} v{} {what} {of}", task.id, task.version)
        }
        Operation::TaskAcquire(task) => format!("{kind} {} v{}", task.id, task.version),
        Operation::TaskSuspend(task) => format!("{kind} {} v{}", task.id, task.version),
        Operation::TaskFulfill(task) => format!("{kind} {} v{}", task.id, task.version),
        Operation::TaskRelease(task) => format!("{kind} {} v{}", task.id, task.version),
        Operation::TaskHeartbeat(heartbeat) => {
            let tasks =
                heartbeat.tasks.iter().map(|task| format!(" {} v{}", task.id, task.version));
            format!("{kind}{}", tasks.collect::<String>())
        }
        Operation::PromiseCreate(create) => format!("{kind} {}", create.id),
        Operation::PromiseSettle(settle) => format!("{kind} {}", settle.id),
        Operation::PromiseGet(get) => format!("{kind} {}", get.id),
        _ => kind.to_owned(),
    }
}
