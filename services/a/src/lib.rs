//! service-a: `foo` awaits `bar` on service-b and adds 1 to its answer.

use node::prelude::*;

/// The first link of the await chain.
#[resonate_sdk::function]
async fn foo(ctx: &Context, options: Options) -> Result<i64> {
    // The durable promise of this call survives both processes. While it is pending, no process
    // holds `foo`; when it is settled, any process of service-a goes on from here. Arguments are a
    // tuple, even a single one: so workers in other languages can read them.
    let n: i64 = ctx.rpc("bar", (options,)).target(&options.target("service-b")).await?;
    Ok(n + 1)
}

/// The group `service-a` and its function.
pub fn service() -> Service {
    Service::new("service-a").function(foo)
}
