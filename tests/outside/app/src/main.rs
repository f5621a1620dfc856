//! A shop on the SDK's own network: its traces are whole, without the runtime of this project.

use std::{env, sync::Arc};

use resonate_otel::{Identity, Telemetry, TracedFunction, TracedNetwork, TracedStep, WithTraceIds};
use resonate_sdk::prelude::*;
use tracing_subscriber::{Registry, filter::Targets, fmt, layer::SubscriberExt};

#[resonate_sdk::function]
async fn charge(cents: i64) -> Result<i64> {
    let span = tracing::info_span!("POST /charges", otel.kind = "client");
    span.in_scope(|| tracing::info!("charged"));
    Ok(cents)
}

#[resonate_sdk::function]
async fn pack(items: i64) -> Result<i64> {
    Ok(items)
}

#[resonate_sdk::function]
async fn order(ctx: &Context, cents: i64) -> Result<i64> {
    let paid: i64 = ctx.run(TracedStep::new("charge the card", charge), cents).await?;
    let packed: i64 = ctx.rpc("pack", 2).await?;
    Ok(paid + packed)
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let telemetry = Telemetry::builder(Identity {
        name: "shop".to_owned(),
        instance: format!("shop-{}", std::process::id()),
        namespace: String::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
    .endpoint(env::var("COLLECTOR")?)
    .start()?;
    let lines = fmt::layer().json().flatten_event(true).map_event_format(WithTraceIds::new);
    let spans = telemetry.layer(Targets::new().with_default(tracing::Level::INFO), false);
    tracing::subscriber::set_global_default(Registry::default().with(lines).with(spans))?;

    let network = HttpNetwork::new(env::var("SERVER")?, None, Some("shop".to_owned()), None);
    let traced = Arc::new(TracedNetwork::new(Arc::new(network), &telemetry));
    let config = ResonateConfig { network: Some(traced.clone()), ..Default::default() };
    let resonate = Resonate::new(config).with_dependency(traced.traced().clone());
    resonate.register(TracedFunction::new(order))?;
    resonate.register(TracedFunction::new(pack))?;

    let answer: i64 = resonate.rpc("order-1", "order", 5).await?;
    println!("answer {answer}");
    resonate.stop().await?;
    // It blocks until the queued spans are sent.
    tokio::task::spawn_blocking(move || telemetry.shutdown()).await?;
    Ok(())
}
