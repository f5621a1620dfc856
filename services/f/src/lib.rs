//! service-f: `cog` prints its argument. It is the last function of the detached chain.

use std::io::Write;

use flows::Options;
use node::prelude::*;

/// The last function of the detached chain.
#[resonate_sdk::function]
async fn cog(ctx: &Context, n: i64, options: Options) -> Result<()> {
    options.sleep(ctx).await?;
    options.fail(ctx).await?;
    // Nobody may be reading: that is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{n}");
    Ok(())
}

/// The group `service-f` and its function.
pub fn service() -> Service {
    flows::service("service-f").function(cog)
}
