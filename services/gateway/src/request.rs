//! What a request for a flow asks for: its query parameters and headers.

use std::time::Duration;

use axum::http::HeaderMap;
use node::{Options, duration};

use crate::problem::Problem;

const LONGEST: Duration = Duration::from_secs(600);
const MOST_FAILURES: u32 = 10;

/// A checked request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The flow's id, if one was given.
    pub id: Option<String>,
    /// What the flow is to do.
    pub options: Options,
}

impl Request {
    /// Reads the query and the header `Idempotency-Key`.
    ///
    /// # Errors
    /// [`Problem::Parameter`] for the first that is unknown, doubled, or out of its bounds.
    pub fn read(query: &str, headers: &HeaderMap) -> Result<Self, Problem> {
        let mut request = Self::default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let problem = |allowed: String| bad(&name, &value, allowed);
            if seen.contains(&name) {
                return Err(problem("it is given more than once".to_owned()));
            }
            match &*name {
                "id" => request.id = Some(id("id", &value)?),
                "work" => request.options.work = Some(span(&value).map_err(problem)?),
                "sleep" => request.options.sleep = Some(span(&value).map_err(problem)?),
                "fail" => request.options.fail = Some(failures(&value).map_err(problem)?),
                _ => return Err(problem("the parameters are id, work, sleep and fail".to_owned())),
            }
            seen.push(name);
        }
        if let Some(key) = idempotency_key(headers)? {
            match &request.id {
                Some(id) if *id != key => {
                    return Err(bad(
                        "Idempotency-Key",
                        &key,
                        format!("it means the same as the parameter id, which is {id:?}"),
                    ));
                }
                _ => request.id = Some(key),
            }
        }
        Ok(request)
    }
}

/// Reads a flow's id.
///
/// # Errors
/// [`Problem::Parameter`] if it is too long, empty, or has other characters. A dot, above all,
/// would make it look like the child of another flow.
pub fn id(parameter: &str, value: &str) -> Result<String, Problem> {
    node::config::name(value).map_err(|allowed| bad(parameter, value, allowed))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let key = String::from_utf8_lossy(key.as_bytes());
    if keys.next().is_some() {
        return Err(bad("Idempotency-Key", &key, "it is given more than once".to_owned()));
    }
    // The header is a structured field, whose strings stand in quotes; most clients leave them out.
    let bare = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(&key);
    id("Idempotency-Key", bare).map(Some)
}

fn span(text: &str) -> Result<Duration, String> {
    let allowed =
        || "an integer with ms, s or m is allowed, at most 10m, such as 500ms or 6s".to_owned();
    duration::parse(text)
        .ok()
        .filter(|span| *span <= LONGEST && !text.ends_with('h'))
        .ok_or_else(allowed)
}

fn failures(text: &str) -> Result<u32, String> {
    let allowed = || format!("an integer from 0 to {MOST_FAILURES} is allowed");
    text.parse().ok().filter(|n| *n <= MOST_FAILURES).ok_or_else(allowed)
}

fn bad(parameter: &str, value: &str, allowed: String) -> Problem {
    Problem::Parameter { parameter: parameter.to_owned(), value: value.to_owned(), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, key: Option<&str>) -> Result<Request, String> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert("idempotency-key", key.parse().unwrap());
        }
        Request::read(query, &headers).map_err(|problem| match problem {
            Problem::Parameter { parameter, .. } => parameter,
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
        assert_eq!(read("id=k", Some("l")), Err("Idempotency-Key".to_owned()));
        assert_eq!(read("", Some("k l")), Err("Idempotency-Key".to_owned()));
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
            assert_eq!(read(query, None), Err(parameter.to_owned()), "{query}");
        }
    }
}
