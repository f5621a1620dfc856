//! The SDK's `Network` on top of the layers: requests and answers as text.

use std::sync::{Arc, OnceLock};

use resonate_otel::send_text;
use resonate_sdk::{error::Result, prelude::Network};
use wire::{Address, Message, MessageBody};

use super::{Listener, MessageStream, Runs};

type Callback = Box<dyn Fn(String) + Send + Sync>;

/// The network that the SDK of a service uses.
pub(crate) struct SdkNetwork {
    runs: Arc<Runs>,
    stream: Arc<MessageStream>,
    group: String,
    unicast: String,
    anycast: String,
    callback: Arc<OnceLock<Callback>>,
}

impl SdkNetwork {
    pub fn new(runs: Arc<Runs>, stream: Arc<MessageStream>, group: &str, instance: &str) -> Self {
        Self {
            runs,
            stream,
            group: group.to_owned(),
            unicast: Address::only(group, instance).to_string(),
            anycast: Address::prefer(group, instance).to_string(),
            callback: Arc::default(),
        }
    }

    /// Opens the message stream: from now on the SDK gets messages.
    pub fn open(&self) {
        self.stream.open(Inbox { runs: self.runs.clone(), callback: self.callback.clone() });
    }
}

#[async_trait::async_trait]
impl Network for SdkNetwork {
    fn pid(&self) -> &str {
        self.runs.pid()
    }

    fn group(&self) -> &str {
        &self.group
    }

    fn unicast(&self) -> &str {
        &self.unicast
    }

    fn anycast(&self) -> &str {
        &self.anycast
    }

    /// Does nothing: the SDK starts before its functions are registered. [`SdkNetwork::open`] comes
    /// after that.
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        self.stream.close();
        Ok(())
    }

    async fn send(&self, text: String) -> Result<String> {
        send_text(&*self.runs, text).await
    }

    fn recv(&self, callback: Callback) {
        assert!(self.callback.set(callback).is_ok(), "the SDK subscribes once");
    }

    fn target_resolver(&self, target: &str) -> String {
        Address::any(target).to_string()
    }
}

/// Where the messages of a service go.
struct Inbox {
    runs: Arc<Runs>,
    callback: Arc<OnceLock<Callback>>,
}

impl Listener for Inbox {
    fn connected(&self, _: &str) {
        // Asking for a lost task costs one request, and a refusal does no harm.
        for (id, version) in self.runs.take_lost() {
            self.message(Message::execute(&id, version));
        }
    }

    fn message(&self, message: Message) {
        // The SDK would keep the promise for ever: only the runs of this process have asked for it.
        if let MessageBody::Unblock(promise) = message.body() {
            self.runs.settlements().settled(promise);
            return;
        }
        if let Some(callback) = self.callback.get() {
            callback(message.into_text());
        }
    }
}
