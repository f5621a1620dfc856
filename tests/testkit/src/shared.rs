//! A value that several tests use at the same time, because starting one for each would take too
//! long. It is started by the first of them and stopped by the last.

use std::{
    ops::Deref,
    sync::{Arc, Weak},
};

use tokio::sync::Mutex;

use crate::{Server, Stop, Stopped};

/// The shared values of one type: at most one for each kind of server.
pub struct Pool<T>(Mutex<Vec<(Server, Weak<T>)>>);

impl<T: Stop> Pool<T> {
    /// An empty pool, for a `static`.
    pub const fn new() -> Self {
        Self(Mutex::const_new(Vec::new()))
    }

    /// The value for `server`; `start` makes it if there is none.
    pub async fn get(&'static self, server: Server, start: impl AsyncFnOnce() -> T) -> Shared<T> {
        let mut values = self.0.lock().await;
        let existing = values.iter().find(|(kind, _)| *kind == server);
        if let Some(value) = existing.and_then(|(_, value)| value.upgrade()) {
            return Shared { value, pool: self };
        }
        let value = Arc::new(start().await);
        values.retain(|(kind, _)| *kind != server);
        values.push((server, Arc::downgrade(&value)));
        Shared { value, pool: self }
    }
}

impl<T: Stop> Default for Pool<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// One test's share of a value.
pub struct Shared<T: 'static> {
    value: Arc<T>,
    pool: &'static Pool<T>,
}

impl<T: Stop> Shared<T> {
    /// Gives up this share. The last user stops the value.
    ///
    /// # Panics
    /// Something is left.
    pub async fn stop(self) -> Stopped {
        // Nobody may get a new share of a value that is being stopped.
        let _pool = self.pool.0.lock().await;
        match Arc::into_inner(self.value) {
            Some(value) => value.stop().await,
            None => Stopped::by_another(),
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
