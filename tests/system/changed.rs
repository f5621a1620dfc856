//! Functions that are changed while their flows run: a flow never takes the result of another step
//! or call, and says what does not match.

use serde_json::json;
use testkit::{Process, Resonate, Server, Stopped, System, until};

use crate::{
    poison::{call, encoded, rejected},
    service_p,
};

testkit::on_each_server!(
    a_changed_function_is_rejected_with_what_does_not_match,
    a_flow_that_finds_another_step_recorded_fails_with_502,
);

/// What is changed, and the end of the error; none: the flow goes on.
const CHANGES: [(&str, Option<&str>); 5] = [
    ("change nothing", None),
    ("insert a step", Some(r#"recorded "work", code asks for "check""#)),
    ("insert a timer", Some(r#"recorded a call of "call", code asks for a timer"#)),
    ("insert a call", Some(r#"recorded a call of "call", code asks for a call of "other""#)),
    // The SDK takes it from the preload and cannot know better, but it does not fit.
    ("remove the step", Some("serialization error: invalid type: map, expected i64")),
];

fn id(change: &str) -> String {
    change.replace(' ', "-")
}

/// Settles the call that the function waits for.
async fn settle(resonate: &Resonate, id: &str) {
    let settle = json!({"id": format!("{id}.1"), "state": "resolved", "value": encoded("41")});
    assert_eq!(resonate.send("promise.settle", settle).await.0, 200);
}

async fn a_changed_function_is_rejected_with_what_does_not_match(server: Server) -> Stopped {
    let system = System::start_with(server, &[], &["--replicas", "1"]).await;
    let resonate = system.resonate();
    let mut old = Process::start(&mut service_p::command(&system.server_url), &system.log);
    for (change, _) in CHANGES {
        let call = call("changes", json!(change));
        resonate.create(&id(change), "poll://any@service-p", call).await;
    }
    for (change, _) in CHANGES {
        until(&system.log, &format!("the wait of {change}"), async || {
            (resonate.task(&id(change)).await["state"] == "suspended").then_some(())
        })
        .await;
    }
    assert_eq!(old.stop().await.code(), Some(0));

    let mut command = service_p::command(&system.server_url);
    let mut new = Process::start(command.env(service_p::CHANGED, "1"), &system.log);
    for (change, error) in CHANGES {
        settle(&resonate, &id(change)).await;
        let Some(error) = error else {
            let promise = until(&system.log, change, async || {
                let promise = resonate.promise(&id(change)).await;
                (promise["state"] != "pending").then_some(promise)
            })
            .await;
            assert_eq!(
                (&promise["state"], &promise["value"]["data"]),
                (&json!("resolved"), &encoded("41")["data"])
            );
            continue;
        };
        let (message, runs) = rejected(&system, &resonate, &id(change)).await;
        assert!(message.ends_with(error), "{change}: {message}");
        assert_eq!(runs, 2, "{change}: the run that waited, and the one that found out");
    }
    assert_eq!(new.stop().await.code(), Some(0));
    system.stop().await
}

async fn a_flow_that_finds_another_step_recorded_fails_with_502(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let resonate = system.resonate();
    // `bar` of the flow `changed` begins with the step `work 1/2`.
    let step = json!({
        "id": "changed.0.0", "timeoutAt": i64::MAX, "param": encoded("\"check\""),
        "tags": {"resonate:scope": "local", "resonate:branch": "changed.0",
            "resonate:parent": "changed.0", "resonate:origin": "changed"},
    });
    assert_eq!(resonate.send("promise.create", step).await.0, 200);
    let value = encoded(r#"{"step": "check", "value": null}"#);
    let settle = json!({"id": "changed.0.0", "state": "resolved", "value": value});
    assert_eq!(resonate.send("promise.settle", settle).await.0, 200);
    let answer = system.http().post("/await-chain?id=changed&work=2s").await;
    answer.expect_problem(502);
    let reason = r#"recorded "check", code asks for "work 1/2""#;
    assert!(answer.detail().contains(reason), "{}", answer.detail());
    system.stop().await
}
