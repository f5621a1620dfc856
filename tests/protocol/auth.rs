//! Tokens: the same statuses on both servers.

use std::path::Path;

use embedded_server::{Auth, Config, PublicKey};
use serde_json::{Value, json};
use testkit::{
    Log, Resonate, Server,
    auth::{Algorithm, Signer, in_seconds, settings},
    resonate::{CORR_ID, VERSION},
};

use crate::servers::Embedded;

tests![
    a_token_is_verified_by_the_public_key_whatever_its_algorithm,
    a_token_covers_the_ids_that_begin_with_its_prefix,
    issuer_and_audience_are_those_that_the_server_asks_for,
    the_embedded_server_refuses_a_file_that_is_no_public_key,
];

/// Runs `case` on an embedded server, and on an official one if there is one, which verify tokens by
/// this key.
async fn on_each(
    signer: &Signer,
    names: Option<(&str, &str)>,
    case: impl AsyncFn(&Resonate, &str),
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("public.pem");
    std::fs::write(&path, &signer.public).unwrap();
    let (iss, aud) = names.unzip();
    let auth = Auth {
        key: PublicKey::read(path.to_str().unwrap()).unwrap(),
        iss: iss.map(str::to_owned),
        aud: aud.map(str::to_owned),
    };
    let server = Embedded::start(Config { auth: Some(auth), ..Config::default() }).await;
    case(&Resonate::new(&server.url), "the embedded server").await;
    server.stop().await;
    if Server::official_is_here("auth") {
        let mut server = Server::Official.prepare(&Log::new());
        server.settings = official(&path, names);
        server.start().await;
        case(&Resonate::new(&server.url()), "the official server").await;
    }
}

fn official(public_key: &Path, names: Option<(&str, &str)>) -> Vec<(String, String)> {
    let mut all = settings(public_key);
    if let Some((iss, aud)) = names {
        all.push(("RESONATE_AUTH__ISS".to_owned(), iss.to_owned()));
        all.push(("RESONATE_AUTH__AUD".to_owned(), aud.to_owned()));
    }
    all
}

/// The status of the answer to a request with this token, which is also that of the envelope.
async fn status(server: &Resonate, token: &Value, kind: &str, data: &Value) -> u16 {
    let mut head = json!({"corrId": CORR_ID, "version": VERSION});
    if !token.is_null() {
        head["auth"] = token.clone();
    }
    let request = json!({"kind": kind, "head": head, "data": data});
    let (status, body) = server.post(request.to_string().into_bytes()).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&answer["kind"], &answer["head"]["status"]), (&json!(kind), &json!(status)));
    match status {
        401 => assert_eq!(answer["data"], "Unauthorized"),
        403 => assert_eq!(answer["data"], "Forbidden"),
        _ => {}
    }
    status
}

/// The status of a message stream with this `Authorization` header.
async fn stream(server: &Resonate, authorization: Option<&str>) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.get(format!("{}/poll/g/i", server.url()));
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    request.send().await.unwrap().status().as_u16()
}

async fn a_token_is_verified_by_the_public_key_whatever_its_algorithm() {
    let get = json!({"id": "x"});
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let (signer, other) = (Signer::new(algorithm), Signer::new(algorithm));
        let of_another_kind = Signer::new(match algorithm {
            Algorithm::RS256 => Algorithm::ES256,
            _ => Algorithm::RS256,
        });
        on_each(&signer, None, async |server, name| {
            let good = signer.token(60);
            let tampered = format!("{}A.{}", &good[..good.len() / 2], &good[good.len() / 2..]);
            for (what, token, expected) in [
                ("a good one", json!(good), 404),
                ("none", Value::Null, 401),
                ("an empty one", json!(""), 401),
                ("no JWT", json!("s3cret"), 401),
                ("one that was changed", json!(tampered), 401),
                ("one of another key", json!(other.token(60)), 401),
                ("one of another kind of key", json!(of_another_kind.token(60)), 401),
                ("an expired one", json!(signer.token(-120)), 401),
                // Clocks may differ by a minute.
                ("one that has just expired", json!(signer.token(-5)), 404),
                ("one that never expires", json!(signer.sign(&json!({"prefix": ""}))), 401),
            ] {
                let found = status(server, &token, "promise.get", &get).await;
                assert_eq!(found, expected, "{what} ({algorithm:?}) on {name}");
                let header = token.as_str().map(|token| format!("Bearer {token}"));
                let found = stream(server, header.as_deref()).await;
                let expected = if expected == 401 { 401 } else { 200 };
                assert_eq!(found, expected, "a stream with {what} ({algorithm:?}) on {name}");
            }
            assert_eq!(stream(server, Some(&good)).await, 401, "{name}");
            assert_eq!(stream(server, Some(&format!("bearer {good}"))).await, 401, "{name}");
            // Health needs none.
            assert_eq!(server.get("/health").await.unwrap().status(), 200, "{name}");
        })
        .await;
    }
}

async fn a_token_covers_the_ids_that_begin_with_its_prefix() {
    let signer = Signer::new(Algorithm::ES256);
    on_each(&signer, None, async |server, name| {
        let exp = in_seconds(60);
        let token = |mut claims: Value| {
            claims["exp"] = exp.into();
            json!(signer.sign(&claims))
        };
        let mine = token(json!({"prefix": "mine-"}));
        let create = |id: &str| json!({"id": id, "timeoutAt": (exp + 60) * 1_000});
        let action = |id: &str| json!({"kind": "promise.create", "head": {}, "data": create(id)});
        let settle = |id: &str| {
            json!({"kind": "promise.settle", "head": {}, "data": {"id": id, "state": "resolved"}})
        };
        let beat = |ids: &[&str]| {
            let tasks: Vec<_> = ids.iter().map(|id| json!({"id": id, "version": 1})).collect();
            json!({"pid": "p", "tasks": tasks})
        };
        let listen = |id: &str| json!({"awaited": id, "address": "poll://any@g"});
        for (kind, data, expected) in [
            ("promise.create", create("mine-1"), 200),
            ("promise.create", create("other"), 403),
            ("promise.get", json!({"id": "mine-1"}), 200),
            ("promise.get", json!({"id": "Mine-1"}), 403),
            ("promise.get", json!({"id": ""}), 403),
            // What cannot be read is refused for that.
            ("promise.get", json!({}), 400),
            ("promise.get", json!({"id": 1}), 400),
            ("promise.register_listener", listen("mine-1"), 200),
            ("promise.register_listener", listen("other"), 403),
            ("promise.search", json!({}), 403),
            ("task.search", json!({}), 403),
            ("task.get", json!({"id": "mine-1"}), 404),
            ("task.get", json!({"id": "other"}), 403),
            (
                "task.create",
                json!({"pid": "p", "ttl": 60_000, "action": action("other")}),
                403,
            ),
            // A fence counts by its task, and not by what it creates.
            ("task.fence", json!({"id": "mine-1", "version": 1, "action": action("other")}), 404),
            ("task.fence", json!({"id": "other", "version": 1, "action": action("mine-2")}), 403),
            ("task.fulfill", json!({"id": "other", "version": 1, "action": settle("other")}), 403),
            ("task.heartbeat", beat(&["mine-1", "mine-2"]), 200),
            ("task.heartbeat", beat(&["mine-1", "other"]), 403),
            ("task.heartbeat", beat(&[]), 200),
            ("unknown.kind", json!({"id": "mine-1"}), 403),
        ] {
            let found = status(server, &mine, kind, &data).await;
            assert_eq!(found, expected, "{kind} {data} on {name}");
        }
        for (claims, expected) in [
            (json!({"prefix": ""}), 200),
            (json!({"role": "Admin"}), 200),
            (json!({"role": "admin", "prefix": "other"}), 200),
            (json!({"role": "user", "prefix": "mine-"}), 200),
            (json!({"role": "user"}), 403),
            (json!({"prefix": null}), 403),
            (json!({"prefix": 1}), 403),
            (json!({"prefix": ["mine-"]}), 403),
            (json!({"prefix": "", "aud": ["a"]}), 200),
            // The official server reads no audience but a list.
            (json!({"prefix": "", "aud": "a"}), 401),
        ] {
            let get = json!({"id": "mine-1"});
            let found = status(server, &token(claims.clone()), "promise.get", &get).await;
            assert_eq!(found, expected, "{claims} on {name}");
            let header = format!("Bearer {}", token(claims.clone()).as_str().unwrap());
            let expected = if expected == 401 { 401 } else { 200 };
            let found = stream(server, Some(&header)).await;
            assert_eq!(found, expected, "a stream with {claims} on {name}");
        }
        // What is wrong with the envelope comes before the token.
        let head = json!({"corrId": CORR_ID, "version": "1999-01-01"});
        let request = json!({"kind": "promise.get", "head": head, "data": {"id": "other"}});
        assert_eq!(server.post(request.to_string().into_bytes()).await.0, 400, "{name}");
    })
    .await;
}

async fn issuer_and_audience_are_those_that_the_server_asks_for() {
    let signer = Signer::new(Algorithm::EdDSA);
    on_each(&signer, Some(("us", "resonate")), async |server, name| {
        for (iss, aud, expected) in [
            (json!("us"), json!(["resonate"]), 404),
            (json!("us"), json!(["other", "resonate"]), 404),
            (json!("them"), json!(["resonate"]), 401),
            (json!("us"), json!(["other"]), 401),
            (json!("us"), json!("resonate"), 401),
            (Value::Null, json!(["resonate"]), 401),
            (json!("us"), Value::Null, 401),
        ] {
            let mut claims = json!({"prefix": "", "exp": in_seconds(60)});
            for (claim, value) in [("iss", &iss), ("aud", &aud)] {
                if !value.is_null() {
                    claims[claim] = value.clone();
                }
            }
            let token = json!(signer.sign(&claims));
            let found = status(server, &token, "promise.get", &json!({"id": "x"})).await;
            assert_eq!(found, expected, "{claims} on {name}");
        }
    })
    .await;
}

async fn the_embedded_server_refuses_a_file_that_is_no_public_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("public.pem");
    let read = || PublicKey::read(path.to_str().unwrap()).map(drop);
    assert!(read().unwrap_err().starts_with("expected a PEM file with a public key (No such"));
    for text in ["", "-----BEGIN PUBLIC KEY-----\nMQ==\n-----END PUBLIC KEY-----\n"] {
        std::fs::write(&path, text).unwrap();
        assert!(read().unwrap_err().starts_with("expected a PEM file with an RSA"), "{text}");
    }
}
