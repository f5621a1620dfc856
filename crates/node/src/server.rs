//! The way of a process to the Resonate Server: layers with one interface, `wire::Exchange`.
//!
//! | layer, from the top | what it knows |
//! | --- | --- |
//! | `adapter` | the SDK's `Network`: requests and answers as text |
//! | `runs` | leases, fencing, drain, poison: what may be sent, and until when |
//! | [`resonate_otel::Traced`] | contexts and spans |
//! | `repeat` | time-outs, backoff, deadlines: which answers are answers |
//! | `http` | one request and its answer; `stream`, `quickack`: messages; `token`, `tls`: credentials |
//!
//! A process that only creates and awaits promises uses the same layers without the upper two:
//! [`client`].

mod adapter;
mod calls;
mod http;
mod leases;
mod pid;
mod poison;
mod quickack;
mod repeat;
mod runs;
mod settlements;
mod stream;
mod tls;
mod token;
mod transport;

use std::{sync::Arc, time::Duration};

use resonate_otel::{Telemetry, Traced};
use settings::SettingError;

pub(crate) use self::{adapter::SdkNetwork, leases::Leases, runs::Runs};
use self::{http::Http, repeat::Repeat, runs::HandOver, token::Token};
pub use self::{
    pid::{Holder, instance_of},
    settlements::{Settlements, Wait},
    stream::{ConnectionId, Listener, MessageStream},
    transport::{Chunks, Transport},
};
use crate::{
    Service,
    config::{Config, ServiceSettings},
    crash,
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

/// Checks the files that the settings name: the token, and CA certificates.
///
/// # Errors
/// One of them cannot be used.
pub(crate) fn check(config: &Config) -> Result<(), SettingError> {
    Token::of(config)?;
    config.server_ca_file.as_deref().map_or(Ok(()), |path| tls::authorities(path).map(drop))
}

/// The bottom layer: HTTP.
///
/// # Errors
/// The server's address needs TLS, and there are no usable CA certificates; or the token cannot be used.
pub fn http(config: &Config) -> Result<Arc<dyn Transport>, Error> {
    Ok(Arc::new(Http::new(config)?))
}

/// The layers of one process of `service`. The message stream is not open yet.
pub(crate) fn stack(
    settings: &ServiceSettings,
    service: &Service,
    instance: &str,
    transport: Arc<dyn Transport>,
    telemetry: &Telemetry,
) -> Stack {
    let (config, group) = (&settings.node, service.group());
    let id = ConnectionId::Instance(instance.to_owned());
    let (repeat, traced, stream) = layers(config, group, id, config.lease, transport, telemetry);
    let metrics = telemetry.metrics();
    metrics.runs_only(group, service.functions());
    let hand_over = service.get_hands_over().then(|| HandOver::new(repeat, group, instance));
    let next = Arc::new(traced.clone());
    let button = config.crash_button.then_some(crash::FUNCTION);
    let functions = service.functions().into_iter().chain(button).collect();
    let runs = Runs::new(next, settings, group, instance, functions, hand_over, metrics);
    let runs = Arc::new(runs);
    let stream = Arc::new(stream);
    let network = Arc::new(SdkNetwork::new(runs.clone(), stream.clone(), group, instance));
    Stack { network, runs, traced, stream }
}

/// The layers of a process of `group` that only creates and awaits promises, and its message
/// stream, which is not open yet. Their requests are answered, or fail, within three seconds.
pub fn client(
    config: &Config,
    group: &str,
    id: ConnectionId,
    transport: Arc<dyn Transport>,
    telemetry: &Telemetry,
) -> (Traced, MessageStream) {
    let (_, traced, stream) = layers(config, group, id, CLIENT_PATIENCE, transport, telemetry);
    (traced, stream)
}

/// `patience`: how long a request that belongs to no lease is repeated.
fn layers(
    config: &Config,
    group: &str,
    id: ConnectionId,
    patience: Duration,
    transport: Arc<dyn Transport>,
    telemetry: &Telemetry,
) -> (Arc<Repeat>, Traced, MessageStream) {
    let server = transport.server();
    let requests = telemetry.metrics().client_requests(server);
    let repeat = Arc::new(Repeat::new(transport.clone(), server, config, patience, requests));
    let traced = Traced::new(repeat.clone(), telemetry);
    let stream = MessageStream::new(transport.clone(), traced.clone(), group, id);
    let up = stream.up();
    telemetry.metrics().message_stream(move || *up.borrow());
    (repeat, traced, stream)
}
