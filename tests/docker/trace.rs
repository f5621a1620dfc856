//! Traces from Jaeger's query API.

use serde_json::Value;

use testkit::Deployment;

/// The name and the attributes of a span.
#[derive(Debug)]
pub struct Span {
    pub name: String,
    attributes: Vec<Value>,
}

impl Span {
    /// An attribute, as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        let value = &self.attributes.iter().find(|attribute| attribute["key"] == key)?["value"];
        let value = value.as_object()?.values().next()?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }
}

/// Waits until a trace in Jaeger is complete.
pub async fn trace(
    deployment: &Deployment,
    id: &str,
    mut is_complete: impl FnMut(&[Span]) -> bool,
) -> Vec<Span> {
    let jaeger = deployment.jaeger();
    let what = format!("all of trace {id} in Jaeger");
    deployment
        .until(&what, async || {
            let path = format!("/api/v3/traces/{id}");
            let answer = jaeger.send(reqwest::Method::GET, &path, &[]).await.ok()?;
            let spans = spans(&answer.body);
            is_complete(&spans).then_some(spans)
        })
        .await
}

fn spans(body: &Value) -> Vec<Span> {
    let each = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    each(&body["result"], "resourceSpans")
        .iter()
        .flat_map(|resource| each(resource, "scopeSpans"))
        .flat_map(|scope| each(&scope, "spans"))
        .map(|span| Span {
            name: span["name"].as_str().unwrap_or_default().to_owned(),
            attributes: each(&span, "attributes"),
        })
        .collect()
}
