//! service-e: `quz` works if it is asked to, starts `cog` on service-f and does not wait for it.

use node::prelude::*;

/// The second link of the detached chain.
#[resonate_sdk::function]
async fn quz(ctx: &Context, n: i64, options: Options) -> Result<()> {
    options.work(ctx).await?;
    ctx.detached("cog", (n + 1, options)).target("service-f").spawn()?;
    Ok(())
}

/// The group `service-e` and its function.
pub fn service() -> Service {
    Service::new("service-e").function(quz)
}
