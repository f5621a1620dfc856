//! The way of a process to the Resonate Server: layers with one interface, `wire::Exchange`.
//!
//! | layer, from the top | what it knows |
//! | --- | --- |
//! | `adapter` | the SDK's `Network`: requests and answers as text |
//! | `runs` | leases, fencing, drain, poison: what may be sent, and until when |
//! | [`resonate_otel::Traced`] | contexts and spans |
//! | `repeat` | time-outs, backoff, deadlines: which answers are answers |
//! | `http` | one request and its answer; `stream`: the messages of the server |
//!
//! A process that only creates and awaits promises uses the same layers without the upper two:
//! [`client`].

mod adapter;
mod calls;
mod http;
mod leases;
mod pid;
mod poison;
mod repeat;
mod runs;
mod settlements;
mod stream;

use std::{sync::Arc, time::Duration};

use resonate_otel::{Telemetry, Traced};

pub(crate) use self::{adapter::SdkNetwork, leases::Leases, runs::Runs};
use self::{http::Http, repeat::Repeat};
pub use self::{
    pid::instance_of,
    settlements::{Settlements, Wait},
    stream::{ConnectionId, Listener, MessageStream},
};
use crate::{
    config::{Config, ServiceSettings},
    error::Error,
};

/// How long a client's request is repeated: somebody waits for its answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(3);

/// The layers of a process that runs functions.
pub(crate) struct Stack {
    pub network: Arc<SdkNetwork>,
    pub runs: Arc<Runs>,
    pub traced: Traced,
    pub stream: Arc<MessageStream>,
}

/// The layers of one process of `group` that runs `functions`. The message stream is not open yet.
///
/// # Errors
/// See [`client`].
pub(crate) fn stack(
    settings: &ServiceSettings,
    group: &str,
    instance: &str,
    functions: Vec<&'static str>,
    telemetry: &Telemetry,
) -> Result<Stack, Error> {
    let config = &settings.node;
    let id = ConnectionId::Instance(instance.to_owned());
    let (traced, stream) = layers(config, group, id, config.lease, telemetry)?;
    let next = Arc::new(traced.clone());
    let runs = Arc::new(Runs::new(next, settings, group, instance, functions));
    let stream = Arc::new(stream);
    let network = Arc::new(SdkNetwork::new(runs.clone(), stream.clone(), group, instance));
    Ok(Stack { network, runs, traced, stream })
}

/// The layers of a process of `group` that only creates and awaits promises, and its message
/// stream, which is not open yet. Their requests are answered, or fail, within three seconds.
///
/// # Errors
/// The server's address needs TLS, and this machine has no usable CA certificates.
pub fn client(
    config: &Config,
    group: &str,
    id: ConnectionId,
    telemetry: &Telemetry,
) -> Result<(Traced, MessageStream), Error> {
    layers(config, group, id, CLIENT_PATIENCE, telemetry)
}

/// `patience`: how long a request that belongs to no lease is repeated.
fn layers(
    config: &Config,
    group: &str,
    id: ConnectionId,
    patience: Duration,
    telemetry: &Telemetry,
) -> Result<(Traced, MessageStream), Error> {
    let http = Http::new(config)?;
    let repeat = Repeat::new(Arc::new(http.clone()), http.server(), config, patience);
    let traced = Traced::new(Arc::new(repeat), telemetry);
    let stream = MessageStream::new(http, traced.clone(), group, id);
    Ok((traced, stream))
}
