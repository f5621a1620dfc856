//! `GET /stats`: how many flows this gateway has started and seen end in each slot of the last minutes,
//! and the takeovers that it knows of. A flow costs one addition when it starts and one when it ends.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json,
    http::header::CACHE_CONTROL,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::time::Instant;
use wire::PromiseState;

use crate::timeline::own_clock;

/// How long a slot is.
const SLOT: Duration = Duration::from_secs(5);

/// How many slots are kept: five minutes.
const SLOTS: usize = 60;

/// What was counted. Clones share it.
#[derive(Clone)]
pub struct Stats(Arc<Mutex<Ring>>);

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// A flow was created.
    Started,
    /// A flow has ended with its result.
    Succeeded,
    /// A flow has ended in another way: with an error, timed out, or canceled.
    Failed,
}

impl Event {
    /// That a flow has ended in this state.
    pub fn end(state: PromiseState) -> Self {
        match state {
            PromiseState::Resolved => Self::Succeeded,
            _ => Self::Failed,
        }
    }
}

/// A run that went on after another one had lost its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// The run that lost it: the promise of its function, and its version.
    pub lost: (String, i64),
    /// When the other one began, in Unix milliseconds.
    pub at: i64,
}

/// The counts of one slot.
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Slot {
    /// Flows that were created.
    started: u64,
    /// Flows that ended with their result.
    succeeded: u64,
    /// Flows that ended with an error, timed out, or were canceled.
    failed: u64,
    takeovers: u64,
}

struct Ring {
    /// When the first slot began.
    since: Instant,
    /// The same in Unix milliseconds.
    since_unix: i64,
    /// The end of the last slot.
    end: Instant,
    /// The takeovers that are counted in the slots, and when they were: whoever looks at a flow finds all
    /// that it ever had.
    takeovers: HashMap<(String, i64), i64>,
    /// The oldest one first.
    slots: VecDeque<Slot>,
}

/// What was counted lately.
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Recent {
    /// How long a slot is.
    slot_seconds: u64,
    /// The oldest one first; the last one is not over yet.
    #[cfg_attr(test, schema(value_type = Vec<Slot>))]
    slots: VecDeque<Slot>,
    /// When this gateway started, in Unix milliseconds, if that is less than all slots ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
}

impl Default for Stats {
    fn default() -> Self {
        let slots = VecDeque::from([Slot::default(); SLOTS]);
        let (since, since_unix) = (Instant::now(), own_clock());
        let (end, takeovers) = (since + SLOT, HashMap::new());
        Self(Arc::new(Mutex::new(Ring { since, since_unix, end, takeovers, slots })))
    }
}

impl Stats {
    /// Counts an event.
    pub fn count(&self, event: Event) {
        self.with(|ring| {
            let slot = ring.slots.back_mut().expect("there are always slots");
            let counter = match event {
                Event::Started => &mut slot.started,
                Event::Succeeded => &mut slot.succeeded,
                Event::Failed => &mut slot.failed,
            };
            *counter += 1;
        });
    }

    /// Counts takeovers of the last minutes that are not counted yet.
    pub fn takeovers(&self, found: &[Takeover]) {
        self.takeovers_at(found, own_clock());
    }

    /// The same at the time `now`, in Unix milliseconds.
    fn takeovers_at(&self, found: &[Takeover], now: i64) {
        if found.is_empty() {
            return;
        }
        self.with(|ring| {
            let slot = SLOT.as_millis() as i64;
            let left = ring.end.saturating_duration_since(Instant::now()).as_millis() as i64;
            // The oldest slot begins then.
            let begin = now + left - slot * SLOTS as i64;
            ring.takeovers.retain(|_, at| *at >= begin);
            for Takeover { lost, at } in found {
                // The server's clock may be ahead.
                let at = (*at).min(now);
                let place = ((at - begin) / slot).min(SLOTS as i64 - 1);
                if at >= begin && ring.takeovers.insert(lost.clone(), at).is_none() {
                    ring.slots[place as usize].takeovers += 1;
                }
            }
        });
    }

    /// Handles `GET /stats`.
    pub fn answer(&self) -> Response {
        ([(CACHE_CONTROL, "no-store")], Json(self.recent())).into_response()
    }

    fn recent(&self) -> Recent {
        self.with(|ring| {
            let is_new = ring.since.elapsed() < SLOT * SLOTS as u32;
            Recent {
                slot_seconds: SLOT.as_secs(),
                since: is_new.then_some(ring.since_unix),
                slots: ring.slots.clone(),
            }
        })
    }

    /// Calls `use_it` with the slots until now.
    fn with<T>(&self, use_it: impl FnOnce(&mut Ring) -> T) -> T {
        let mut ring = self.0.lock().expect("no holder of this lock panics");
        let Ring { end, slots, .. } = &mut *ring;
        if let Some(late) = Instant::now().checked_duration_since(*end) {
            let passed = late.as_secs() / SLOT.as_secs() + 1;
            for _ in 0..passed.min(SLOTS as u64) {
                slots.pop_front();
                slots.push_back(Slot::default());
            }
            *end += SLOT * passed as u32;
        }
        use_it(&mut ring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_move_from_slot_to_slot_until_they_are_forgotten() {
        let stats = Stats::default();
        // How many slots ago flows were started, and how many.
        let started = || {
            let slots = stats.with(|ring| ring.slots.clone());
            assert_eq!(slots.len(), SLOTS);
            let started = slots.iter().rev().map(|slot| slot.started);
            started.enumerate().filter(|(_, started)| *started > 0).collect::<Vec<_>>()
        };
        stats.count(Event::Started);
        stats.count(Event::Started);
        assert_eq!(started(), [(0, 2)]);
        tokio::time::advance(SLOT).await;
        stats.count(Event::Started);
        assert_eq!(started(), [(0, 1), (1, 2)]);
        tokio::time::advance(SLOT * 2 - Duration::from_millis(1)).await;
        assert_eq!(started(), [(1, 1), (2, 2)]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(started(), [(2, 1), (3, 2)]);
        tokio::time::advance(SLOT * 57).await;
        assert_eq!(started(), [(59, 1)]);
        tokio::time::advance(SLOT * 1_000).await;
        assert_eq!(started(), []);
        stats.count(Event::Started);
        assert_eq!(started(), [(0, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_takeover_is_counted_once_and_when_it_was() {
        let stats = Stats::default();
        let places = || {
            let slots = stats.with(|ring| ring.slots.clone());
            let takeovers = slots.iter().rev().map(|slot| slot.takeovers);
            takeovers.enumerate().filter(|(_, takeovers)| *takeovers > 0).collect::<Vec<_>>()
        };
        let takeover = |version, at| Takeover { lost: ("x.0".to_owned(), version), at };
        // The last slot began just now.
        let now = 1_000_000_000;
        stats.takeovers_at(
            &[takeover(1, now), takeover(2, now - 1), takeover(3, now - 12_000)],
            now,
        );
        assert_eq!(places(), [(0, 1), (1, 1), (3, 1)]);
        // It is found again, a bit later because its run has told since.
        stats.takeovers_at(&[takeover(1, now + 40), takeover(4, now - 400_000)], now);
        assert_eq!(places(), [(0, 1), (1, 1), (3, 1)]);
        // By a clock that is ahead.
        stats.takeovers_at(&[takeover(5, now + 60_000)], now);
        assert_eq!(places(), [(0, 2), (1, 1), (3, 1)]);
        tokio::time::advance(SLOT * 70).await;
        stats.takeovers_at(&[takeover(1, now), takeover(6, now + 350_000)], now + 350_000);
        assert_eq!(places(), [(0, 1)]);
        assert_eq!(stats.with(|ring| ring.takeovers.len()), 1, "nothing is kept for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_has_not_run_for_all_slots_says_since_when_it_has() {
        let (before, stats) = (own_clock(), Stats::default());
        assert!(stats.recent().since >= Some(before));
        tokio::time::advance(SLOT * SLOTS as u32 - Duration::from_millis(1)).await;
        assert!(stats.recent().since >= Some(before));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(stats.recent().since, None);
    }

    #[test]
    fn each_event_has_its_counter() {
        let stats = Stats::default();
        stats.count(Event::Started);
        (0..2).for_each(|_| stats.count(Event::end(PromiseState::Resolved)));
        for state in
            [PromiseState::Rejected, PromiseState::RejectedTimedout, PromiseState::RejectedCanceled]
        {
            stats.count(Event::end(state));
        }
        let slot = stats.with(|ring| ring.slots.back().copied());
        assert_eq!(slot, Some(Slot { started: 1, succeeded: 2, failed: 3, takeovers: 0 }));
    }
}
