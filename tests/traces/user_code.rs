//! Spans of user code are below their step, whichever process runs it, and propagate onwards.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::Path, http::HeaderMap, routing::get};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use testkit::{Line, Process, Server, Span, Stopped, until};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    invariants::BY_HAND,
    observed::{Observed, PLAIN, one},
    shop,
};

testkit::on_each_server!(
    user_code_is_below_its_step_in_every_attempt,
    a_step_that_is_dropped_is_above_what_it_did,
    unsampled_and_turned_off_user_code_makes_no_span,
);

/// A service that other requests of a step go to: it notes the `traceparent` of each.
struct Prices {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, String)>>>,
    /// Whether it answers the second request of a step.
    open: watch::Sender<bool>,
}

impl Prices {
    async fn start(open: bool) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (open, opened) = watch::channel(open);
        let note = {
            let seen = seen.clone();
            move |Path(which): Path<String>, headers: HeaderMap| {
                let (seen, mut opened) = (seen.clone(), opened.clone());
                async move {
                    let context = headers.get("traceparent").map(|it| it.to_str().unwrap());
                    let context = context.unwrap_or_default().to_owned();
                    seen.lock().unwrap().push((which.clone(), context));
                    if which == "second" {
                        opened.wait_for(|open| *open).await.unwrap();
                    }
                    "xx"
                }
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/{which}", get(note));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, seen, open }
    }

    fn seen(&self, which: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(name, _)| name == which).map(|(_, context)| context.clone()).collect()
    }
}

fn call(function: &str, args: Value) -> Value {
    let call = json!({"func": function, "args": args});
    json!({"headers": {}, "data": BASE64_STANDARD.encode(call.to_string())})
}

fn start(system: &Observed, instance: &str, more: &[(&str, &str)]) -> Process {
    let endpoint = system.collector.endpoint();
    let mut settings = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)];
    settings.extend(more);
    let mut command = shop::command(&system.server_url, instance, &settings);
    Process::start(&mut command, &system.log)
}

async fn result(system: &Observed, id: &str) -> Value {
    until(&system.log, &format!("the end of {id}"), async || {
        let promise = system.resonate().promise(id).await;
        (promise["state"] != "pending").then_some(promise)
    })
    .await
}

async fn user_code_is_below_its_step_in_every_attempt(server: Server) -> Stopped {
    let system = Observed::start(server, &[]).await;
    let prices = Prices::start(false).await;
    let id = format!("{BY_HAND}-order");
    let mut first = start(&system, "service-s-1", &[]);
    let url = json!([format!("http://{}", prices.address)]);
    system.resonate().create(&id, "poll://any@service-s", call("order", url)).await;

    // The first process has exported what ended, and hangs in the middle of the step.
    let asked = |span: &Span| span.name == "GET /price" && span.instance() == "service-s-1";
    let asked = system.span("the first request", asked).await;
    until(&system.log, "the second request", async || {
        (!prices.seen("second").is_empty()).then_some(())
    })
    .await;
    system.killed("service-s-1");
    first.kill();
    let mut second = start(&system, "service-s-2", &[]);
    until(&system.log, "the second attempt", async || {
        (prices.seen("second").len() == 2).then_some(())
    })
    .await;
    prices.open.send_replace(true);
    let promise = result(&system, &id).await;
    assert_eq!(promise["value"]["data"], BASE64_STANDARD.encode("4"), "{promise}");

    let spans = expect_tree!(
        system,
        &asked.trace,
        PLAIN,
        redact: [(id.as_str(), "[id]")],
        @"
        service-s: received order [consumer] promise=[id] group=service-s
          service-s: order [internal] promise=[id] group=service-s state=resolved
          service-s: order on service-s* [internal] promise=[id] group=service-s outcome=fulfilled takeover
          service-s: lease of service-s-1 expired [internal] promise=[id] group=service-s lease=service-s-1 ERROR no heartbeat for the length of the lease
          service-s: ask for prices [internal] promise=[id].0 group=service-s state=resolved takeover
            - takeover by service-s-2
            service-s: GET /price [client]
            service-s: GET /price [client]
            service-s: GET /price [client]
            service-s: add [internal]
          service-s: look at the order [internal]
          service-s: look at the order [internal]
        "
    );
    let step = spans.iter().find(|span| span.name == "ask for prices").unwrap();
    assert_eq!(asked.parent.as_ref(), Some(&step.id), "the attempt that died is below it too");
    assert!(asked.end < step.end && asked.arrived < step.arrived, "{asked:#?} {step:#?}");
    // What the other service got: trace and span of each request, of both attempts.
    let sent = |span: &Span| format!("00-{}-{}-01", span.trace, span.id);
    let requests = spans.iter().filter(|span| span.name == "GET /price").map(sent);
    let requests: Vec<_> = requests.collect();
    let (firsts, seconds) = (prices.seen("first"), prices.seen("second"));
    assert_eq!(requests.len(), 3, "the one that hung was not exported: {requests:?}");
    assert!(firsts.iter().all(|context| requests.contains(context)), "{firsts:?} {requests:?}");
    assert!(requests.contains(&seconds[1]), "{seconds:?} {requests:?}");
    assert!(seconds[0].contains(&asked.trace), "{seconds:?}");
    // Log lines name the span in which they were written.
    let lines = system.log.all(|line| line.says("price received"));
    assert_eq!(lines.len(), 3);
    let named = |line: &Line| spans.iter().any(|span| line.field("span_id") == Some(&span.id));
    assert!(lines.iter().all(named), "{lines:#?}");
    for line in system.log.all(|line| line.says("step started") && line.text.contains(&id)) {
        assert_eq!(line.field("span_id"), Some(&*step.id), "{}", line.text);
    }
    assert_eq!(second.stop().await.code(), Some(0));
    system.stop().await
}

async fn a_step_that_is_dropped_is_above_what_it_did(server: Server) -> Stopped {
    let system = Observed::start(server, &[]).await;
    let id = format!("{BY_HAND}-hurry");
    let mut shop = start(&system, "service-s", &[]);
    system.resonate().create(&id, "poll://any@service-s", call("hurry", Value::Null)).await;
    let promise = result(&system, &id).await;
    assert_eq!(promise["value"]["data"], BASE64_STANDARD.encode("2"), "{promise}");
    let waited = system.span("the span in the step", |span| span.name == "wait").await;
    let spans = expect_tree!(
        system,
        &waited.trace,
        PLAIN,
        redact: [(id.as_str(), "[id]")],
        @"
        service-s: received hurry [consumer] promise=[id] group=service-s
          service-s: hurry [internal] promise=[id] group=service-s state=resolved
          service-s: hurry on service-s* [consumer] promise=[id] group=service-s outcome=fulfilled
          service-s: slow [internal] promise=[id].0 group=service-s state=pending
            service-s: wait [internal]
        "
    );
    let (slow, function) = (one(&spans, "slow"), one(&spans, "hurry"));
    assert_eq!(slow.end, function.end, "it ends with its function");
    assert_eq!(shop.stop().await.code(), Some(0));
    system.stop().await
}

async fn unsampled_and_turned_off_user_code_makes_no_span(server: Server) -> Stopped {
    // Lines without a trace break a rule.
    let system = Observed::start(server, &[]).await.incomplete();
    let prices = Prices::start(true).await;
    let url = json!([format!("http://{}", prices.address)]);
    for (id, setting, flags) in [
        ("unsampled", ("OTEL_TRACES_SAMPLER", "always_off"), Some("00")),
        ("off", ("OTEL_SDK_DISABLED", "true"), None),
    ] {
        let id = format!("{BY_HAND}-{id}");
        let mut shop = start(&system, "service-s", &[setting]);
        system.resonate().create(&id, "poll://any@service-s", call("order", url.clone())).await;
        let promise = result(&system, &id).await;
        assert_eq!(promise["value"]["data"], BASE64_STANDARD.encode("4"), "{promise}");
        let context = prices.seen.lock().unwrap().pop().unwrap().1;
        assert_eq!(context.rsplit_once('-').map(|(_, flags)| flags), flags, "{context}");
        // What it has not exported at its end, it never does.
        assert_eq!(shop.stop().await.code(), Some(0));
        let made: Vec<_> = system.collector.spans();
        let made: Vec<_> = made.iter().filter(|span| span.service() == "service-s").collect();
        assert!(made.is_empty(), "{made:#?}");
    }
    system.stop().await
}
