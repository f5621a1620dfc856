//! service-e: `quz` works if asked to, starts `cog` on service-f and does not wait for it.

use flows::Options;
use node::prelude::*;

/// The second function of the detached chain.
#[resonate_sdk::function]
async fn quz(ctx: &Context, n: i64, options: Options) -> Result<()> {
    options.work(ctx).await?;
    ctx.detached("cog", (n + 1, options)).target("service-f").spawn()?;
    Ok(())
}

/// The group `service-e` and its function.
pub fn service() -> Service {
    flows::service("service-e").function(quz)
}
