//! service-b: `bar` works if it is asked to, awaits `baz` on service-c and adds 1 to its answer.

use node::prelude::*;

/// The second link of the await chain.
#[resonate_sdk::function]
async fn bar(ctx: &Context, options: Options) -> Result<i64> {
    // Each step that is done is remembered: after a crash the next process does the rest.
    options.work(ctx).await?;
    let n: i64 = ctx.rpc("baz", (options,)).target("service-c").await?;
    Ok(n + 1)
}

/// The group `service-b` and its function.
pub fn service() -> Service {
    Service::new("service-b").function(bar)
}
