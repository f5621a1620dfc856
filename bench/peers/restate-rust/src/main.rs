//! One process of the three flows on the Restate Rust SDK: `peer gateway`, or `peer service-a`.

use std::{env, net::SocketAddr};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::post,
};
use restate_sdk::{ingress::ReqwestClient, prelude::*};
use serde::Deserialize;
use serde_json::{Value, json};

// The await chain.
struct ServiceA;

#[service]
impl ServiceA {
    #[handler]
    async fn foo(&self, ctx: Context<'_>) -> Result<i64, TerminalError> {
        Ok(ctx.service_client::<ServiceBClient>().bar().call().await? + 1)
    }
}

struct ServiceB;

#[service]
impl ServiceB {
    #[handler]
    async fn bar(&self, ctx: Context<'_>) -> Result<i64, TerminalError> {
        Ok(ctx.service_client::<ServiceCClient>().baz().call().await? + 1)
    }
}

struct ServiceC;

#[service]
impl ServiceC {
    #[handler]
    async fn baz(&self, _: Context<'_>) -> Result<i64, TerminalError> {
        Ok(1)
    }
}

// The detached chain.
struct ServiceD;

#[service]
impl ServiceD {
    #[handler]
    async fn qux(&self, ctx: Context<'_>, n: i64) -> Result<(), TerminalError> {
        ctx.service_client::<ServiceEClient>().quz(n + 1).send();
        Ok(())
    }
}

struct ServiceE;

#[service]
impl ServiceE {
    #[handler]
    async fn quz(&self, ctx: Context<'_>, n: i64) -> Result<(), TerminalError> {
        ctx.service_client::<ServiceFClient>().cog(n + 1).send();
        Ok(())
    }
}

struct ServiceF;

#[service]
impl ServiceF {
    #[handler]
    async fn cog(&self, _: Context<'_>, n: i64) -> Result<(), TerminalError> {
        println!("{n}");
        Ok(())
    }
}

// The fan-out workflow.
struct ServiceG;

#[service]
impl ServiceG {
    #[handler]
    async fn zim(&self, ctx: Context<'_>, n: i64) -> Result<i64, TerminalError> {
        let rax = ctx.service_client::<ServiceHClient>().rax().call();
        let dop = ctx.service_client::<ServiceIClient>().dop().call();
        Ok(n + rax.await? + dop.await?)
    }
}

struct ServiceH;

#[service]
impl ServiceH {
    #[handler]
    async fn rax(&self, _: Context<'_>) -> Result<i64, TerminalError> {
        Ok(1)
    }
}

struct ServiceI;

#[service]
impl ServiceI {
    #[handler]
    async fn dop(&self, _: Context<'_>) -> Result<i64, TerminalError> {
        Ok(1)
    }
}

#[derive(Deserialize)]
struct Flow {
    id: String,
}

type Answer = Result<Json<Value>, (StatusCode, String)>;

fn failed(error: impl ToString) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

async fn await_chain(State(restate): State<ReqwestClient>, Query(flow): Query<Flow>) -> Answer {
    let service = ServiceAIngressClient::from_client(restate);
    let answer = service.foo().idempotency_key(flow.id).call().await.map_err(failed)?;
    Ok(Json(json!({"message": answer.into_body().map_err(failed)?})))
}

async fn detached_chain(State(restate): State<ReqwestClient>, Query(flow): Query<Flow>) -> Answer {
    let service = ServiceDIngressClient::from_client(restate);
    service.qux(1).idempotency_key(flow.id).send().await.map_err(failed)?;
    Ok(Json(json!({"message": "detached-chain started"})))
}

async fn fan_out_workflow(
    State(restate): State<ReqwestClient>,
    Query(flow): Query<Flow>,
) -> Answer {
    let service = ServiceGIngressClient::from_client(restate);
    let answer = service.zim(1).idempotency_key(flow.id).call().await.map_err(failed)?;
    Ok(Json(json!({"message": answer.into_body().map_err(failed)?})))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = format!("127.0.0.1:{}", env::var("PORT")?).parse()?;
    let endpoint = Endpoint::builder();
    let endpoint = match env::args().nth(1).as_deref() {
        Some("gateway") => {
            let restate = ReqwestClient::connect(env::var("RESTATE_URL")?.parse()?)?;
            let routes = Router::new()
                .route("/await-chain", post(await_chain))
                .route("/detached-chain", post(detached_chain))
                .route("/fan-out-workflow", post(fan_out_workflow))
                .with_state(restate);
            let listener = tokio::net::TcpListener::bind(address).await?;
            return Ok(axum::serve(listener, routes).await?);
        }
        Some("service-a") => endpoint.bind(ServiceA),
        Some("service-b") => endpoint.bind(ServiceB),
        Some("service-c") => endpoint.bind(ServiceC),
        Some("service-d") => endpoint.bind(ServiceD),
        Some("service-e") => endpoint.bind(ServiceE),
        Some("service-f") => endpoint.bind(ServiceF),
        Some("service-g") => endpoint.bind(ServiceG),
        Some("service-h") => endpoint.bind(ServiceH),
        Some("service-i") => endpoint.bind(ServiceI),
        other => return Err(format!("no such service: {other:?}").into()),
    };
    HttpServer::new(endpoint.build()).listen_and_serve(address).await;
    Ok(())
}
