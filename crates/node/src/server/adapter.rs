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
            anycast: Address::any(group).to_string(),
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
        let handed_over = match message.body() {
            // Not for the SDK, which would keep the promise for ever: only runs wait for it.
            MessageBody::Unblock(promise) => return self.runs.settlements().settled(promise),
            MessageBody::Execute(task) => self.runs.handed_over(&task.id),
        };
        // Another process has passed this call on. The messenger itself is left to time out.
        let message = handed_over.map(|id| Message::execute(id, 0)).unwrap_or(message);
        if let Some(callback) = self.callback.get() {
            callback(message.into_text());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use clap::{Args, FromArgMatches};
    use resonate_otel::Metrics;
    use serde_json::json;
    use wire::scripted::{Reply, Scripted};

    use super::*;
    use crate::{config::ServiceSettings, server::HandOver};

    /// What the SDK of a process of `group` is told when the server says that `task` waits.
    fn told(group: &str, instance: &str, hands_over: bool, task: &str) -> String {
        let command = ServiceSettings::augment_args(clap::Command::new("test"));
        let matches = command.get_matches_from(["test"]);
        let settings = ServiceSettings::from_arg_matches(&matches).unwrap();
        let server = Arc::new(Scripted::new(|_, _| Reply::Answer(200, json!({}))));
        let hand_over = hands_over.then(|| HandOver::new(server.clone(), group, instance));
        let metrics = Metrics::default();
        let runs = Runs::new(server, &settings, group, instance, Vec::new(), hand_over, metrics);
        let told = Arc::new(Mutex::new(String::new()));
        let callback: Arc<OnceLock<Callback>> = Arc::default();
        let tell = told.clone();
        let _ = callback.set(Box::new(move |text| *tell.lock().unwrap() = text));
        Inbox { runs: Arc::new(runs), callback }.message(Message::execute(task, 0));
        let told = told.lock().unwrap();
        told.clone()
    }

    #[test]
    fn the_first_process_takes_what_another_one_hands_over_and_never_the_messenger() {
        let same = |task| Message::execute(task, 0).into_text();
        assert_eq!(told("g", "g", true, "x.0.hand-over"), same("x.0"));
        assert_eq!(told("g", "g", true, "x.0"), same("x.0"));
        for (instance, hands_over) in [("g-replica", true), ("g", false)] {
            assert_eq!(told("g", instance, hands_over, "x.0.hand-over"), same("x.0.hand-over"));
        }
    }
}
