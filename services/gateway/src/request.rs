//! What a request asks for: its query parameters, its headers and its body, checked.

use std::{fmt::Display, time::Duration};

use axum::{
    body::{Bytes, HttpBody},
    extract::{FromRequest, Request as HttpRequest},
    http::{HeaderMap, StatusCode},
};
use flows::{LONGEST, MOST_FAILURES, Options};
use settings::duration;

use crate::problem::Problem;

/// Bodies are ignored, but a larger one is refused.
pub const LARGEST_BODY: usize = 16 * 1024;

/// A body that is not complete by then is refused.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The header that means the same as the parameter `id`.
pub const KEY: &str = "Idempotency-Key";
/// What an id may be.
pub const IDS: &str = "1 to 100 characters of A-Z a-z 0-9 - _";
/// What `work` and `sleep` may be.
pub const DURATIONS: &str = "a duration such as 500ms or 6s, at most 10m";

/// A checked request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The flow's id, if the request has one.
    pub id: Option<String>,
    /// The flow's options.
    pub options: Options,
}

impl Request {
    /// Reads the query and the header `Idempotency-Key`.
    ///
    /// # Errors
    /// [`Problem::Parameter`] for the first one that is unknown, repeated or out of range.
    pub fn read(query: &str, headers: &HeaderMap) -> Result<Self, Problem> {
        let mut request = Self::default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if seen.contains(&name) {
                return Err(repeated(&name, &value));
            }
            match &*name {
                "id" => request.id = Some(id("id", &value)?),
                "work" => request.options.work = Some(duration_of("work", &value)?),
                "sleep" => request.options.sleep = Some(duration_of("sleep", &value)?),
                "fail" => request.options.fail = Some(failures(&value)?),
                _ => return Err(unknown(&name, &value)),
            }
            seen.push(name);
        }
        if let Some(key) = idempotency_key(headers)? {
            match &request.id {
                Some(id) if *id != key => return Err(differs(&key, id)),
                _ => request.id = Some(key),
            }
        }
        Ok(request)
    }
}

/// Whether the client wants an answer at once, and not the result: `Prefer: respond-async` (RFC 7240).
pub fn responds_async(headers: &HeaderMap) -> bool {
    let lists = headers.get_all("prefer").iter().filter_map(|list| list.to_str().ok());
    let mut preferences = lists.flat_map(|list| list.split([',', ';']));
    preferences.any(|preference| preference.trim().eq_ignore_ascii_case("respond-async"))
}

/// Reads the body to its end, and drops it.
///
/// # Errors
/// [`Problem::Unreadable`] if it is too large, too slow, or breaks off.
pub async fn read_body(request: HttpRequest) -> Result<(), Problem> {
    let too_large = || {
        let detail =
            format!("request body is larger than {LARGEST_BODY} bytes; bodies are ignored");
        Problem::Unreadable(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    // A declared length that is too large is refused without reading the body.
    if request.body().size_hint().lower() > LARGEST_BODY as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(too_large())
        }
        Ok(Err(rejection)) => Err(Problem::Unreadable(rejection.status(), rejection.body_text())),
        Err(_) => Err(Problem::Unreadable(
            StatusCode::REQUEST_TIMEOUT,
            format!("request body was not complete within {BODY_TIMEOUT:?}"),
        )),
    }
}

/// Reads a flow's id.
///
/// # Errors
/// [`Problem::Parameter`] if it is empty, too long, or has other characters: an id with a dot
/// would be that of a child of another flow.
pub fn id(parameter: &str, value: &str) -> Result<String, Problem> {
    settings::name(value).map_err(|_| invalid(parameter, value, IDS))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let key = String::from_utf8_lossy(key.as_bytes());
    if keys.next().is_some() {
        return Err(repeated(KEY, &key));
    }
    // The header is a structured field: a string in quotes, which most clients leave out.
    let bare = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(&key);
    id(KEY, bare).map(Some)
}

fn duration_of(parameter: &str, text: &str) -> Result<Duration, Problem> {
    duration::parse(text)
        .ok()
        .filter(|duration| *duration <= LONGEST && !text.ends_with('h'))
        .ok_or_else(|| invalid(parameter, text, DURATIONS))
}

fn failures(text: &str) -> Result<u32, Problem> {
    text.parse()
        .ok()
        .filter(|failures| *failures <= MOST_FAILURES)
        .ok_or_else(|| invalid("fail", text, format!("an integer from 0 to {MOST_FAILURES}")))
}

fn invalid(parameter: &str, value: &str, allowed: impl Display) -> Problem {
    problem(parameter, value, format!("invalid {parameter} {value:?}: expected {allowed}"), allowed)
}

fn unknown(parameter: &str, value: &str) -> Problem {
    let allowed = "id, work, sleep or fail";
    problem(
        parameter,
        value,
        format!("unknown parameter {parameter:?}: expected {allowed}"),
        allowed,
    )
}

fn repeated(parameter: &str, value: &str) -> Problem {
    problem(parameter, value, format!("{parameter} was given more than once"), "one value")
}

fn differs(key: &str, id: &str) -> Problem {
    let detail = format!("{KEY} {key:?} differs from id {id:?}; send one of them");
    problem(KEY, key, detail, format!("the same as id, {id:?}"))
}

fn problem(parameter: &str, value: &str, detail: String, allowed: impl Display) -> Problem {
    Problem::Parameter {
        parameter: parameter.to_owned(),
        value: value.to_owned(),
        allowed: allowed.to_string(),
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, key: Option<&str>) -> Result<Request, (String, String)> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert("idempotency-key", key.parse().unwrap());
        }
        Request::read(query, &headers).map_err(|problem| match problem {
            Problem::Parameter { parameter, detail, .. } => (parameter, detail),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn every_parameter_is_read() {
        let request = read("id=a-B_9&work=6s&sleep=500ms&fail=10", None).unwrap();
        assert_eq!(request.id.as_deref(), Some("a-B_9"));
        let options = Options {
            work: Some(Duration::from_secs(6)),
            sleep: Some(Duration::from_millis(500)),
            fail: Some(10),
        };
        assert_eq!(request.options, options);
        assert_eq!(read("", None).unwrap(), Request::default());
    }

    #[test]
    fn a_key_is_an_id() {
        assert_eq!(read("", Some("k")).unwrap().id.as_deref(), Some("k"));
        assert_eq!(read("", Some("\"k\"")).unwrap().id.as_deref(), Some("k"));
        assert_eq!(read("id=k", Some("k")).unwrap().id.as_deref(), Some("k"));
        assert_eq!(read("", Some("k l")).unwrap_err().0, KEY);
    }

    #[test]
    fn a_client_may_ask_for_an_answer_at_once() {
        for (prefer, expected) in
            [("respond-async", true), ("wait=5, Respond-Async", true), ("return=minimal", false)]
        {
            let headers =
                HeaderMap::from_iter([("prefer".parse().unwrap(), prefer.parse().unwrap())]);
            assert_eq!(responds_async(&headers), expected, "{prefer}");
        }
        assert!(!responds_async(&HeaderMap::new()));
    }

    #[test]
    fn a_bad_parameter_is_named() {
        let long = format!("id={}", "x".repeat(101));
        for (query, parameter) in [
            ("id=", "id"),
            ("id=a.b", "id"),
            ("id=a%20b", "id"),
            (&*long, "id"),
            ("id=%ff", "id"),
            ("id=a&id=a", "id"),
            ("work=6", "work"),
            ("work=11m", "work"),
            ("work=0h", "work"),
            ("work=-1s", "work"),
            ("work=1.5s", "work"),
            ("sleep=soon", "sleep"),
            ("fail=11", "fail"),
            ("fail=-1", "fail"),
            ("fail=", "fail"),
            ("wrok=6s", "wrok"),
        ] {
            assert_eq!(read(query, None).unwrap_err().0, parameter, "{query}");
        }
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        for (query, key, detail) in [
            (
                "work=6",
                None,
                "invalid work \"6\": expected a duration such as 500ms or 6s, at most 10m",
            ),
            ("wrok=6s", None, "unknown parameter \"wrok\": expected id, work, sleep or fail"),
            ("id=a&id=a", None, "id was given more than once"),
            ("id=a.b", None, "invalid id \"a.b\": expected 1 to 100 characters of A-Z a-z 0-9 - _"),
            ("fail=11", None, "invalid fail \"11\": expected an integer from 0 to 10"),
            ("id=x", Some("k"), "Idempotency-Key \"k\" differs from id \"x\"; send one of them"),
        ] {
            assert_eq!(read(query, key).unwrap_err().1, detail);
        }
    }
}
