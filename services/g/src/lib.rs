//! service-g: `zim` calls `rax` on service-h and `dop` on service-i at the same time.

use flows::Options;
use node::prelude::*;

/// The fan-out workflow: calls two functions and adds their results to its argument.
#[resonate_sdk::function]
async fn zim(ctx: &Context, n: i64, options: Options) -> Result<i64> {
    options.work(ctx).await?;
    // Both calls are started before either is awaited, so they run at the same time.
    let rax = ctx.rpc::<i64>("rax", (options,)).target("service-h").spawn()?;
    let dop = ctx.rpc::<i64>("dop", (options,)).target("service-i").spawn()?;
    Ok(n + rax.await? + dop.await?)
}

/// The group `service-g` and its function.
pub fn service() -> Service {
    flows::service("service-g").function(zim)
}
