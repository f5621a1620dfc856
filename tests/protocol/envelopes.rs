//! Bodies that are not valid envelopes, and the routes other than `POST /`.

use serde_json::{Value, json};

use crate::client::Context;

cases![
    bodies_that_are_no_envelope_are_refused,
    heads_and_data_are_checked,
    fields_nobody_knows_are_ignored,
    unknown_and_disabled_operations_are_refused,
    health_and_readiness_answer,
    a_body_over_the_limit_is_refused,
];

/// Posts a body and compares the whole answer, except line and column of a syntax error: they come
/// from the JSON library and change with its version.
async fn refused(c: &Context, body: &[u8], kind: &str, corr_id: &str, status: u16, reason: &str) {
    let (actual_status, answer) = c.post(body.to_vec()).await;
    let mut answer: Value = serde_json::from_slice(&answer).expect("an answer in JSON");
    if let Some((reason, _)) = answer["data"].as_str().and_then(|data| data.split_once(" at line "))
    {
        answer["data"] = json!(reason);
    }
    let head = json!({"corrId": corr_id, "status": status, "version": "2026-04-01"});
    let expected = json!({"kind": kind, "head": head, "data": reason});
    let body = String::from_utf8_lossy(body);
    assert_eq!((actual_status, answer), (status, expected), "for {body}");
}

async fn bodies_that_are_no_envelope_are_refused(c: Context) {
    let no = |reason: &str| format!("Invalid request envelope: {reason}");
    let eof = no("EOF while parsing a value");
    refused(&c, b"", "unknown", "0", 400, &eof).await;
    refused(&c, b"nonsense", "unknown", "0", 400, &no("expected ident")).await;
    let cut = no("EOF while parsing a string");
    refused(&c, br#"{"kind":"promis"#, "unknown", "0", 400, &cut).await;
    let null = no("invalid type: null, expected struct RequestEnvelope");
    refused(&c, b"null", "unknown", "0", 400, &null).await;
    let number = no("invalid type: integer `1`, expected struct RequestEnvelope");
    refused(&c, b"1", "unknown", "0", 400, &number).await;
    let utf8 = no("invalid unicode code point");
    refused(&c, b"{\"kind\":\"\xff\"}", "unknown", "0", 400, &utf8).await;
    let empty = no("missing field `kind`");
    refused(&c, b"{}", "unknown", "0", 400, &empty).await;
    let kind = no("invalid type: integer `7`, expected a string");
    refused(&c, br#"{"kind":7,"head":{"corrId":"x"}}"#, "unknown", "x", 400, &kind).await;
    let twice = no("duplicate field `kind`");
    refused(&c, br#"{"kind":"a","kind":"b"}"#, "b", "0", 400, &twice).await;
    let deep = format!("{{\"data\":{}", "[".repeat(200));
    let (status, _) = c.post(deep.into_bytes()).await;
    assert_eq!(status, 400);
}

async fn heads_and_data_are_checked(c: Context) {
    let no = |reason: &str| format!("Invalid request envelope: {reason}");
    let head = r#""head":{"corrId":"x","version":"2026-04-01"}"#;
    let kind = r#""kind":"promise.get""#;

    let body = format!("{{{kind},{head}}}");
    let data = no("missing field `data`");
    refused(&c, body.as_bytes(), "promise.get", "x", 400, &data).await;

    let body = format!("{{{kind},\"data\":{{}}}}");
    let missing = no("missing field `head`");
    refused(&c, body.as_bytes(), "promise.get", "0", 400, &missing).await;

    let body = format!("{{{kind},\"head\":{{\"version\":\"2026-04-01\"}},\"data\":{{}}}}");
    let corr_id = no("missing field `corrId`");
    refused(&c, body.as_bytes(), "promise.get", "0", 400, &corr_id).await;

    let body = format!("{{{kind},\"head\":{{\"corrId\":\"x\"}},\"data\":{{}}}}");
    let version = no("missing field `version`");
    refused(&c, body.as_bytes(), "promise.get", "x", 400, &version).await;

    let body = format!("{{\"kind\":\"\",{head},\"data\":{{}}}}");
    let empty = "Missing or invalid 'kind' field — must be a non-empty string";
    refused(&c, body.as_bytes(), "", "x", 400, empty).await;

    for data in ["null", "[]", "\"text\"", "1", "true"] {
        let body = format!("{{{kind},{head},\"data\":{data}}}");
        let reason = "Invalid 'data' field — must be an object";
        refused(&c, body.as_bytes(), "promise.get", "x", 400, reason).await;
    }

    let body = format!("{{{kind},\"head\":{{\"corrId\":\"x\",\"version\":\"1\"}},\"data\":{{}}}}");
    let version = "Unsupported protocol version '1', supported versions: [\"2026-04-01\"]";
    refused(&c, body.as_bytes(), "promise.get", "x", 400, version).await;
}

async fn fields_nobody_knows_are_ignored(c: Context) {
    let id = c.id("p");
    let body = format!(
        r#"{{"more":[1],"kind":"promise.get","head":{{"corrId":"x","version":"2026-04-01",
            "auth":"token","more":{{}}}},"data":{{"id":"{id}","more":null}}}}"#
    );
    refused(&c, body.as_bytes(), "promise.get", "x", 404, "Promise not found").await;

    // Of several values the last one counts, and escapes are decoded.
    let escaped = id.replace('-', "\\u002d");
    let body = format!(
        r#"{{"kind":"promise\u002eget","head":{{"corrId":"a\"b","version":"2026-04-01"}},
            "data":{{"id":1,"id":"{escaped}"}}}}"#
    );
    refused(&c, body.as_bytes(), "promise.get", "a\"b", 404, "Promise not found").await;
}

async fn unknown_and_disabled_operations_are_refused(c: Context) {
    for kind in ["promise", "promise.delete", "task.steal", "PROMISE.GET", "ü"] {
        let reply = c.call(kind, json!({})).await;
        reply.refuses(400, &format!("Unknown operation: {kind}"));
    }
    for kind in ["debug.start", "debug.stop", "debug.reset", "debug.snap", "debug.tick"] {
        c.call(kind, json!({})).await.refuses(403, "Debug operations are disabled");
    }
}

async fn health_and_readiness_answer(c: Context) {
    for route in ["health", "ready"] {
        let answer = c.server.get(&format!("/{route}")).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200, "{route}");
    }
    let answer = c.server.get("/nowhere").await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 404);
    let answer = c.server.get("/").await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 405);
}

async fn a_body_over_the_limit_is_refused(c: Context) {
    let (status, _) = c.post(vec![b' '; 2 * 1024 * 1024 + 1]).await;
    assert_eq!(status, 413);
    // A body of exactly the limit is accepted.
    let mut body =
        br#"{"kind":"promise.get","head":{"corrId":"x","version":"2026-04-01"},"data":{}}"#
            .to_vec();
    body.resize(2 * 1024 * 1024, b' ');
    refused(&c, &body, "promise.get", "x", 400, "Invalid request: missing field `id`").await;
}
