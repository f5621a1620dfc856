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
mod http;
mod leases;
mod poison;
mod repeat;
mod runs;
mod stream;

use std::{sync::Arc, time::Duration};

use resonate_otel::{Telemetry, Traced};

pub use self::stream::{ConnectionId, Listener, MessageStream};
pub(crate) use self::{adapter::SdkNetwork, leases::Leases, runs::Runs};
use self::{http::Http, repeat::Repeat, runs::HandOver};
use crate::{
    Service,
    config::{Config, ServiceSettings},
    error::Error,
    memory,
};

/// How long a client's request is repeated: somebody waits for its answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(3);

/// What a run takes at most. 426 runs that were taken over at once were too many for 64 MiB.
const BYTES_OF_A_RUN: usize = 160 << 10;

/// The layers of a process that runs functions.
pub(crate) struct Stack {
    pub network: Arc<SdkNetwork>,
    pub runs: Arc<Runs>,
    pub traced: Traced,
    pub stream: Arc<MessageStream>,
}

/// The layers of one process of `service`. The message stream is not open yet.
///
/// # Errors
/// See [`client`].
pub(crate) fn stack(
    settings: &ServiceSettings,
    service: &Service,
    instance: &str,
    telemetry: &Telemetry,
) -> Result<Stack, Error> {
    let (config, group) = (&settings.node, service.group());
    let max_runs = settings.max_runs.unwrap_or_else(|| memory::bound(BYTES_OF_A_RUN));
    let id = ConnectionId::Instance(instance.to_owned());
    let (repeat, traced, stream) = layers(config, group, id, config.lease, telemetry)?;
    let hand_over = service.get_hands_over().then(|| HandOver::new(repeat, group, instance));
    let (next, functions) = (Arc::new(traced.clone()), service.functions());
    let runs = Runs::new(next, config, max_runs, group, instance, functions, hand_over);
    let (runs, stream) = (Arc::new(runs), Arc::new(stream));
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
    let (_, traced, stream) = layers(config, group, id, CLIENT_PATIENCE, telemetry)?;
    Ok((traced, stream))
}

/// `patience`: how long a request that belongs to no lease is repeated.
fn layers(
    config: &Config,
    group: &str,
    id: ConnectionId,
    patience: Duration,
    telemetry: &Telemetry,
) -> Result<(Arc<Repeat>, Traced, MessageStream), Error> {
    let http = Http::new(config)?;
    let repeat = Arc::new(Repeat::new(Arc::new(http.clone()), http.server(), config, patience));
    let traced = Traced::new(repeat.clone(), telemetry);
    let stream = MessageStream::new(http, traced.clone(), group, id);
    Ok((repeat, traced, stream))
}
