//! The body of a `POST /`: the envelope, and the operation inside.

use std::borrow::Cow;

use serde_json::{Value, value::RawValue};
use wire::{
    VERSION,
    envelope::{Envelope, RequestHead},
};

use crate::{
    auth::Auth,
    data::{Data, Unread},
    operation::Operation,
    reply::Reply,
};

/// A request, as far as it could be read.
pub(crate) struct Request<'a> {
    /// The answer repeats it.
    pub(crate) kind: Cow<'a, str>,
    /// The answer repeats it.
    pub(crate) corr_id: Cow<'a, str>,
    /// The operation, or the reply that refuses the request.
    pub(crate) operation: Result<Operation<'a>, Reply>,
}

/// Reads a body, whose token `auth` checks. `value` keeps its data if that has to be read as a value.
pub(crate) fn read<'a>(body: &'a [u8], auth: Option<&Auth>, value: &'a mut Value) -> Request<'a> {
    if let Ok(text) = std::str::from_utf8(body)
        && let Ok(Envelope { kind, head, data }) =
            serde_json::from_str::<Envelope<RequestHead, &RawValue>>(text)
    {
        match operation(&kind, &head, auth, Data::Text(data)) {
            Ok(operation) => return Request::new(kind, head, Ok(operation)),
            Err(Unread::Refused(reply)) => return Request::new(kind, head, Err(reply)),
            Err(Unread::Text) => {}
        }
    }
    match serde_json::from_slice::<Envelope<RequestHead, Value>>(body) {
        Ok(Envelope { kind, head, data }) => {
            *value = data;
            let operation = operation(&kind, &head, auth, Data::Value(value));
            let refused = |unread| match unread {
                Unread::Refused(reply) => reply,
                Unread::Text => Reply::refuse(400, "Invalid request"),
            };
            Request::new(kind, head, operation.map_err(refused))
        }
        Err(error) => unreadable(body, &error),
    }
}

impl<'a> Request<'a> {
    fn new(
        kind: Cow<'a, str>,
        head: RequestHead<'a>,
        operation: Result<Operation<'a>, Reply>,
    ) -> Self {
        Self { kind, corr_id: head.corr_id, operation }
    }
}

fn operation<'a>(
    kind: &str,
    head: &RequestHead<'a>,
    auth: Option<&Auth>,
    data: Data<'a>,
) -> Result<Operation<'a>, Unread> {
    if kind.is_empty() {
        let reason = "Missing or invalid 'kind' field — must be a non-empty string";
        return Err(Reply::refuse(400, reason).into());
    }
    if !data.is_object() {
        return Err(Reply::refuse(400, "Invalid 'data' field — must be an object").into());
    }
    if head.version != VERSION {
        let version = &head.version;
        let reason =
            format!("Unsupported protocol version '{version}', supported versions: [{VERSION:?}]");
        return Err(Reply::refuse(400, &reason).into());
    }
    if let Some(auth) = auth {
        auth.check(head.auth.as_deref(), kind, || data.to_value())?;
    }
    Operation::read(kind, &head.corr_id, data)
}

/// Even the answer to an invalid body repeats the kind and correlation id, if there are any.
fn unreadable(body: &[u8], error: &serde_json::Error) -> Request<'static> {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text =
        |value: &Value, default: &str| Cow::Owned(value.as_str().unwrap_or(default).to_owned());
    Request {
        kind: text(&value["kind"], "unknown"),
        corr_id: text(&value["head"]["corrId"], "0"),
        operation: Err(Reply::refuse(400, &format!("Invalid request envelope: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The reason of a refusal; none: the request is good.
    fn refusal(kind: &str, data: &str) -> Option<String> {
        let head = r#""head":{"corrId":"c","version":"2026-04-01"}"#;
        let body = format!(r#"{{"kind":"{kind}",{head},"data":{data}}}"#);
        let mut value = Value::Null;
        let refusal = read(body.as_bytes(), None, &mut value).operation.err()?;
        assert_eq!(refusal.status, 400);
        Some(serde_json::from_str(refusal.data.get()).unwrap())
    }

    #[test]
    fn what_only_a_value_can_tell_is_read_from_one() {
        assert_eq!(refusal("promise.get", r#"{"id":1,"id":"x"}"#), None);
        let state = refusal("promise.settle", r#"{"state":5,"id":"x"}"#).unwrap();
        assert_eq!(state, "Invalid request: invalid type: integer `5`, expected string or map");
        let create = r#"{"id":"y","timeoutAt":1,"timeoutAt":2,"param":{},"tags":{"a":"b"}}"#;
        let fence = |kind: &str, data: &str| {
            let action = format!(r#"{{"kind":"{kind}","data":{data}}}"#);
            refusal("task.fence", &format!(r#"{{"id":"x","version":1,"action":{action}}}"#))
        };
        assert_eq!(fence("promise.create", create), None);
        let own = Some("Action ID must not equal the task ID".to_owned());
        assert_eq!(fence("promise.settle", r#"{"id":"x","state":5}"#), own);
        assert_eq!(fence("any", r#"{"id":"x"}"#), own);
        assert_eq!(fence("any", "1"), Some("Invalid fence action kind".to_owned()));
        let array = r#"{"id":"x","version":1,"action":["promise.settle",{},{"id":"x"}]}"#;
        assert_eq!(refusal("task.fence", array), own);
    }

    #[test]
    fn types_are_called_what_the_official_server_calls_them() {
        let settle = json!({"id": "x", "version": 1});
        let with = |action: Value| {
            let mut data = settle.clone();
            data["action"] = action;
            data.to_string()
        };
        let text = "text, expected struct Action";
        for (kind, data, expected) in [
            ("task.fulfill", with(json!(text)), "TaskFulfillAction"),
            ("task.fence", with(json!(text)), "TaskFenceActionData"),
            (
                "task.create",
                json!({"pid": "p", "ttl": 1, "action": text}).to_string(),
                "TaskCreateAction",
            ),
            (
                "task.suspend",
                json!({"id": "x", "version": 1, "actions": [text]}).to_string(),
                "TaskSuspendAction",
            ),
        ] {
            let expected = format!(
                "Invalid request: invalid type: string \"{text}\", expected struct {expected}"
            );
            assert_eq!(refusal(kind, &data), Some(expected));
        }
        let data = with(json!({"kind": "k", "head": {}, "data": 7}));
        assert!(refusal("task.fulfill", &data).unwrap().ends_with("struct TaskFulfillActionData"));
        let beat = json!({"pid": "p", "tasks": [1]}).to_string();
        assert!(refusal("task.heartbeat", &beat).unwrap().ends_with("struct TaskHeartbeatTask"));
    }

    #[test]
    fn an_error_inside_of_data_is_placed_where_the_official_server_finds_it() {
        let body = b"{\"kind\":\"promise.get\",\"data\":{\"id\xa1\":1 x}}";
        let mut value = Value::Null;
        let refusal = read(body, None, &mut value).operation.unwrap_err();
        assert!(refusal.data.get().contains("invalid unicode code point at line 1"), "{refusal:?}");
    }

    #[test]
    fn depth_has_a_limit_where_a_value_is_needed() {
        let deep = format!("{{\"unknown\":{}{}}}", "[".repeat(200), "]".repeat(200));
        let refusal = refusal("promise.get", &deep).unwrap();
        assert!(
            refusal.starts_with("Invalid request envelope: recursion limit exceeded at line 1")
        );
    }
}
