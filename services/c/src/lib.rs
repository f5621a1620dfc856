//! service-c: `baz` returns 1: the end of the await chain.

use node::prelude::*;

/// The last link of the await chain.
#[resonate_sdk::function]
async fn baz(ctx: &Context, options: Options) -> Result<i64> {
    options.sleep(ctx).await?;
    options.fail(ctx).await?;
    Ok(1)
}

/// The group `service-c` and its function.
pub fn service() -> Service {
    Service::new("service-c").function(baz)
}
