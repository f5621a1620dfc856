//! Promises that a client settles, such as by a cancel.

use super::*;

impl Rig {
    async fn cancel(&self) -> Answered {
        let settle = op::PromiseSettle {
            id: "f.0".into(),
            state: op::SettleState::RejectedCanceled,
            value: wire::PromiseValue {
                headers: None,
                data: Some(call::encode_error("canceled").into()),
            },
        };
        self.traced.exchange(Request::new("promise.settle", &settle)).await
    }
}

/// The promise, canceled by the request with this data.
fn canceled(data: &Value) -> Value {
    json!({"promise": invocation("rejected_canceled", data["value"].clone())})
}

#[tokio::test]
async fn an_invocation_that_is_canceled_has_one_span_from_whoever_settled_it() {
    let mut first: Option<Value> = None;
    let rig = Rig::new(move |_, data| {
        Reply::Answer(200, first.get_or_insert_with(|| canceled(data)).clone())
    });
    for _ in 0..2 {
        assert_eq!(rig.cancel().await.unwrap().status(), 200);
    }
    assert_eq!(rig.names(), ["bar error=canceled"]);
}

#[tokio::test]
async fn what_has_no_invocation_has_no_span() {
    for promise in ["step", "missing"] {
        let rig = Rig::new(move |_, data| {
            let mut record = canceled(data);
            record["promise"]["tags"] = json!({"resonate:scope": "local"});
            match promise {
                "step" => Reply::Answer(200, record),
                _ => Reply::Answer(404, json!("not found")),
            }
        });
        rig.cancel().await.unwrap();
        assert_eq!(rig.names(), [""; 0], "{promise}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_whose_answer_is_lost_is_looked_up() {
    for (took_effect, expected) in [(true, &["bar error=canceled"][..]), (false, &[])] {
        let mut sent = Value::Null;
        let rig = Rig::new(move |kind, data| match kind {
            "promise.settle" => {
                sent = data.clone();
                Reply::Lost
            }
            _ if took_effect => Reply::Answer(200, canceled(&sent)),
            _ => Reply::Answer(200, json!({"promise": invocation("resolved", json!({}))})),
        });
        assert!(rig.cancel().await.is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(rig.names(), expected);
    }
}

#[tokio::test]
async fn a_run_whose_promise_is_canceled_is_fenced_and_leaves_the_invocation_to_the_settler() {
    let rig = Rig::new(|kind, _| match kind {
        "task.acquire" => acquired(1, json!([])),
        "promise.get" => {
            let value = json!({"headers": {key::HEADER_SETTLER: "gateway 0123"}});
            Reply::Answer(200, json!({"promise": invocation("rejected_canceled", value)}))
        }
        _ => Reply::Answer(409, json!("stale")),
    });
    rig.acquire(1).await;
    rig.fulfill(1).await.unwrap();
    assert_eq!(rig.names(), ["bar on me fenced"]);
}

/// Two runs of a task have begun the same step: the first one was frozen. Only the last one reports it.
#[tokio::test]
async fn a_step_that_is_canceled_is_reported_by_the_last_run_of_its_task() {
    for (last, expected) in
        [(1, vec!["bar on me fenced", "step error=canceled"]), (2, vec!["bar on me fenced"])]
    {
        let rig = Rig::new(move |kind, data| match kind {
            "task.acquire" => acquired(1, json!([])),
            "task.get" => {
                let task = json!({"id": "f.0", "state": "fulfilled", "version": last});
                Reply::Answer(200, json!({"task": task}))
            }
            "promise.get" => {
                let value = json!({"data": call::encode_error("canceled")});
                let mut promise = invocation("rejected_canceled", value);
                promise["id"] = data["id"].clone();
                Reply::Answer(200, json!({"promise": promise}))
            }
            _ => Reply::Answer(409, json!("stale")),
        });
        rig.acquire(1).await;
        rig.traced.0.runs.step_begun("f.0", "f.0.0");
        rig.traced.0.steps.begun("f.0.0", Some("step"));
        rig.fulfill(1).await.unwrap();
        // The steps are closed when the run is told that it has ended.
        assert_eq!(rig.names(), expected, "{last}");
    }
}
