//! The life of one process of a service.

use resonate_otel::{Identity, Telemetry};

use crate::{
    Service, Worker,
    config::ServiceSettings,
    connections::{self, Limits},
    error::Error,
    health, life, logging, runtime, server,
    stop::{self, Stop},
    watchdog,
};

/// Connections to the health checks at once: far more than a machine's checks need.
const HEALTH_CONNECTIONS: usize = 64;

/// Runs one process of `service` until it is told to stop.
pub(crate) fn run(
    service: Service,
    settings: &ServiceSettings,
    unknown: &[String],
) -> Result<(), Error> {
    let config = &settings.node;
    config.check()?;
    let instance = config.instance(service.group())?;
    let telemetry = logging::telemetry(
        Identity {
            name: service.group().to_owned(),
            instance: instance.clone(),
            namespace: service.get_namespace().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        &config.log,
    )?;
    logging::report_unknown(unknown);
    let life = serve(service, settings, &instance, &telemetry);
    runtime::block_on(config.worker_threads, life)
}

async fn serve(
    service: Service,
    settings: &ServiceSettings,
    instance: &str,
    telemetry: &Telemetry,
) -> Result<(), Error> {
    let config = &settings.node;
    let mut stop = Stop::listen(instance, stop::last_spans(telemetry))?;
    // A heartbeat is due twice in a lease.
    watchdog::watch(config.lease / 2, || {
        tracing::warn!(
            "the runtime is blocked and sends no heartbeats; \
             run blocking code with tokio::task::spawn_blocking"
        );
    })
    .map_err(|error| Error::Other(format!("cannot start a thread: {error}")))?;
    let listener = runtime::listen(settings.health_listen, "NODE_HEALTH_LISTEN").await?;
    let address = listener.local_addr().map_err(|error| Error::Other(error.to_string()))?;

    let transport = server::http(config)?;
    let worker = Worker::start(&service, settings, instance, transport, telemetry)?;
    let routes = health::routes(worker.up());
    let limits = Limits::new(HEALTH_CONNECTIONS);
    let server = connections::serve(listener, routes, limits, std::future::pending());
    let server = tokio::spawn(server);
    tokio::select! {
        () = stop.requested() => {}
        () = health::report_ready(worker.up(), address, instance, config.greeting.as_deref()) => {}
    }
    stop.requested().await;
    life::stopping(instance, Some(worker.held()));
    worker.stop().await;
    server.abort();
    life::stopped(instance);
    Ok(())
}
