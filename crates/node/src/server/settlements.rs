//! Who waits in this process for which promise. The server tells the process when a promise is
//! settled; a promise that nobody waits for is forgotten.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use wire::Promise;

type Waiting = Mutex<HashMap<String, watch::Sender<Option<Promise<'static>>>>>;

/// The promises that are waited for, by id. Clones share them.
#[derive(Clone, Default)]
pub struct Settlements(Arc<Waiting>);

/// One wait for a promise. The last one to end removes the promise.
pub struct Wait {
    waiting: Arc<Waiting>,
    id: String,
    settled: Option<watch::Receiver<Option<Promise<'static>>>>,
}

impl Settlements {
    /// How many promises are waited for.
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }

    /// Waits for the promise `id` until the value is dropped.
    pub fn wait(&self, id: &str) -> Wait {
        let settled = lock(&self.0)
            .entry(id.to_owned())
            .or_insert_with(|| watch::Sender::new(None))
            .subscribe();
        Wait { waiting: self.0.clone(), id: id.to_owned(), settled: Some(settled) }
    }

    /// A promise is settled: every wait for it ends. A promise that is pending is ignored: a server that
    /// announces one is wrong.
    pub fn settled(&self, promise: &Promise) {
        if promise.is_pending() {
            return;
        }
        if let Some(waits) = lock(&self.0).get(&*promise.id) {
            waits.send_replace(Some(promise.clone().into_owned()));
        }
    }

    /// The promises that are waited for.
    pub fn ids(&self) -> Vec<String> {
        lock(&self.0).keys().cloned().collect()
    }
}

impl Wait {
    /// Waits until the promise is settled.
    pub async fn settled(&mut self) -> Promise<'static> {
        if let Some(settled) = &mut self.settled
            && let Ok(promise) = settled.wait_for(Option::is_some).await
            && let Some(promise) = &*promise
        {
            return promise.clone();
        }
        // Not reached: the entry, which holds the sender, stays as long as this receiver.
        std::future::pending().await
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting);
        self.settled = None;
        if waiting.get(&self.id).is_some_and(|waits| waits.receiver_count() == 0) {
            waiting.remove(&self.id);
        }
    }
}

/// A panic of another holder leaves the map as good as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn every_wait_for_a_promise_ends_and_nothing_is_left() {
        let settlements = Settlements::default();
        let mut waits = [settlements.wait("x"), settlements.wait("x"), settlements.wait("y")];
        assert_eq!(waits[0].settled().now_or_never(), None);
        let pending = r#"{"id": "x", "state": "pending", "timeoutAt": 2, "createdAt": 1}"#;
        settlements.settled(&serde_json::from_str(pending).unwrap());
        assert_eq!(waits[0].settled().now_or_never(), None);
        let x = r#"{"id": "x", "state": "resolved", "timeoutAt": 2, "createdAt": 1}"#;
        settlements.settled(&serde_json::from_str(x).unwrap());
        assert_eq!(waits[0].settled().await.id, "x");
        assert_eq!(waits[1].settled().await.id, "x");
        assert_eq!(waits[2].settled().now_or_never(), None);
        drop(waits);
        assert_eq!(settlements.ids(), [""; 0]);
    }
}
