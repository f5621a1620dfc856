//! A process of a service at work, without what belongs to the operating system.

use std::sync::Arc;

use resonate_otel::Telemetry;
use resonate_sdk::prelude::{Resonate, ResonateConfig};
use tokio::sync::watch;

use crate::{
    Service,
    config::ServiceSettings,
    crash,
    error::Error,
    server::{self, MessageStream, Runs, Stack, Transport},
    step::Runtime,
};

/// A process of a service: its functions, on the layers to the Resonate Server. Signals, health
/// checks and the Tokio runtime are its caller's.
pub struct Worker {
    runs: Arc<Runs>,
    stream: Arc<MessageStream>,
}

impl Worker {
    /// Starts to take work. Call it within a Tokio runtime.
    ///
    /// # Errors
    /// Two functions of the service have the same name.
    pub fn start(
        service: &Service,
        settings: &ServiceSettings,
        instance: &str,
        transport: Arc<dyn Transport>,
        telemetry: &Telemetry,
    ) -> Result<Self, Error> {
        let config = &settings.node;
        let Stack { network, runs, traced, stream } =
            server::stack(settings, service, instance, transport, telemetry);
        let resonate = Resonate::new(ResonateConfig {
            network: Some(network.clone()),
            ttl: Some(config.lease.as_millis() as u64),
            ..ResonateConfig::default()
        })
        // Steps look for it.
        .with_dependency(traced.clone())
        .with_dependency(Runtime::new(config, instance, runs.leases().clone(), traced));
        let registered = service.register(&resonate).and_then(|()| match config.crash_button {
            true => resonate.register(crash::crash),
            false => Ok(()),
        });
        registered.map_err(|error| Error::Other(error.to_string()))?;
        network.open();
        Ok(Self { runs, stream })
    }

    /// Whether the message stream is up, now and whenever that changes.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.stream.up()
    }

    /// How many runs this process holds.
    pub fn held(&self) -> usize {
        self.runs.leases().all().len()
    }

    /// Takes no more work, and ends or releases what it holds within `NODE_DRAIN`.
    pub async fn stop(&self) {
        self.stream.close();
        self.runs.drain().await;
    }
}
