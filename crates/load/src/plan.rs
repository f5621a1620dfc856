//! One flow: what is asked of it, and which answers are right.

use std::time::Duration;

use flows::{Answer, Flow, Options};
use reqwest::{
    StatusCode,
    header::{HeaderMap, LOCATION, RETRY_AFTER},
};
use serde_json::Value;

/// The documented attempts of a step: a flow that is to fail this often fails for good.
pub const ATTEMPTS: u32 = 5;

/// A flow, and what is asked of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The flow.
    pub flow: &'static Flow,
    /// Its id.
    pub id: String,
    /// What is asked of it.
    pub options: Options,
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is final.
    Ended(End),
    /// It is right, and the flow goes on: `GET /flows/{id}` tells its end.
    Running,
    /// The gateway cannot tell yet: the same request is to be sent again, after this time if it
    /// names one.
    Again(Option<Duration>),
}

/// How a flow ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// As documented.
    Right,
    /// Otherwise: this is what was answered.
    Wrong(String),
    /// The gateway knows nothing of a flow that it has accepted, or the flow did not end in time.
    Lost(String),
}

impl Plan {
    /// The target of the request that starts it.
    pub fn path(&self) -> String {
        let mut path = format!("{}?id={}", self.flow.route(), self.id);
        for (name, value) in self.options.named() {
            if let Some(value) = value {
                path += &format!("&{name}={value}");
            }
        }
        path
    }

    /// The target of the request that tells its end.
    pub fn inspection(&self) -> String {
        format!("/flows/{}", self.id)
    }

    /// Whether nobody waits for its end.
    pub fn is_detached(&self) -> bool {
        matches!(self.flow.answer, Answer::AtOnce(_))
    }

    /// Whether it has to fail.
    pub fn fails(&self) -> bool {
        self.options.fail.is_some_and(|failures| failures >= ATTEMPTS)
    }

    /// Judges the answer to the `POST` that starts it, or finds it again.
    pub fn judge(&self, status: StatusCode, headers: &HeaderMap, body: &str) -> Verdict {
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        let message = &json["message"];
        let is_ours = json["id"] == *self.id;
        let right = match status.as_u16() {
            // A flow that nobody waits for is done only if it does not fail.
            200 if self.is_detached() && *message == self.flow.message_again() => !self.fails(),
            200 if self.is_detached() => *message == self.flow.message(),
            200 => !self.fails() && *message == self.flow.message(),
            202 if !self.is_detached() && is_ours => {
                let location = headers.get(LOCATION).map(|value| value.as_bytes());
                if location == Some(self.inspection().as_bytes()) {
                    return Verdict::Running;
                }
                false
            }
            502 => self.fails() && self.is_requested(&json["error"]),
            429 | 503 if headers.contains_key(RETRY_AFTER) => {
                return Verdict::Again(pause(headers));
            }
            _ => false,
        };
        match (right && is_ours, self.is_detached() && status == StatusCode::OK) {
            (true, true) => Verdict::Running,
            (true, false) => Verdict::Ended(End::Right),
            (false, _) => {
                let answer = format!("POST {}: {}", self.path(), short(status, body));
                Verdict::Ended(End::Wrong(answer))
            }
        }
    }

    /// Judges the answer to the `GET` about it.
    pub fn judge_end(&self, status: StatusCode, headers: &HeaderMap, body: &str) -> Verdict {
        let answer =
            || format!("{} after POST {}: {}", self.inspection(), self.path(), short(status, body));
        match status.as_u16() {
            200 => {}
            404 => return Verdict::Ended(End::Lost(answer())),
            429 | 503 if headers.contains_key(RETRY_AFTER) => {
                return Verdict::Again(pause(headers));
            }
            _ => return Verdict::Ended(End::Wrong(answer())),
        }
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        let is_ours = json["id"] == *self.id && json["flow"] == self.flow.name;
        let states = || json["invocations"].as_array().into_iter().flatten().map(|it| &it["state"]);
        let right = match json["state"].as_str() {
            Some("pending") if is_ours => return Verdict::Running,
            Some("rejected") => self.fails() && self.is_requested(&json["error"]),
            Some("resolved") => {
                !self.fails()
                    && json["result"] == self.flow.result()
                    && states().count() == self.flow.functions.len()
                    && states().all(|state| state == "resolved")
            }
            _ => false,
        };
        Verdict::Ended(if right && is_ours { End::Right } else { End::Wrong(answer()) })
    }

    /// Whether an error is the one that was asked for.
    fn is_requested(&self, error: &Value) -> bool {
        let failures = self.options.fail.unwrap_or_default();
        let expected = format!("failed as requested (attempt {ATTEMPTS}, fail={failures})");
        error.as_str().is_some_and(|error| error.contains(&expected))
    }
}

/// The time in `Retry-After`, if it is a number of seconds.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// An answer in one line.
fn short(status: StatusCode, body: &str) -> String {
    const LONGEST: usize = 500;
    let body: String =
        body.chars().take(LONGEST).map(|c| if c == '\n' { ' ' } else { c }).collect();
    format!("{} {body}", status.as_u16())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use serde_json::json;

    use super::*;

    fn plan(flow: &str, fail: Option<u32>) -> Plan {
        let flow = Flow::by_name(flow).unwrap();
        Plan { flow, id: "x".to_owned(), options: Options { fail, ..Options::default() } }
    }

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    }

    /// What the answer means: the word of the verdict.
    fn judged(plan: &Plan, status: u16, headers: &HeaderMap, body: &Value) -> &'static str {
        word(&plan.judge(StatusCode::from_u16(status).unwrap(), headers, &body.to_string()))
    }

    fn ended(plan: &Plan, status: u16, headers: &HeaderMap, body: &Value) -> &'static str {
        word(&plan.judge_end(StatusCode::from_u16(status).unwrap(), headers, &body.to_string()))
    }

    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Running => "running",
            Verdict::Again(_) => "again",
            Verdict::Ended(End::Right) => "right",
            Verdict::Ended(End::Lost(_)) => "lost",
            Verdict::Ended(End::Wrong(_)) => "wrong",
        }
    }

    const FAILED: &str = "failed as requested (attempt 5, fail=5)";

    #[test]
    fn a_path_has_the_id_and_what_is_asked_for() {
        let mut plan = plan("await-chain", Some(2));
        plan.options.work = Some(Duration::from_millis(1_500));
        assert_eq!(plan.path(), "/await-chain?id=x&work=1500ms&fail=2");
    }

    #[test]
    fn only_the_documented_answer_of_a_flow_is_right() {
        let none = HeaderMap::new();
        let (ok, fails) = (plan("await-chain", Some(4)), plan("await-chain", Some(5)));
        let three = json!({"message": 3, "id": "x"});
        let failed = json!({"error": FAILED, "id": "x"});
        assert_eq!(judged(&ok, 200, &none, &three), "right");
        assert_eq!(judged(&fails, 200, &none, &three), "wrong");
        assert_eq!(judged(&fails, 502, &none, &failed), "right");
        assert_eq!(judged(&ok, 502, &none, &failed), "wrong");
        let failed = json!({"error": "failed as requested (attempt 5, fail=4)", "id": "x"});
        assert_eq!(judged(&ok, 502, &none, &failed), "wrong");
        for body in [
            json!({"message": 4, "id": "x"}),
            json!({"message": "3", "id": "x"}),
            json!({"message": 3, "id": "y"}),
            json!({"id": "x"}),
            Value::Null,
        ] {
            assert_eq!(judged(&ok, 200, &none, &body), "wrong", "{body}");
        }
        for body in [json!({"error": "out of memory", "id": "x"}), json!({"error": FAILED})] {
            assert_eq!(judged(&fails, 502, &none, &body), "wrong", "{body}");
        }
        for status in [201, 404, 422, 500, 504] {
            assert_eq!(judged(&ok, status, &none, &three), "wrong", "{status}");
        }
    }

    #[test]
    fn an_answer_that_is_not_final_is_asked_for_again() {
        let plan = plan("await-chain", None);
        let pending = json!({"state": "pending", "id": "x"});
        let location = headers("location", "/flows/x");
        assert_eq!(judged(&plan, 202, &location, &pending), "running");
        assert_eq!(judged(&plan, 202, &headers("location", "/flows/y"), &pending), "wrong");
        for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
            let busy = plan.judge(status, &headers("retry-after", "2"), "");
            assert_eq!(busy, Verdict::Again(Some(Duration::from_secs(2))));
        }
        assert_eq!(judged(&plan, 503, &HeaderMap::new(), &Value::Null), "wrong");
    }

    #[test]
    fn a_flow_that_nobody_waits_for_is_judged_by_its_end() {
        let none = HeaderMap::new();
        let (ok, fails) = (plan("detached-chain", None), plan("detached-chain", Some(5)));
        let started = json!({"message": "detached-chain started", "id": "x"});
        let done = json!({"message": "detached-chain done", "id": "x"});
        for plan in [&ok, &fails] {
            assert_eq!(judged(plan, 200, &none, &started), "running");
        }
        // A repeated request may find it ended.
        assert_eq!(judged(&ok, 200, &none, &done), "running");
        assert_eq!(judged(&fails, 200, &none, &done), "wrong");
        assert_eq!(judged(&fails, 502, &none, &json!({"error": FAILED, "id": "x"})), "right");
        assert_eq!(judged(&ok, 202, &headers("location", "/flows/x"), &started), "wrong");

        let end = |state: &str, states: [&str; 3]| {
            let states = states.map(|state| json!({"state": state}));
            let (result, error) = (Value::Null, FAILED);
            json!({"id": "x", "flow": "detached-chain", "state": state, "result": result,
                "error": error, "invocations": states})
        };
        let all = ["resolved"; 3];
        assert_eq!(ended(&ok, 200, &none, &end("resolved", all)), "right");
        assert_eq!(ended(&ok, 200, &none, &end("pending", all)), "running");
        assert_eq!(ended(&ok, 200, &none, &end("rejected", all)), "wrong");
        assert_eq!(ended(&ok, 200, &none, &end("rejected_timedout", all)), "wrong");
        assert_eq!(ended(&fails, 200, &none, &end("rejected", all)), "right");
        assert_eq!(ended(&fails, 200, &none, &end("resolved", all)), "wrong");
        let open = ["resolved", "resolved", "pending"];
        assert_eq!(ended(&ok, 200, &none, &end("resolved", open)), "wrong");
        let mut two = end("resolved", all);
        two["invocations"].as_array_mut().unwrap().pop();
        assert_eq!(ended(&ok, 200, &none, &two), "wrong");
        let mut three = end("resolved", all);
        three["result"] = json!(3);
        assert_eq!(ended(&ok, 200, &none, &three), "wrong");
        assert_eq!(ended(&ok, 404, &none, &Value::Null), "lost");
        assert_eq!(ended(&ok, 503, &headers("retry-after", "1"), &Value::Null), "again");
        assert_eq!(ended(&ok, 500, &none, &Value::Null), "wrong");
    }
}
