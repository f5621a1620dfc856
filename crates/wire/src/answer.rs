//! An answer as text, parsed once.

use std::{borrow::Cow, fmt};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::{
    Promise, Request, Task,
    envelope::{self, Action, AnswerHead, Envelope},
    outcome::{Acquired, Fenced, OnePromise, OneTask},
    pairs::Text,
};

/// What an answer says.
#[derive(Debug)]
pub enum AnswerBody<'a> {
    /// About a promise: `promise.*` and `task.fulfill`.
    Promise(Promise<'a>),
    /// `task.create` and `task.acquire`. The preload, the promises of the task's branch, grows with
    /// each step and is left as it is.
    Acquired(Task<'a>, Promise<'a>, Option<&'a RawValue>),
    /// `task.fence`: the promise that was created or settled, and a preload.
    Fenced(Promise<'a>, Option<&'a RawValue>),
    /// `task.get`.
    Task(Task<'a>),
    /// A refusal, and its reason.
    Refused(Cow<'a, str>),
    /// Anything else.
    Other,
}

struct View<'a> {
    status: u16,
    body: AnswerBody<'a>,
}

self_cell::self_cell!(
    struct Parsed {
        owner: String,
        #[covariant]
        dependent: View,
    }
);

/// An answer of the server.
pub struct Answer {
    parsed: Parsed,
    /// Whether the request was sent more than once: an earlier attempt may have taken effect.
    pub repeated: bool,
    /// When the attempt was sent that is answered, if a layer noted it.
    pub sent: Option<Instant>,
}

/// The response is not an answer to the request: something in between, such as a proxy, replied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAnswer {
    /// It is not JSON of an answer.
    #[error("the response is not an answer of a Resonate Server")]
    Unreadable,
    /// It answers another request.
    #[error("the answer is to another request")]
    OtherRequest,
    /// Its status is none of the protocol's.
    #[error("the answer has the unknown status {0}")]
    Status(u16),
}

impl Answer {
    /// Reads the answer to `request`.
    ///
    /// # Errors
    /// The text is not an answer to it.
    pub fn parse(request: &Request, text: String) -> Result<Self, NotAnAnswer> {
        let parsed = Parsed::try_new(text, |text| {
            let Envelope { kind, head, data }: Envelope<AnswerHead, &RawValue> =
                serde_json::from_str(text).map_err(|_| NotAnAnswer::Unreadable)?;
            if kind != request.kind() || head.corr_id != request.corr_id() {
                return Err(NotAnAnswer::OtherRequest);
            }
            if !matches!(head.status, 200 | 300 | 400..=404 | 409 | 422 | 500..=599) {
                return Err(NotAnAnswer::Status(head.status));
            }
            let body = body(&kind, head.status, data).map_err(|_| NotAnAnswer::Unreadable)?;
            Ok(View { status: head.status, body })
        })?;
        Ok(Self { parsed, repeated: false, sent: None })
    }

    /// An answer in the server's place.
    ///
    /// # Panics
    /// `data` is not what the request's kind is answered with: that is a mistake in the code.
    pub fn local(request: &Request, status: u16, data: &(impl Serialize + ?Sized)) -> Self {
        let head = AnswerHead::new(request.corr_id(), status);
        let text = envelope::to_text(request.kind(), head, data);
        Self::parse(request, text)
            .unwrap_or_else(|error| panic!("{} with other data: {error}", request.kind()))
    }

    /// 200, 300, or the status of a refusal.
    pub fn status(&self) -> u16 {
        self.parsed.borrow_dependent().status
    }

    /// What it says.
    pub fn body(&self) -> &AnswerBody<'_> {
        &self.parsed.borrow_dependent().body
    }

    /// The promise that the answer is about.
    pub fn promise(&self) -> Option<&Promise<'_>> {
        match self.body() {
            AnswerBody::Promise(promise)
            | AnswerBody::Acquired(_, promise, _)
            | AnswerBody::Fenced(promise, _) => Some(promise),
            _ => None,
        }
    }

    /// Why the request was refused; empty if it was not.
    pub fn reason(&self) -> &str {
        match self.body() {
            AnswerBody::Refused(reason) => reason,
            _ => "",
        }
    }

    /// The same answer to the same `request`, with an empty preload.
    pub fn without_preload(self, request: &Request) -> Self {
        let AnswerBody::Fenced(_, Some(preload)) = self.body() else { return self };
        let (text, preload) = (self.parsed.borrow_owner(), preload.get());
        let start = preload.as_ptr() as usize - text.as_ptr() as usize;
        let shorter = [&text[..start], "[]", &text[start + preload.len()..]].concat();
        match Self::parse(request, shorter) {
            Ok(shorter) => Self { repeated: self.repeated, sent: self.sent, ..shorter },
            Err(_) => self,
        }
    }

    /// The text, as it came.
    pub fn into_text(self) -> String {
        self.parsed.into_owner()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_tuple("Answer").field(&self.status()).field(self.body()).finish()
    }
}

fn body<'a>(kind: &str, status: u16, data: &'a RawValue) -> serde_json::Result<AnswerBody<'a>> {
    let data = data.get();
    if status >= 400 {
        // The official server gives a string; anything else says nothing that could be used.
        let reason = serde_json::from_str::<Text>(data).map_or_else(|_| Cow::default(), |it| it.0);
        return Ok(AnswerBody::Refused(reason));
    }
    Ok(match kind {
        "promise.get"
        | "promise.create"
        | "promise.settle"
        | "promise.register_listener"
        | "promise.register_callback"
        | "task.fulfill" => {
            AnswerBody::Promise(serde_json::from_str::<OnePromise<_>>(data)?.promise)
        }
        "task.create" | "task.acquire" => {
            let Acquired { task, promise, preload } = serde_json::from_str(data)?;
            AnswerBody::Acquired(task, promise, preload)
        }
        "task.fence" => {
            type Guarded<'a> = Fenced<Action<'a, OnePromise<Promise<'a>>>, Option<&'a RawValue>>;
            let Guarded { action, preload } = serde_json::from_str(data)?;
            AnswerBody::Fenced(action.data.promise, preload)
        }
        "task.get" => AnswerBody::Task(serde_json::from_str::<OneTask<_>>(data)?.task),
        _ => AnswerBody::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Get, TaskRef};
    use serde_json::json;

    fn get() -> Request {
        Request::new("promise.get", &Get { id: "x".into() })
    }

    #[test]
    fn only_an_answer_to_this_request_is_an_answer() {
        let promise =
            json!({"promise": {"id": "x", "state": "pending", "timeoutAt": 1, "createdAt": 0}});
        let text = |kind: &str, id: &str, status: u16, data: &serde_json::Value| {
            envelope::to_text(kind, AnswerHead::new(id, status), data)
        };
        let read = |text: String| Answer::parse(&get(), text).map(|answer| answer.status());
        let (kind, id) = ("promise.get", get().corr_id().to_owned());
        let of_another = Request::new(kind, &Get { id: "y".into() }).corr_id().to_owned();
        assert_eq!(read(text(kind, &id, 200, &promise)), Ok(200));
        assert_eq!(read(text(kind, &id, 404, &json!("Promise not found"))), Ok(404));
        assert_eq!(read(text("task.get", &id, 200, &promise)), Err(NotAnAnswer::OtherRequest));
        for other in ["another", &of_another] {
            assert_eq!(read(text(kind, other, 200, &promise)), Err(NotAnAnswer::OtherRequest));
        }
        assert_eq!(read(text(kind, &id, 429, &json!("slow"))), Err(NotAnAnswer::Status(429)));
        assert_eq!(read(text(kind, &id, 200, &json!({}))), Err(NotAnAnswer::Unreadable));
        let whole = text(kind, &id, 200, &promise);
        for garbage in ["slow down", "<html></html>", "", &whole[..whole.len() - 1]] {
            assert_eq!(read(garbage.to_owned()), Err(NotAnAnswer::Unreadable), "{garbage}");
        }
    }

    #[test]
    fn a_preload_is_left_out() {
        let promise = json!({"id": "x.0", "state": "pending", "timeoutAt": 1, "createdAt": 0});
        let create = json!({"id": "x.0", "timeoutAt": 1});
        let action = json!({"kind": "promise.create", "head": {}, "data": create});
        let fence = json!({"id": "x", "version": 1, "action": action});
        let request = Request::new("task.fence", &fence);
        let answer = |preload: serde_json::Value| {
            let head = json!({"corrId": "1", "status": 200});
            let data = json!({"promise": promise});
            let action = json!({"kind": "promise.create", "head": head, "data": data});
            Answer::local(&request, 200, &json!({"action": action, "preload": preload}))
        };
        let whole = answer(json!([promise, promise]));
        assert_eq!(whole.without_preload(&request).into_text(), answer(json!([])).into_text());
    }

    #[test]
    fn an_answer_in_the_servers_place_reads_as_one_of_the_server() {
        let release = Request::new("task.release", &TaskRef { id: "x".into(), version: 1 });
        let answer = Answer::local(&release, 409, "lease lost");
        assert_eq!((answer.status(), answer.reason()), (409, "lease lost"));
        let again = Answer::parse(&release, answer.into_text()).unwrap();
        assert_eq!(again.status(), 409);
        assert_eq!(Answer::local(&release, 200, &json!({})).reason(), "");
    }
}
