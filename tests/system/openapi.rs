//! `GET /openapi.json` against the gateway: every documented example is sent, and every answer has a
//! documented status and body.

use reqwest::Method;
use serde_json::Value;
use testkit::{Answer, Server, Stopped, System};

testkit::on_each_server!(the_documented_requests_and_problems_are_answered_as_documented);

/// The document.
struct Document(Value);

/// A method and a path of the document, and its description.
struct Operation<'a> {
    method: Method,
    path: &'a str,
    described: &'a Value,
}

impl Document {
    fn operations(&self) -> Vec<Operation<'_>> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        paths
            .flat_map(|(path, item)| {
                item.as_object().unwrap().iter().map(move |(method, described)| Operation {
                    method: method.to_uppercase().parse().unwrap(),
                    path,
                    described,
                })
            })
            .collect()
    }

    fn operation(&self, id: &str) -> Operation<'_> {
        let mut all = self.operations().into_iter();
        all.find(|operation| operation.described["operationId"] == id).unwrap()
    }

    /// What a reference leads to.
    fn resolve<'a>(&'a self, described: &'a Value) -> &'a Value {
        match described["$ref"].as_str() {
            Some(place) => self.0.pointer(place.trim_start_matches('#')).expect(place),
            None => described,
        }
    }

    /// Why a value is not what a schema describes. `known` gets the names of its members.
    fn check(&self, value: &Value, schema: &Value, known: &mut Vec<String>) -> Result<(), String> {
        let schema = self.resolve(schema);
        let part = |name: &str| schema[name].as_array().cloned().unwrap_or_default();
        for all in part("allOf") {
            self.check(value, &all, known)?;
        }
        let any = part("anyOf");
        let fits: Vec<_> = any.iter().map(|one| self.check(value, one, known)).collect();
        if !fits.is_empty() && fits.iter().all(Result::is_err) {
            return Err(format!("{value} is none of {any:?}"));
        }
        let types = match &schema["type"] {
            Value::Array(types) => types.clone(),
            Value::Null => Vec::new(),
            one => vec![one.clone()],
        };
        let is = |name: &Value| match name.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("type {other}"),
        };
        if !types.is_empty() && !types.iter().any(is) {
            return Err(format!("{value} is not of type {types:?}"));
        }
        let values = part("enum");
        if !values.is_empty() && !values.contains(value) {
            return Err(format!("{value} is none of {values:?}"));
        }
        for name in part("required") {
            if value.get(name.as_str().unwrap()).is_none() {
                return Err(format!("{value} has no {name}"));
            }
        }
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            known.push(name.clone());
            if let Some(value) = value.get(name) {
                self.check(value, member, known)?;
            }
        }
        for item in value.as_array().into_iter().flatten().filter(|_| schema["items"].is_object()) {
            self.check_all(item, &schema["items"])?;
        }
        Ok(())
    }

    /// The same, and each member of the value must be described.
    fn check_all(&self, value: &Value, schema: &Value) -> Result<(), String> {
        let mut known = Vec::new();
        self.check(value, schema, &mut known)?;
        match value.as_object().into_iter().flatten().find(|(name, _)| !known.contains(name)) {
            Some((name, _)) => Err(format!("{name} of {value} is not described")),
            None => Ok(()),
        }
    }

    /// Fails unless the answer is one that the operation describes.
    fn expect(&self, operation: &Operation, answer: &Answer) {
        let Operation { method, path, described } = operation;
        let about = format!("{method} {path}: {} {}", answer.status, answer.text);
        let response = self.resolve(&described["responses"][answer.status.to_string()]);
        assert!(response.is_object(), "this status is not described: {about}");
        let kind = answer.header("content-type").split(';').next().unwrap().to_owned();
        let content = &response["content"][&kind];
        assert!(content.is_object(), "content {kind} is not described: {about}");
        if kind.ends_with("json") && *path != "/openapi.json" {
            let checked = self.check_all(&answer.body, &content["schema"]);
            checked.unwrap_or_else(|wrong| panic!("{wrong}: {about}"));
        }
        for name in response["headers"].as_object().into_iter().flatten().map(|(name, _)| name) {
            assert!(!answer.header(name).is_empty(), "no header {name}: {about}");
        }
    }
}

/// A text in a URL.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Sends an operation with the examples of its parameters, but those in `other` as they are there.
async fn send(
    system: &System,
    operation: &Operation<'_>,
    other: &[(&str, &str)],
    headers: &[(&str, &str)],
) -> Answer {
    let (mut path, mut query, mut own) = (operation.path.to_owned(), Vec::new(), Vec::new());
    for parameter in operation.described["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let example = text(&parameter["example"]);
        assert!(!example.is_empty(), "{name} of {} has no example", operation.path);
        let set = other.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        let value = set.unwrap_or(&example);
        match parameter["in"].as_str().unwrap() {
            "path" => path = path.replace(&format!("{{{name}}}"), value),
            "query" => query.push(format!("{name}={value}")),
            // It has a status of its own. The key has to be the id.
            "header" if name != "Prefer" && other.is_empty() => own.push((name, value.to_owned())),
            _ => {}
        }
    }
    let path = format!("{path}?{}", query.join("&"));
    let own = own.iter().map(|(name, value)| (*name, value.as_str()));
    let headers: Vec<_> = own.chain(headers.iter().copied()).collect();
    system
        .http()
        .send(operation.method.clone(), path.trim_end_matches('?'), &headers)
        .await
        .unwrap()
}

async fn the_documented_requests_and_problems_are_answered_as_documented(
    server: Server,
) -> Stopped {
    let system = System::start(server, &[]).await;
    let answer = system.http().get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.body["openapi"], "3.1.0");
    let document = Document(answer.body);

    // Flows come first.
    let operations = document.operations();
    assert!(operations.len() >= 10, "{}", operations.len());
    for operation in &operations {
        let answer = send(&system, operation, &[], &[]).await;
        assert_eq!(answer.status, 200, "{} {}: {}", operation.method, operation.path, answer.text);
        document.expect(operation, &answer);
    }

    let other = [("sec-fetch-site", "cross-site")];
    for (operation, parameters, headers, status) in [
        ("await-chain", &[("id", "openapi-async")][..], &[("prefer", "respond-async")][..], 202),
        ("flow", &[], &[("accept", "text/html")], 200),
        ("await-chain", &[("work", "6")], &[], 400),
        ("await-chain", &[("work", "3s")], &[], 422),
        ("fan-out-workflow", &[("id", "openapi-fails"), ("fail", "5")], &[], 502),
        ("await-chain", &[("id", "openapi-foreign")], &other, 403),
        ("flow", &[("id", "openapi-foreign")], &[], 404),
        ("flow", &[("id", "a.b")], &[], 400),
        ("cancel", &[("id", "openapi-foreign")], &[], 404),
        ("cancel", &[("id", "%ff")], &[], 400),
        ("cancel", &[], &other, 403),
        ("crash", &[("group", "service-z")], &[], 404),
        ("crash", &[("instance", "a.b")], &[], 400),
        ("crash", &[("instance", "service-b-replica-9")], &[], 504),
        ("crash", &[], &other, 403),
    ] {
        let operation = document.operation(operation);
        let answer = send(&system, &operation, parameters, headers).await;
        assert_eq!(answer.status, status, "{} {}", operation.path, answer.text);
        document.expect(&operation, &answer);
    }

    // A flow that takes longer than a request, and is canceled.
    let gateway = system.another_gateway("gateway-2", &[("GATEWAY_AWAIT", "1ms")]).await;
    let path = "/await-chain?id=openapi-canceled&sleep=10m";
    let operation = document.operation("await-chain");
    let pending = gateway.post(path).await;
    assert_eq!(pending.status, 202, "{}", pending.text);
    document.expect(&operation, &pending);
    let flow = document.operation("flow");
    document.expect(&flow, &system.http().get("/flows/openapi-canceled").await);
    let cancel = document.operation("cancel");
    let canceled = send(&system, &cancel, &[("id", "openapi-canceled")], &[]).await;
    document.expect(&cancel, &canceled);
    let canceled = gateway.post(path).await;
    assert_eq!(canceled.status, 409, "{}", canceled.text);
    document.expect(&operation, &canceled);
    system.stop().await
}
