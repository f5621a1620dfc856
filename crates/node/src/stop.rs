//! When a process is to stop.

use std::{io::Read, time::Duration};

use resonate_otel::Telemetry;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{error::Error, launched::launcher};

/// Exit code of a process that a second signal ended during its drain.
const EXIT_INTERRUPTED: i32 = 130;

/// How long the spans of a process may take at a second signal.
const LAST_SPANS: Duration = Duration::from_millis(500);

/// What to do at a second signal: export the spans that are left, if that is quick.
pub fn last_spans(telemetry: &Telemetry) -> impl Fn() + Send + 'static + use<> {
    let flush = telemetry.last_flush();
    move || flush(LAST_SPANS)
}

/// Tells when this process is to stop: at SIGTERM, SIGINT, or the end of its launcher.
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Starts to listen. A second signal ends the process at once, after `last`.
    ///
    /// # Errors
    /// The system does not let this process listen for signals.
    pub fn listen(instance: &str, last: impl Fn() + Send + 'static) -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(|error| Error::Other(error.to_string()));
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let (stop, stopped) = watch::channel(false);
        let instance = instance.to_owned();
        let signalled = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if signalled.send_replace(true) {
                    tracing::warn!(instance, "second signal: exiting now");
                    last();
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a second signal skips the drain"
                    )]
                    std::process::exit(EXIT_INTERRUPTED);
                }
            }
        });
        if let Some(mut socket) = launcher() {
            // In a thread, because the socket is a blocking one. It ends with the process.
            std::thread::spawn(move || {
                let _ = socket.read(&mut [0]);
                stop.send_replace(true);
            });
        }
        Ok(Self(stopped))
    }

    /// Waits until the process is to stop.
    pub async fn requested(&mut self) {
        // The sender lives as long as the process.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
