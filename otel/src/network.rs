//! Traces for an application that brings its own SDK network, such as `HttpNetwork`.

use std::sync::Arc;

use resonate_sdk::{
    error::{Error, Result},
    prelude::Network,
};
use wire::{Answer, Exchange, ExchangeError, Message, Request};

use crate::{Telemetry, Traced};

/// A network that passes everything on to another one, and traces it: see [`Traced`].
pub struct TracedNetwork {
    inner: Arc<dyn Network>,
    traced: Traced,
}

impl TracedNetwork {
    /// Wraps `inner`. A network that repeats requests belongs inside: repeats then carry the same
    /// ids.
    pub fn new(inner: Arc<dyn Network>, telemetry: &Telemetry) -> Self {
        let traced = Traced::new(Arc::new(Inner(inner.clone())), telemetry);
        Self { inner, traced }
    }

    /// The layer that traces: steps tell it their names.
    pub fn traced(&self) -> &Traced {
        &self.traced
    }
}

/// Sends a request of the SDK, which is text, and gives its answer as text.
///
/// # Errors
/// [`Error::NetworkError`] if there is no answer, whatever the reason.
pub async fn send_text(next: &dyn Exchange, text: String) -> Result<String> {
    let request = Request::parse(text)?;
    let answer = next.exchange(request).await;
    answer.map(Answer::into_text).map_err(|error| Error::NetworkError(error.to_string()))
}

/// The SDK's network as the server below the tracing layer.
struct Inner(Arc<dyn Network>);

#[async_trait::async_trait]
impl Exchange for Inner {
    async fn exchange(&self, request: Request) -> std::result::Result<Answer, ExchangeError> {
        let unreachable = |reason: String| ExchangeError::Unreachable {
            server: "the configured address".to_owned(),
            reason,
        };
        let text = self.0.send(request.text().into_owned()).await;
        let text = text.map_err(|error| unreachable(error.to_string()))?;
        Answer::parse(&request, text).map_err(|error| unreachable(error.to_string()))
    }
}

#[async_trait::async_trait]
impl Network for TracedNetwork {
    fn pid(&self) -> &str {
        self.inner.pid()
    }

    fn group(&self) -> &str {
        self.inner.group()
    }

    fn unicast(&self) -> &str {
        self.inner.unicast()
    }

    fn anycast(&self) -> &str {
        self.inner.anycast()
    }

    async fn start(&self) -> Result<()> {
        self.inner.start().await
    }

    async fn stop(&self) -> Result<()> {
        self.inner.stop().await
    }

    async fn send(&self, text: String) -> Result<String> {
        send_text(&self.traced, text).await
    }

    fn recv(&self, callback: Box<dyn Fn(String) + Send + Sync>) {
        let traced = self.traced.clone();
        self.inner.recv(Box::new(move |text| match Message::parse(text) {
            Ok(message) => {
                traced.observe(&message);
                callback(message.into_text());
            }
            Err(error) => {
                tracing::warn!(%error, "unreadable message from the Resonate Server");
            }
        }));
    }

    fn target_resolver(&self, target: &str) -> String {
        self.inner.target_resolver(target)
    }
}
