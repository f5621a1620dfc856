//! The Resonate Server as a host. What it stores survives its death.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, Response},
};
use embedded_server::Server;
use futures_util::StreamExt;
use tokio::{sync::mpsc, task::AbortHandle};
use tower::ServiceExt;

use crate::{
    network::{Network, Packet, Reply, ToServer},
    record::Record,
};

/// Longest body of an answer.
const BODY: usize = 64 << 20;

/// One life of the server.
pub(crate) async fn serve(
    server: Arc<Server>,
    network: Network,
    record: Record,
    mut inbox: mpsc::Receiver<ToServer>,
) {
    let routes = server.routes();
    tokio::spawn(async move { server.run_timers().await });
    let mut streams: BTreeMap<u64, (String, AbortHandle)> = BTreeMap::new();
    while let Some(packet) = inbox.recv().await {
        match packet {
            ToServer::Request { host, text, reply } => {
                let (status, answer) = post(&routes, text.clone()).await;
                record.handled(&network.name(host), &text, &answer);
                if let Some(reply) = reply {
                    let content = Reply::Response(status, answer);
                    network.send(host, Packet::Answer { reply, content }, Duration::ZERO);
                }
            }
            ToServer::Open { host, connection, group, id } => {
                let path = format!("/poll/{group}/{id}");
                let response = call(&routes, Request::get(path).body(Body::empty())).await;
                if !response.status().is_success() {
                    network.send(host, Packet::End { connection }, Duration::ZERO);
                    continue;
                }
                let opened = Packet::Chunk { connection, bytes: Bytes::new() };
                network.send(host, opened, Duration::ZERO);
                let pump = pump(
                    response.into_body(),
                    network.clone(),
                    record.clone(),
                    network.name(host),
                    (host, connection),
                );
                let pump = tokio::spawn(pump).abort_handle();
                record.event(
                    "server",
                    &format!("{}: opens stream {connection} as {id}", network.name(host)),
                    "",
                );
                streams.insert(connection, (network.name(host), pump));
            }
            ToServer::Close { connection } => {
                if let Some((name, pump)) = streams.remove(&connection) {
                    record.event("server", &format!("{name}: stream {connection} is closed"), "");
                    pump.abort();
                }
            }
        }
    }
}

/// Sends the events of a message stream.
async fn pump(
    body: Body,
    network: Network,
    record: Record,
    name: String,
    (host, connection): (usize, u64),
) {
    let mut chunks = body.into_data_stream();
    while let Some(Ok(bytes)) = chunks.next().await {
        let text = String::from_utf8_lossy(&bytes);
        record.event("server", &format!("{name}: sends {}", describe(&text)), &text);
        network.send(host, Packet::Chunk { connection, bytes }, Duration::ZERO);
    }
    network.send(host, Packet::End { connection }, Duration::ZERO);
}

/// A message in a few words.
fn describe(event: &str) -> String {
    let data = event.trim().strip_prefix("data:").unwrap_or_default();
    let message: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (task, promise) = (&message["data"]["task"], &message["data"]["promise"]);
    let kind = text(&message["kind"]);
    match task.is_object() {
        true => format!("{kind} {} v{}", text(&task["id"]), task["version"]),
        false => format!("{kind} {} {}", text(&promise["id"]), text(&promise["state"])),
    }
}

async fn post(routes: &Router, text: String) -> (u16, String) {
    let request = Request::post("/").header("content-type", "application/json");
    let response = call(routes, request.body(Body::from(text))).await;
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), BODY).await.unwrap_or_default();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn call(routes: &Router, request: axum::http::Result<Request<Body>>) -> Response<Body> {
    let request = request.expect("names of groups and instances fit a path");
    routes.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
}
