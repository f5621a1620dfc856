//! Marks: what a run leaves for the next one, since the server stores neither how a run ended nor
//! which process ran it.
//!
//! A mark is a promise in the branch of the run, so the next run finds it in its preload. It is made
//! with a time-out that has passed: nobody can wait for it, and it costs the server no timer. A run
//! that neither takes over nor is released in the middle of a step leaves none.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use wire::{
    Pairs, Promise, PromiseValue, Request,
    envelope::Action,
    operation::{PromiseCreate, TaskFence},
    tag,
};

use super::Inner;
use crate::{attributes as key, context, run_spans::Predecessor};

/// How long a release waits for its mark. At the end of a drain there is not much time.
const MOMENT: Duration = Duration::from_millis(200);

/// The id of the promise that is there if the run `version` of `task` was released in the middle of a
/// step. It is missing if that process traced nothing, or the server did not answer it.
pub fn released_mark(task: &str, version: i64) -> String {
    mark(task, RELEASED, version)
}

/// No promise of the SDK has such an id.
fn mark(task: &str, word: &str, version: i64) -> String {
    format!("{task}.{word}-{version}")
}

const RELEASED: &str = "released";

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// The run took a step over.
    TakenOver,
    /// The run was released in the middle of a step.
    Released,
}

impl Inner {
    /// Leaves a mark, if somebody can find it. If it is lost, the next run knows less.
    pub(super) async fn leave(&self, mark: Mark, task: &str, version: i64, branch: String) {
        let (word, released) = match mark {
            Mark::TakenOver => ("taken-over", None),
            Mark::Released => (RELEASED, Some((key::HEADER_RELEASED, "true".to_owned()))),
        };
        let headers = [
            (key::HEADER_INSTANCE, self.instance.clone()),
            (key::HEADER_VERSION, version.to_string()),
        ];
        let create = PromiseCreate {
            id: self::mark(task, word, version).into(),
            timeout_at: 0,
            param: PromiseValue {
                headers: Some(headers.into_iter().chain(released).collect()),
                data: None,
            },
            tags: Pairs::from_iter([(tag::BRANCH, branch)]),
        };
        let action = Action { kind: "promise.create".into(), head: None, data: create };
        let fence = Request::new("task.fence", &TaskFence { id: task.into(), version, action });
        let answer = timeout(MOMENT, self.next.exchange(fence.until(Instant::now()))).await;
        if !matches!(&answer, Ok(Ok(answer)) if answer.status() == 200) {
            tracing::debug!(promise = task, version, ?answer, "no mark for the next run");
        }
    }
}

/// What the promises of a branch tell about the run before `version`.
pub(super) fn predecessor(preload: &[Promise], version: i64) -> Predecessor {
    let before = (version - 1).to_string();
    let mut predecessor = Predecessor::default();
    let of_run = |record: &&Promise| record.param.header(key::HEADER_VERSION) == Some(&before);
    for record in preload.iter().filter(of_run) {
        let header = |name| record.param.header(name);
        predecessor.instance = header(key::HEADER_INSTANCE).map(str::to_owned);
        predecessor.released |= header(key::HEADER_RELEASED).is_some();
        let seen = record.settled_at.filter(|_| record.is_step()).unwrap_or(record.created_at);
        predecessor.seen = predecessor.seen.max(Some(context::time(seen)));
    }
    predecessor
}
