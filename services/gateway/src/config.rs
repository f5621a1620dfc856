//! The gateway's own settings, with the prefix `GATEWAY_`.

use std::{net::SocketAddr, time::Duration};

use node::config::{Error, Settings, url};

/// What the gateway can be told beside the settings of every process.
#[derive(Debug, Clone)]
pub struct Config {
    /// `GATEWAY_LISTEN`: where it answers HTTP.
    pub listen: SocketAddr,
    /// `GATEWAY_AWAIT`: how long a request waits for the flow's result before it is answered 202.
    pub wait: Duration,
    /// `GATEWAY_FLOW_TIMEOUT`: how long a flow may take before it is rejected as timed out.
    pub flow_timeout: Duration,
    /// `GATEWAY_JAEGER_URL`: Jaeger's page as browsers reach it, for `trace_url` in answers.
    pub jaeger_url: Option<String>,
    /// `GATEWAY_GREETING`: what to print when the gateway is ready, such as what to try first.
    pub greeting: Option<String>,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn load() -> Result<Self, Error> {
        const MS: Duration = Duration::from_millis(1);
        const S: Duration = Duration::from_secs(1);
        let from = Settings::load("GATEWAY")?;
        Ok(Self {
            listen: from.address("listen", SocketAddr::from(([127, 0, 0, 1], 5000)))?,
            wait: from.duration("await", 60 * S, MS, 3_600 * S)?,
            flow_timeout: from.duration("flow_timeout", 86_400 * S, 100 * MS, 365 * 86_400 * S)?,
            jaeger_url: from.get("jaeger_url", None, |text| url(text).map(Some))?,
            greeting: from.get("greeting", None, |text| Ok(Some(text.to_owned())))?,
        })
    }
}
