//! Functions that only the benchmark has, and a client that calls them: there is no route for them.
//! Their processes are the benchmark's own executable.

use std::sync::Arc;

use node::{Service, prelude::*};
use resonate_sdk::prelude::{Resonate, ResonateConfig};
use testkit::free_port;

use crate::{
    drive::{self, Client, Load},
    program::{Deployment, Program},
    server::Server,
};

/// In the environment of a process that runs these functions: its group.
const GROUP: &str = "BENCH_GROUP";

/// The groups: the first one calls the second one.
const CALLER: &str = "bench";
const LEAF: &str = "bench-leaf";

/// Runs `n` steps, one after the other.
#[resonate_sdk::function]
async fn steps(ctx: &Context, n: i64) -> Result<i64> {
    for number in 0..n {
        step(ctx, format!("step-{number}"), |_| async { Ok(1) }).await?;
    }
    Ok(n)
}

/// Calls `n` functions at the same time.
#[resonate_sdk::function]
async fn fan_out(ctx: &Context, n: i64) -> Result<i64> {
    let calls = (0..n).map(|number| ctx.rpc::<i64>("leaf", (number,)).target(LEAF).spawn());
    let mut sum = 0;
    for call in calls.collect::<Result<Vec<_>>>()? {
        sum += call.await?;
    }
    Ok(sum)
}

#[resonate_sdk::function]
async fn leaf(_number: i64) -> Result<i64> {
    Ok(1)
}

/// The service that this process is to run. None: it is the benchmark itself.
pub fn service() -> Option<Service> {
    match std::env::var(GROUP).ok()?.as_str() {
        CALLER => Some(Service::new(CALLER).function(steps).function(fan_out)),
        _ => Some(Service::new(LEAF).function(leaf)),
    }
}

/// The processes of these functions, and a client.
pub struct Caller {
    pub deployment: Deployment,
    client: Arc<Resonate>,
    ids: Client,
}

impl Caller {
    /// Starts one process for each group.
    pub async fn start(server: &Server) -> Self {
        let programs = [CALLER, LEAF].map(|group| {
            let health = format!("127.0.0.1:{}", free_port());
            let environment = [
                (GROUP, group),
                ("NODE_SERVER_URL", &server.url),
                ("NODE_HEALTH_LISTEN", &health),
                ("NODE_LOG", "warn"),
            ];
            Program {
                name: group.to_owned(),
                executable: std::env::current_exe().expect("the path of the benchmark"),
                environment: environment.map(|(name, it)| (name.to_owned(), it.to_owned())).into(),
                health: Some(health),
                ..Program::default()
            }
        });
        let deployment = Deployment::start(programs.into(), String::new(), server.pid());
        let config = ResonateConfig {
            url: Some(server.url.clone()),
            group: Some("bench-client".to_owned()),
            ..ResonateConfig::default()
        };
        let (client, ids) = (Arc::new(Resonate::new(config)), Client::new());
        let caller = Self { deployment, client, ids };
        let flow = async |n| caller.call("fan_out", 2, &format!("first-{n}")).await;
        drive::first_answer(&caller.deployment, flow).await;
        caller
    }

    /// Calls `function`, which is `steps` or `fan_out`, with the argument `n`: `count` times, one after
    /// the other.
    pub async fn measure(&self, server: &Server, function: &str, n: usize, count: usize) -> Load {
        let flow = async |flow| self.call(function, n, &format!("{function}-{n}-{flow}")).await;
        drive::measure(&self.deployment, server, 1, count, flow).await
    }

    async fn call(&self, function: &str, n: usize, id: &str) -> bool {
        let id = self.ids.id(id);
        let call = self.client.rpc::<_, i64>(&id, function, (n,)).target(CALLER);
        call.await.is_ok_and(|sum| sum == n as i64)
    }
}
