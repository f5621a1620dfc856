//! The life of one process of a service.

use resonate_otel::{Identity, Telemetry};
use resonate_sdk::prelude::{Resonate, ResonateConfig};

use crate::{
    Service,
    config::ServiceSettings,
    error::Error,
    health, logging, runtime,
    server::{self, Stack},
    step::Runtime,
    stop::Stop,
    watchdog,
};

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
            namespace: service.get_namespace(),
            version: env!("CARGO_PKG_VERSION"),
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
    let mut stop = Stop::listen(instance)?;
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

    let Stack { network, runs, traced, stream } =
        server::stack(settings, &service, instance, telemetry)?;
    let resonate = Resonate::new(ResonateConfig {
        network: Some(network.clone()),
        ttl: Some(config.lease.as_millis() as u64),
        ..ResonateConfig::default()
    })
    .with_dependency(Runtime::new(config, instance, runs.leases().clone(), traced));
    service.register(&resonate).map_err(|error| Error::Other(error.to_string()))?;
    network.open();

    let routes = health::routes(stream.up());
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    tokio::select! {
        () = stop.requested() => {}
        () = health::report_ready(stream.up(), address, instance) => {}
    }
    stop.requested().await;
    tracing::info!(instance, held = runs.leases().all().len(), "stopping");
    stream.close();
    runs.drain().await;
    server.abort();
    tracing::info!(instance, "stopped");
    Ok(())
}
