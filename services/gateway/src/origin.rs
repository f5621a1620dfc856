//! The 403 for pages of other sites: only the gateway's own pages start or change anything.
//!
//! A browser lets any page send a form anywhere. It says where a request comes from: `Sec-Fetch-Site`,
//! or in older browsers `Origin`. Other clients send neither, and put no user's browser at risk.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::problem::Problem;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A middleware that refuses what pages of other sites send, unless it changes nothing.
pub async fn check(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    match foreign(request.headers()).filter(|_| !reads) {
        Some(origin) => Problem::CrossOrigin(origin).into_response(),
        None => next.run(request).await,
    }
}

/// The other site that a request comes from.
fn foreign(headers: &HeaderMap) -> Option<String> {
    let text = |name: &HeaderName| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let origin = text(&header::ORIGIN);
    let is_own = match (text(&FETCH_SITE), &origin) {
        // `none`: the user has typed the address, or follows a bookmark.
        (Some(site), _) => matches!(site.as_str(), "same-origin" | "none"),
        (None, Some(origin)) => {
            let origin = origin.parse::<Uri>().ok();
            let origin = origin.as_ref().and_then(Uri::authority).map(ToString::to_string);
            origin.zip(text(&header::HOST)).is_some_and(|(a, b)| a.eq_ignore_ascii_case(&b))
        }
        (None, None) => true,
    };
    (!is_own).then(|| origin.unwrap_or_else(|| "another site".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_another_site_is_known_by_its_headers() {
        let (own, other) = ("http://127.0.0.1:5000", "http://evil.example");
        for (site, origin, refused) in [
            (None, None, false),
            (None, Some(own), false),
            (None, Some("http://127.0.0.1:3000"), true),
            (None, Some(other), true),
            // A sandboxed page, or a redirect between sites.
            (None, Some("null"), true),
            (Some("same-origin"), Some(own), false),
            (Some("none"), None, false),
            (Some("cross-site"), Some(other), true),
            (Some("cross-site"), None, true),
            // Another port of the same host.
            (Some("same-site"), Some("http://127.0.0.1:3000"), true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "127.0.0.1:5000".parse().unwrap());
            site.map(|site| headers.insert(FETCH_SITE, site.parse().unwrap()));
            origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
            assert_eq!(foreign(&headers).is_some(), refused, "{site:?} {origin:?}");
        }
    }
}
