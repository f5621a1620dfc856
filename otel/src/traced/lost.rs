//! Lost answers: the promise shows later whether its request took effect.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use opentelemetry::{Context, trace::TraceContextExt};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use wire::{Answer, ExchangeError, Promise, PromiseState, PromiseValue, Request, operation::Get};

use super::{
    Answered, Inner,
    creations::{Prepared, created_by},
};
use crate::{
    attributes as key,
    run_spans::{Outcome, StepOf},
    steps::Note,
};

/// Most promises that are looked up at the same time.
const MOST: usize = 1_000;

/// The first and the longest delay between two attempts.
const DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long a request may still take effect once the server answers again.
const LATE: Duration = Duration::from_secs(60);

/// A request whose answer says what to emit.
pub(super) enum Asked {
    Creation { id: String, prepared: Arc<Prepared>, request: Request },
    Step { task: String, id: String, version: i64 },
    Fulfill { id: String, version: i64 },
    Settle { id: String, settler: String },
}

/// A request that is under way. If this is dropped before the answer is there, because there is none
/// or because nobody waits for it any longer, the promise is looked up.
pub(super) struct UnderWay {
    inner: Arc<Inner>,
    asked: Option<Asked>,
}

impl UnderWay {
    /// Takes note of a result. Only a request without an answer may have taken effect unseen.
    pub fn note(&mut self, answered: &Answered) {
        match answered {
            Err(ExchangeError::Unreachable { .. }) => {}
            // It may come from a proxy or a failing store, so it proves nothing.
            Ok(answer) if answer.status() >= 500 => {}
            _ => self.forget(),
        }
    }

    /// The answer is there.
    pub fn forget(&mut self) {
        self.asked = None;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.inner.lose(asked);
        }
    }
}

/// What a promise may tell later.
enum Lost {
    /// Whether it was created by this request. The call ended at `end`.
    Creation { id: String, prepared: Arc<Prepared>, request: Request, end: SystemTime },
    /// Whether `settler` settled the step; or whether it was canceled or timed out before `until`, when
    /// another process may have taken it over.
    Step { id: String, step: StepOf, note: Box<Note>, settler: String, until: Option<SystemTime> },
    /// Whether this run settled it.
    Fulfill { id: String, version: i64 },
    /// Whether the request with this mark settled it.
    Settle { id: String, settler: String },
}

impl Lost {
    fn id(&self) -> &str {
        match self {
            Self::Creation { id, .. }
            | Self::Step { id, .. }
            | Self::Fulfill { id, .. }
            | Self::Settle { id, .. } => id,
        }
    }

    fn is_told_by(&self, promise: Option<&Promise>) -> bool {
        match self {
            Self::Creation { .. } => promise.is_some(),
            Self::Step { .. } | Self::Fulfill { .. } | Self::Settle { .. } => {
                promise.is_some_and(|promise| !promise.is_pending())
            }
        }
    }
}

impl Inner {
    /// Looks the promise up if the answer to what is asked does not come.
    pub(super) fn watch(self: &Arc<Self>, asked: Option<Asked>) -> UnderWay {
        UnderWay { inner: self.clone(), asked: asked.filter(|_| self.observes()) }
    }

    fn lose(self: &Arc<Self>, asked: Asked) {
        let measured = self.metrics.is_on();
        let observed = |run: &Context| measured || run.span().span_context().is_sampled();
        let now = SystemTime::now();
        let lost = match asked {
            Asked::Creation { id, prepared, request } => {
                let span = prepared.creation().is_some_and(|creation| creation.span.is_sampled());
                span.then_some(Lost::Creation { id, prepared, request, end: now })
            }
            Asked::Step { task, id, version } => {
                let settler = self.settler(version);
                let note = Box::new(self.steps.take(&id));
                let until = self.runs.lease_end(&task);
                self.runs
                    .step(&task, &id)
                    .filter(|step| observed(&step.context))
                    .map(|step| Lost::Step { id, step, note, settler, until })
            }
            Asked::Fulfill { id, version } => {
                let run = self.runs.context(&id).filter(observed);
                run.map(|_| Lost::Fulfill { id, version })
            }
            Asked::Settle { id, settler } => Some(Lost::Settle { id, settler }),
        };
        let Some(lost) = lost else { return };
        if let Lost::Fulfill { id, version } = &lost {
            self.runs.await_outcome(id, *version);
        }
        let under_way = self.looked_up.fetch_add(1, Ordering::Relaxed);
        let look_up = LookUp { inner: self.clone(), lost: Some(lost) };
        // At the end of a process there is no runtime any more.
        let Ok(runtime) = Handle::try_current() else { return };
        if under_way >= MOST {
            tracing::debug!("too many lost answers; one is not looked up");
            if let Some(Lost::Fulfill { id, version }) = &look_up.lost {
                self.end(id, *version, Outcome::Fenced);
            }
            return;
        }
        runtime.spawn(look_up.run());
    }

    async fn get_once(&self, id: &str) -> Option<Answer> {
        let get = Request::new("promise.get", &Get { id: id.into() });
        let answer = self.next.exchange(get.until(Instant::now())).await.ok()?;
        (answer.status() < 500).then_some(answer)
    }

    fn found(self: &Arc<Self>, lost: Lost, promise: Option<&Promise>) {
        let told = lost.is_told_by(promise);
        match (lost, promise.filter(|_| told)) {
            (Lost::Creation { prepared, end, .. }, Some(promise)) if prepared.created(promise) => {
                // It may have arrived late.
                let end = end.max(crate::context::time(promise.created_at));
                self.created(&prepared, promise, end);
            }
            (Lost::Step { step, note, settler, until, .. }, Some(promise)) => {
                let ours = match promise.state {
                    PromiseState::Resolved | PromiseState::Rejected => {
                        promise.value.header(key::HEADER_SETTLER) == Some(&settler)
                    }
                    _ => promise.settled_at.map(crate::context::time) < until,
                };
                if promise.is_step() && ours {
                    self.step_ended(&step, promise, *note);
                }
            }
            (Lost::Fulfill { id, version }, Some(promise)) => {
                self.settled(&id, version, promise);
            }
            (Lost::Settle { settler, .. }, Some(promise)) => {
                self.settled_by_client(&settler, promise);
            }
            (Lost::Fulfill { id, version }, None) => self.end(&id, version, Outcome::Fenced),
            _ => {}
        }
    }
}

/// A look-up that is under way. It is dropped before its end if the process ends.
struct LookUp {
    inner: Arc<Inner>,
    lost: Option<Lost>,
}

impl LookUp {
    /// Asks for the promise until it tells, or until the request cannot take effect any more.
    async fn run(mut self) {
        let (mut delay, longest) = DELAYS;
        let mut end = None;
        while let Some(lost) = &self.lost {
            sleep(delay).await;
            delay = longest.min(delay * 2);
            let Some(answer) = self.inner.get_once(lost.id()).await else { continue };
            let promise = answer.promise();
            let end = *end.get_or_insert_with(|| Instant::now() + LATE);
            if (lost.is_told_by(promise) || Instant::now() >= end)
                && let Some(lost) = self.lost.take()
            {
                self.inner.found(lost, promise);
            }
        }
    }
}

impl Drop for LookUp {
    fn drop(&mut self) {
        self.inner.looked_up.fetch_sub(1, Ordering::Relaxed);
        // Other spans may have this one as their parent, and no other process can emit it.
        if let Some(Lost::Creation { prepared, request, end, .. }) = self.lost.take()
            && let Some(promise) = as_sent(&request)
            && let (Some(spans), Some(creation)) = (&self.inner.spans, prepared.creation())
        {
            spans.promises.unanswered(creation, &promise, end);
        }
    }
}

/// The promise that a request creates, without what only the server knows.
fn as_sent(request: &Request) -> Option<Promise<'_>> {
    let create = created_by(request.operation())?;
    let param = create.param.and_then(|param| serde_json::from_str(param.get()).ok());
    Some(Promise {
        id: create.id.clone(),
        state: PromiseState::Pending,
        param: param.unwrap_or_default(),
        value: PromiseValue::default(),
        tags: create.tags.clone(),
        timeout_at: create.timeout_at,
        created_at: 0,
        settled_at: None,
    })
}
