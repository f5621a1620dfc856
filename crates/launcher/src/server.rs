//! The embedded Resonate server as a process of its own: `async-rpc server`.

use embedded_server::Settings;
use node::{error::Error, launched, logging, runtime, stop::Stop};

/// Runs the server until it is told to stop. `unknown`: settings to warn about.
///
/// # Errors
/// The address is taken, or not one of this machine.
pub fn run(settings: Settings, unknown: &[String]) -> Result<(), Error> {
    settings.start_logging();
    logging::report_unknown(unknown);
    runtime::block_on(1, async move {
        let other = |error: std::io::Error| Error::Other(error.to_string());
        let mut stop = Stop::listen("resonate", || {})?;
        let listener = runtime::listen(settings.listen, "EMBEDDED_SERVER_LISTEN").await?;
        if !launched::is_launched() {
            embedded_server::warn_of_its_memory();
        }
        launched::tell_launcher(listener.local_addr().map_err(other)?);
        let stopped = async move { stop.requested().await };
        embedded_server::run(listener, settings.into(), stopped).await.map_err(other)
    })
}
