//! What a browser loads: the pages, their scripts and their style. They are part of the executable.
//!
//! The pages hold no data: they ask for it at the addresses that curl uses too, and for what happens in a
//! flow at `events`.

use std::{hash::Hasher, sync::LazyLock};

use axum::{
    Json, Router,
    extract::{Path, State, rejection::PathRejection},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use flows::{Caller, FLOWS};
use headers::{CacheControl, ETag, HeaderMapExt, IfNoneMatch};
use serde_json::{Value, json};
use tower_http::{compression::CompressionLayer, set_header::SetResponseHeaderLayer};

use crate::{Settings, app::App, client, inspect};

/// Everything comes from the gateway itself, and nothing may show the page inside another one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

struct File {
    content_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const HOME: File = File { content_type: HTML, text: include_str!("../page/home.html") };
const FLOW: File = File { content_type: HTML, text: include_str!("../page/flow.html") };

/// The files that the pages load, and the description of the interface, which they name.
const FILES: &[(&str, File)] = &[
    (
        "/openapi.json",
        File { content_type: "application/json", text: include_str!("../openapi.json") },
    ),
    (
        "/page/style.css",
        File { content_type: "text/css; charset=utf-8", text: include_str!("../page/style.css") },
    ),
    ("/page/home.js", File { content_type: SCRIPT, text: include_str!("../page/home.js") }),
    ("/page/flow.js", File { content_type: SCRIPT, text: include_str!("../page/flow.js") }),
    ("/page/common.js", File { content_type: SCRIPT, text: include_str!("../page/common.js") }),
    (
        "/page/icon.svg",
        File { content_type: "image/svg+xml", text: include_str!("../page/icon.svg") },
    ),
];

/// The pages, and the files that they load.
pub fn routes() -> Router<App> {
    let mut router = Router::new()
        .route("/", get(async |headers: HeaderMap| HOME.answer(&headers)))
        .route("/page/settings.json", get(settings))
        .route("/page/server.json", get(server))
        .route("/flows/{id}", get(flow));
    for (path, file) in FILES {
        router = router.route(path, get(async |headers: HeaderMap| file.answer(&headers)));
    }
    let header = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
    };
    router
        .layer(CompressionLayer::new())
        .layer(header(CONTENT_SECURITY_POLICY, POLICY))
        .layer(header(X_CONTENT_TYPE_OPTIONS, "nosniff"))
}

/// `GET /flows/{id}`: the page for a browser, the state as JSON for others, and at `{id}.json` for all.
async fn flow(
    state: State<App>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let json = id.as_ref().ok().and_then(|Path(id)| id.strip_suffix(".json")).map(str::to_owned);
    let mut response = match (json, wants_html(&headers)) {
        (Some(id), _) => inspect::inspect(state, Ok(Path(id))).await.into_response(),
        (None, true) => FLOW.answer(&headers),
        (None, false) => inspect::inspect(state, id).await.into_response(),
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

impl File {
    /// The file, or 304 if the browser has it.
    fn answer(&self, request: &HeaderMap) -> Response {
        // Compressed or not, it means the same.
        let mut hash = std::hash::DefaultHasher::new();
        hash.write(self.text.as_bytes());
        let tag = format!("W/\"{:016x}\"", hash.finish());
        let tag: ETag = tag.parse().expect("hexadecimal digits in quotes are a tag");
        let known = request.typed_get::<IfNoneMatch>();
        let mut response = match known.is_none_or(|known| known.precondition_passes(&tag)) {
            true => ([(CONTENT_TYPE, self.content_type)], self.text).into_response(),
            false => StatusCode::NOT_MODIFIED.into_response(),
        };
        response.headers_mut().typed_insert(tag);
        // A browser keeps it, and asks each time whether it is still the same.
        response.headers_mut().typed_insert(CacheControl::new().with_no_cache());
        response
    }
}

/// Whether `Accept` names HTML, and not JSON with a higher weight.
fn wants_html(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT).iter().filter_map(|list| list.to_str().ok());
    let (mut html, mut json) = (0.0, 0.0);
    for range in lists.flat_map(|list| list.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
        let weight: f32 = weight.parse().unwrap_or_default();
        if kind.eq_ignore_ascii_case("text/html") {
            html = weight;
        } else if kind.eq_ignore_ascii_case("application/json") {
            json = weight;
        }
    }
    html > 0.0 && html >= json
}

/// What the pages know of the table of flows.
static TABLE: LazyLock<Value> = LazyLock::new(|| {
    let flows = FLOWS.iter().map(|flow| {
        let functions = flow.functions.iter().map(|function| {
            let (caller, detached) = match function.caller {
                Caller::Gateway => (None, false),
                Caller::Awaits(caller) => (Some(caller), false),
                Caller::Detaches(caller) => (Some(caller), true),
            };
            json!({
                "name": function.name, "group": function.group, "caller": caller,
                "detached": detached, "works": function.works, "sleeps": function.sleeps,
                "fails": function.fails,
            })
        });
        json!({
            "name": flow.name, "route": flow.route(), "about": flow.about,
            "answer": flow.message(), "functions": functions.collect::<Vec<_>>(),
        })
    });
    flows.collect()
});

/// `GET /page/settings.json`: the flows, where Jaeger is, and how to start what may be down.
async fn settings(State(app): State<App>) -> Json<Value> {
    let Settings { jaeger_url, server_start_command, group_start_command, .. } = &*app.settings;
    Json(json!({
        "flows": *TABLE, "jaeger": jaeger_url,
        "server_start": server_start_command, "group_start": group_start_command,
    }))
}

/// `GET /page/server.json`: whether the gateway reaches the Resonate Server now. An open message stream
/// does not tell: that of a frozen server is open too.
async fn server(State(app): State<App>) -> Json<Value> {
    // Any answer will do.
    let answer = app.client.get("page").await;
    Json(json!({"reachable": !matches!(answer, Err(client::Error::NoAnswer(_)))}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_html_and_others_json() {
        for (accept, expected) in [
            (None, false),
            (Some("*/*"), false),
            (Some("application/json"), false),
            (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), true),
            (Some("application/json, text/html;q=0.5"), false),
            (Some("TEXT/HTML;q=0.5, application/json;q=0.2"), true),
            (Some("text/html;q=0"), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(wants_html(&headers), expected, "{accept:?}");
        }
    }
}
