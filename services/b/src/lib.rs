//! service-b: `bar` works if asked to, awaits `baz` on service-c and adds 1 to its result.

use flows::Options;
use node::prelude::*;

/// The second function of the await chain.
#[resonate_sdk::function]
async fn bar(ctx: &Context, options: Options) -> Result<i64> {
    // Each completed step is stored: after a crash, another process resumes with the next one.
    options.work(ctx).await?;
    let n: i64 = ctx.rpc("baz", (options,)).target("service-c").await?;
    Ok(n + 1)
}

/// The group `service-b` and its function.
pub fn service() -> Service {
    flows::service("service-b").function(bar)
}
