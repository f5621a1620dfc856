//! service-f: `cog` prints its argument: the end of the detached chain.

use node::prelude::*;

/// The last link of the detached chain.
#[resonate_sdk::function]
async fn cog(ctx: &Context, n: i64, options: Options) -> Result<()> {
    options.sleep(ctx).await?;
    options.fail(ctx).await?;
    println!("{n}");
    Ok(())
}

/// The group `service-f` and its function.
pub fn service() -> Service {
    Service::new("service-f").function(cog)
}
