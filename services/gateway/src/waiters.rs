//! Waits for promises: listens for each at the server, again after each reconnect.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use node::server::{Listener, Settlements};
use tokio::{sync::watch, task::AbortHandle};
use wire::{Address, Message, MessageBody, Promise};

use crate::{
    GROUP,
    client::{self, Client},
};

/// The delay before a listener that could not be registered is registered again.
const RETRY: Duration = Duration::from_millis(200);

/// The server sends each message once, and drops it if the connection cannot take it. So a
/// listener is registered again after this time, which also returns the promise's state.
const REFRESH: Duration = Duration::from_secs(5);

/// How many listeners are registered at the same time after a reconnect.
const REGISTER_AT_ONCE: usize = 16;

/// All waits of this process. Clones share them.
#[derive(Clone)]
pub struct Waiters {
    client: Client,
    settlements: Settlements,
    /// Where the server sends its messages; none until the message stream is up.
    address: watch::Sender<Option<Address>>,
    /// What registers all listeners again after the last reconnect.
    registering: Arc<Mutex<Option<AbortHandle>>>,
}

impl Waiters {
    /// Nobody waits yet. Pass a clone to the message stream as its listener.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            settlements: Settlements::default(),
            address: watch::Sender::new(None),
            registering: Arc::default(),
        }
    }

    /// How many promises are waited for.
    pub fn count(&self) -> usize {
        self.settlements.count()
    }

    /// Waits until the promise `id` is settled. None: the server does not know it any more.
    /// Dropping the future ends the wait and leaves nothing behind.
    pub async fn settlement(&self, id: &str) -> Option<Promise<'static>> {
        let mut wait = self.settlements.wait(id);
        let register = async {
            loop {
                let pause = match self.register(id).await {
                    Ok(()) => REFRESH,
                    Err(client::Error::Refused { status: 404, .. }) => return,
                    Err(error) => {
                        tracing::debug!(%error, promise = id, "registering a listener failed");
                        RETRY
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            promise = wait.settled() => Some(promise),
            () = register => None,
        }
    }

    /// Registers a listener for the promise `id`. If it is settled already, the wait ends here.
    async fn register(&self, id: &str) -> Result<(), client::Error> {
        let mut address = self.address.subscribe();
        // It cannot fail: `self` holds the sender.
        let address = address.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
        let Some(address) = address else { return Ok(()) };
        self.settlements.settled(&self.client.listen(id, &address).await?);
        Ok(())
    }

    /// A new connection has a new address: registers all listeners again.
    async fn register_all(self) {
        let register = |id: String| {
            let waiters = &self;
            async move {
                if let Err(error) = waiters.register(&id).await {
                    tracing::warn!(%error, promise = id, "re-registering a listener failed");
                }
            }
        };
        futures_util::stream::iter(self.settlements.ids())
            .for_each_concurrent(REGISTER_AT_ONCE, register)
            .await;
    }
}

impl Listener for Waiters {
    fn connected(&self, connection: &str) {
        self.address.send_replace(Some(Address::only(GROUP, connection)));
        let registering = tokio::spawn(self.clone().register_all()).abort_handle();
        let mut last = self.registering.lock().expect("no holder of this lock panics");
        // This one registers what the last one has left, too.
        if let Some(last) = last.replace(registering) {
            last.abort();
        }
    }

    fn message(&self, message: Message) {
        if let MessageBody::Unblock(promise) = message.body() {
            self.settlements.settled(promise);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::Poll,
    };

    use serde_json::{Value, json};
    use wire::{
        Answer, Exchange, ExchangeError, PromiseState, Request,
        scripted::{Reply, Scripted},
    };

    use super::*;

    /// A server on which the promise `x` is in this state.
    fn server(state: &'static str) -> Scripted {
        Scripted::new(move |_, _| Reply::Answer(200, json!({"promise": promise(state)})))
    }

    fn promise(state: &str) -> Value {
        json!({"id": "x", "state": state, "timeoutAt": 2, "createdAt": 1})
    }

    fn waiters(server: &Scripted) -> Waiters {
        Waiters::new(Client::new(Arc::new(server.clone())))
    }

    /// A new connection. What was waited for has been registered again afterwards.
    async fn connect(waiters: &Waiters, connection: &str) {
        waiters.connected(connection);
        tokio::task::yield_now().await;
    }

    /// Where the server was told to send its messages, in the order of the requests.
    fn addresses(server: &Scripted) -> Vec<String> {
        let address = |(_, data): (String, Value)| data["address"].as_str().unwrap().to_owned();
        server.seen().into_iter().map(address).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_ends_the_wait_and_nothing_is_left() {
        let server = server("pending");
        let waiters = waiters(&server);
        let mut wait = pin!(waiters.settlement("x"));
        assert_eq!(futures_util::poll!(&mut wait), Poll::Pending);
        assert_eq!(addresses(&server), [""; 0], "there is no connection yet");

        connect(&waiters, "one").await;
        let resolved = json!({"kind": "unblock", "data": {"promise": promise("resolved")}});
        waiters.message(Message::parse(resolved.to_string()).unwrap());
        assert_eq!(wait.await.unwrap().state, PromiseState::Resolved);
        assert!(waiters.settlements.ids().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_promise_that_is_settled_already_ends_the_wait() {
        let server = server("rejected");
        let waiters = waiters(&server);
        connect(&waiters, "one").await;
        assert_eq!(waiters.settlement("x").await.unwrap().state, PromiseState::Rejected);
        assert_eq!(addresses(&server), ["poll://uni@gateway/one"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_promise_that_the_server_has_forgotten_ends_the_wait() {
        let server = Scripted::new(|_, _| Reply::Answer(404, json!("Awaited promise not found")));
        let waiters = waiters(&server);
        connect(&waiters, "one").await;
        assert_eq!(waiters.settlement("x").await, None);
        assert_eq!(addresses(&server).len(), 1, "it is not asked for again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_registers_again_what_is_waited_for() {
        let server = server("pending");
        let waiters = waiters(&server);
        connect(&waiters, "one").await;
        let wait = tokio::time::timeout(REFRESH / 2, waiters.settlement("x"));
        let reconnect = async {
            tokio::time::sleep(REFRESH / 4).await;
            connect(&waiters, "two").await;
        };
        assert!(futures_util::future::join(wait, reconnect).await.0.is_err());
        assert_eq!(addresses(&server), ["poll://uni@gateway/one", "poll://uni@gateway/two"]);

        assert!(waiters.settlements.ids().is_empty(), "a wait that was dropped is forgotten");
        connect(&waiters, "three").await;
        tokio::time::sleep(REFRESH).await;
        assert_eq!(addresses(&server).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_is_registered_again_in_case_a_message_was_lost() {
        let mut requests = 0;
        let server = Scripted::new(move |_, _| {
            requests += 1;
            let state = if requests < 3 { "pending" } else { "resolved" };
            Reply::Answer(200, json!({"promise": promise(state)}))
        });
        let waiters = waiters(&server);
        connect(&waiters, "one").await;
        let start = tokio::time::Instant::now();
        assert_eq!(waiters.settlement("x").await.unwrap().state, PromiseState::Resolved);
        assert_eq!(start.elapsed(), 2 * REFRESH);
    }

    /// A server that answers nothing, and how many requests it has.
    #[derive(Clone, Default)]
    struct Silent(Arc<AtomicUsize>);

    struct Open(Arc<AtomicUsize>);

    impl Drop for Open {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[async_trait::async_trait]
    impl Exchange for Silent {
        async fn exchange(&self, _: Request) -> Result<Answer, ExchangeError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let _open = Open(self.0.clone());
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reconnects_in_a_row_cost_what_the_last_one_does() {
        let server = Silent::default();
        let waiters = Waiters::new(Client::new(Arc::new(server.clone())));
        let waits = (0..100).map(|n| {
            let waiters = waiters.clone();
            async move { waiters.settlement(&n.to_string()).await }
        });
        let waits = tokio::spawn(futures_util::future::join_all(waits));
        tokio::task::yield_now().await;
        for n in 0..50 {
            connect(&waiters, &n.to_string()).await;
        }
        tokio::task::yield_now().await;
        let requests = server.0.load(Ordering::Relaxed);
        // Each wait has one, and what registers all again has some.
        assert!((100..=100 + REGISTER_AT_ONCE).contains(&requests), "{requests}");
        waits.abort();
    }
}
