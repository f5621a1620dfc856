//! Promises that no process can run: the layer above rejects them.

use super::*;

#[tokio::test]
async fn a_rejected_promise_has_its_run_and_its_invocation() {
    for (data, function) in [(call::encode("nobody", &()), "nobody"), ("no call".to_owned(), "")] {
        let rig = Rig::new(move |kind, sent| {
            let headers = json!({"traceparent": CONTEXT});
            match kind {
                "task.acquire" => {
                    let task = json!({"id": "f.0", "state": "acquired", "version": 1});
                    let mut promise = invocation("pending", json!({}));
                    promise["param"] = json!({"headers": headers, "data": data});
                    Reply::Answer(200, json!({"task": task, "promise": promise}))
                }
                _ => {
                    let value = sent["action"]["data"]["value"].clone();
                    let mut promise = invocation("rejected", value);
                    promise["param"] = json!({"headers": headers, "data": data});
                    Reply::Answer(200, json!({"promise": promise}))
                }
            }
        });
        rig.acquire(1).await;
        let settle = op::PromiseSettle {
            id: "f.0".into(),
            state: op::SettleState::Rejected,
            value: wire::PromiseValue {
                headers: None,
                data: Some(call::encode_error("no").into()),
            },
        };
        let action = Action { kind: "promise.settle".into(), head: None, data: settle };
        let fulfill = op::TaskFulfill { id: "f.0".into(), version: 1, action };
        rig.traced.exchange(Request::new("task.fulfill", &fulfill)).await.unwrap();
        let (invocation, run) = match function {
            "" => ("invocation error=no", "invocation on me rejected"),
            _ => ("nobody error=no", "nobody on me rejected"),
        };
        assert_eq!(rig.names(), [invocation, run]);
    }
}
