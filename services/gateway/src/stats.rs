//! `GET /stats`: how many flows this gateway has started and answered in each of the last minutes'
//! slots. A flow costs it one addition when it starts and one when it is answered.

use std::{
    collections::VecDeque,
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
    /// The request that created a flow was answered with its result.
    Succeeded,
    /// The request that created a flow was answered with its error.
    Failed,
}

/// The counts of one slot.
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Slot {
    /// Flows that were created.
    started: u64,
    /// Answers with the result of a flow.
    succeeded: u64,
    /// Answers with the error of a flow.
    failed: u64,
}

struct Ring {
    /// The end of the last slot.
    end: Instant,
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
}

impl Default for Stats {
    fn default() -> Self {
        let slots = VecDeque::from([Slot::default(); SLOTS]);
        Self(Arc::new(Mutex::new(Ring { end: Instant::now() + SLOT, slots })))
    }
}

impl Stats {
    /// Counts an event.
    pub fn count(&self, event: Event) {
        self.with(|slots| {
            let slot = slots.back_mut().expect("there are always slots");
            let counter = match event {
                Event::Started => &mut slot.started,
                Event::Succeeded => &mut slot.succeeded,
                Event::Failed => &mut slot.failed,
            };
            *counter += 1;
        });
    }

    /// Handles `GET /stats`.
    pub fn answer(&self) -> Response {
        let recent = Recent { slot_seconds: SLOT.as_secs(), slots: self.with(|it| it.clone()) };
        ([(CACHE_CONTROL, "no-store")], Json(recent)).into_response()
    }

    /// Calls `use_it` with the slots until now.
    fn with<T>(&self, use_it: impl FnOnce(&mut VecDeque<Slot>) -> T) -> T {
        let mut ring = self.0.lock().expect("no holder of this lock panics");
        let Ring { end, slots } = &mut *ring;
        if let Some(late) = Instant::now().checked_duration_since(*end) {
            let passed = late.as_secs() / SLOT.as_secs() + 1;
            for _ in 0..passed.min(SLOTS as u64) {
                slots.pop_front();
                slots.push_back(Slot::default());
            }
            *end += SLOT * passed as u32;
        }
        use_it(slots)
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
            let slots = stats.with(|slots| slots.clone());
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

    #[test]
    fn each_event_has_its_counter() {
        let stats = Stats::default();
        stats.count(Event::Started);
        (0..2).for_each(|_| stats.count(Event::Succeeded));
        (0..3).for_each(|_| stats.count(Event::Failed));
        let slot = stats.with(|slots| slots.back().copied());
        assert_eq!(slot, Some(Slot { started: 1, succeeded: 2, failed: 3 }));
    }
}
