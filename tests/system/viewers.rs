//! Those who look at a flow while the Resonate Server is away.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Server, Stopped, System, process::signal};
use tokio::time::timeout;

testkit::on_each_server!(a_frozen_server_is_an_event_for_whoever_looks_and_so_is_its_return);

/// The gateway abandons a request to the server after three seconds and sends the next one a second
/// later. The rest allows for a busy machine.
const SOON: Duration = Duration::from_secs(6);

/// Somebody who looks at a flow.
struct Viewer {
    response: reqwest::Response,
    received: String,
}

impl Viewer {
    async fn open(system: &System, id: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let events = format!("http://{}/flows/{id}/events", system.gateway);
        let response = client.get(events).send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, received: String::new() }
    }

    /// Waits for a state that is as expected.
    async fn state(&mut self, what: &str, expected: impl Fn(&Value) -> bool) -> Value {
        let state = async {
            loop {
                while let Some((event, rest)) = self.received.split_once("\n\n") {
                    let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                    let state = data.and_then(|data| serde_json::from_str::<Value>(data).ok());
                    let state = state.map(|mut event| event["state"].take());
                    self.received = rest.to_owned();
                    if let Some(state) = state.filter(&expected) {
                        return state;
                    }
                }
                let chunk = self.response.chunk().await.unwrap().expect("another event");
                self.received += std::str::from_utf8(&chunk).unwrap();
            }
        };
        timeout(testkit::DEADLINE, state).await.unwrap_or_else(|_| panic!("no event: {what}"))
    }
}

async fn a_frozen_server_is_an_event_for_whoever_looks_and_so_is_its_return(
    server: Server,
) -> Stopped {
    let system = System::start(server, &[]).await;
    let http = system.http();
    let asynchronous = [("prefer", "respond-async")];
    let flow = http.send(reqwest::Method::POST, "/await-chain?id=seen&work=6s", &asynchronous);
    assert_eq!(flow.await.unwrap().status, 202);
    let mut viewer = Viewer::open(&system, "seen").await;
    let step = |state: &Value| state["holders"][0]["step"] == "work 2/6";
    let before = viewer.state("step 2", step).await;
    assert_eq!(before["trouble"], Value::Null);

    let pid = system.server_pid().await.unwrap_or_else(|| system.pid("resonate"));
    let since = Instant::now();
    signal(pid, "STOP");
    let is_old = |state: &Value| !state["trouble"].is_null();
    let during = viewer.state("that the server does not answer", is_old).await;
    println!("said after {:.1?}", since.elapsed());
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    let reason = during["trouble"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the Resonate Server at http"), "{reason}");
    let as_of = during["trouble"]["as_of"].as_i64().unwrap() - during["started"].as_i64().unwrap();
    assert!((1_000..=3_000).contains(&as_of), "{as_of}");

    let since = Instant::now();
    signal(pid, "CONT");
    viewer.state("that the server is back", |state| !is_old(state)).await;
    println!("back after {:.1?}", since.elapsed());
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    let end = viewer.state("the end", |state| state["complete"] == json!(true)).await;
    assert_eq!((&end["state"], &end["result"]), (&json!("resolved"), &json!(3)));
    system.stop().await
}
