//! A request as text, parsed once.

use std::{
    borrow::Cow,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::Arc,
};

use serde::{Serialize, de::IgnoredAny};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    Operation, Pairs, VERSION,
    envelope::{self, Action, Envelope, RequestHead},
    operation::FencedAction,
    origin, tag,
};

/// Until when a request is worth repeating. It can move: a lease may be renewed meanwhile.
pub type Deadline = watch::Receiver<Instant>;

struct View<'a> {
    kind: Cow<'a, str>,
    corr_id: Cow<'a, str>,
    operation: Operation<'a>,
}

self_cell::self_cell!(
    struct Parsed {
        owner: String,
        #[covariant]
        dependent: View,
    }
);

/// A request to the server. Its text is parsed once, and sent as it came in but for the changes
/// that a layer makes. Clones share the text.
#[derive(Clone)]
pub struct Request {
    parsed: Arc<Parsed>,
    /// Parts of the text that are replaced when it is sent.
    changes: Vec<(Range<usize>, String)>,
    deadline: Option<Deadline>,
}

impl Request {
    /// Reads a request's text.
    ///
    /// # Errors
    /// It is not a request of this protocol.
    pub fn parse(text: String) -> serde_json::Result<Self> {
        let parsed = Parsed::try_new(text, |text| {
            let envelope: Envelope<RequestHead, &RawValue> = serde_json::from_str(text)?;
            let operation = Operation::read(&envelope.kind, envelope.data)?;
            Ok::<_, serde_json::Error>(View {
                kind: envelope.kind,
                corr_id: envelope.head.corr_id,
                operation,
            })
        })?;
        Ok(Self { parsed: Arc::new(parsed), changes: Vec::new(), deadline: None })
    }

    /// A request of a process's own. `kind` and `data` must fit.
    ///
    /// # Panics
    /// They do not: that is a mistake in the code.
    pub fn new(kind: &str, data: &impl Serialize) -> Self {
        let data = to_raw_value(data).unwrap_or_else(|error| panic!("{kind}: {error}"));
        // The answer to another request is none to this one.
        let mut hasher = DefaultHasher::new();
        (kind, data.get()).hash(&mut hasher);
        let corr_id = format!("{:016x}", hasher.finish()).into();
        let head = RequestHead { corr_id, version: VERSION.into(), auth: None };
        let text = envelope::to_text(kind, head, &*data);
        Self::parse(text).unwrap_or_else(|error| panic!("{kind} with other data: {error}"))
    }

    /// The request's kind, such as `task.acquire`.
    pub fn kind(&self) -> &str {
        &self.parsed.borrow_dependent().kind
    }

    /// What its answer must repeat.
    pub fn corr_id(&self) -> &str {
        &self.parsed.borrow_dependent().corr_id
    }

    /// What is asked for.
    pub fn operation(&self) -> &Operation<'_> {
        &self.parsed.borrow_dependent().operation
    }

    /// Until when it is repeated; none: the lowest layers decide.
    pub fn deadline(&self) -> Option<&Deadline> {
        self.deadline.as_ref()
    }

    /// Repeats it until `deadline`, wherever that moves.
    pub fn with_deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Repeats it until `end`. An end that has passed means one attempt.
    pub fn until(self, end: Instant) -> Self {
        self.with_deadline(watch::channel(end).1)
    }

    /// Adds headers to the promise that is created, or to the value of the one that is settled.
    /// False: the request has no place for them, and stays as it is.
    pub fn add_headers(&mut self, headers: &Pairs) -> bool {
        #[derive(serde::Deserialize, Serialize)]
        struct Content<'a> {
            #[serde(borrow, default)]
            headers: Option<Pairs<'a>>,
            #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
            data: Option<&'a RawValue>,
        }
        let Some(raw) = self.operation().content() else { return false };
        let Ok(mut content) = serde_json::from_str::<Content>(raw.get()) else { return false };
        let all = content.headers.get_or_insert_default();
        headers.iter().for_each(|(name, value)| all.set(name.to_owned(), value.to_owned()));
        let Ok(text) = serde_json::to_string(&content) else { return false };
        self.replace(self.range(raw.get()), text);
        true
    }

    /// Writes the true origin into a promise that is created inside a run: the SDK takes the id of
    /// the calling function, dots included, which servers newer than v0.9.8 refuse.
    pub fn correct_origin(&mut self) {
        let Operation::TaskFence(fence) = self.operation() else { return };
        let FencedAction::Create(create) = &fence.action else { return };
        let Some(written) = create.tags.borrowed(tag::ORIGIN) else { return };
        let flow = origin(written);
        if flow.len() < written.len() {
            let (range, flow) = (self.range(written), flow.to_owned());
            self.replace(range, flow);
        }
    }

    /// Writes another time-out into a promise that is created inside a run, in Unix milliseconds.
    pub fn set_timeout(&mut self, timeout_at: i64) {
        #[derive(serde::Deserialize)]
        struct Fence<'a> {
            #[serde(borrow)]
            action: Action<'a, Create<'a>>,
        }
        #[derive(serde::Deserialize)]
        struct Create<'a> {
            #[serde(borrow, rename = "timeoutAt")]
            timeout_at: &'a RawValue,
        }
        let text = self.parsed.borrow_owner();
        let Ok(envelope) = serde_json::from_str::<Envelope<IgnoredAny, Fence>>(text) else {
            return;
        };
        let range = self.range(envelope.data.action.data.timeout_at.get());
        self.replace(range, timeout_at.to_string());
    }

    /// Writes a token for the server's `auth` section into the head, in place of any other.
    pub fn set_auth(&mut self, token: &str) {
        let text = self.parsed.borrow_owner();
        let Ok(envelope) = serde_json::from_str::<Envelope<&RawValue, IgnoredAny>>(text) else {
            return;
        };
        let range = self.range(envelope.head.get());
        let Ok(mut head) = serde_json::from_str::<Map<String, Value>>(envelope.head.get()) else {
            return;
        };
        head.insert("auth".to_owned(), token.into());
        self.replace(range, Value::Object(head).to_string());
    }

    /// The text to send.
    pub fn text(&self) -> Cow<'_, str> {
        let text = self.parsed.borrow_owner();
        if self.changes.is_empty() {
            return Cow::Borrowed(text);
        }
        let added: usize = self.changes.iter().map(|(_, part)| part.len()).sum();
        let mut changed = String::with_capacity(text.len() + added);
        let mut from = 0;
        for (range, part) in &self.changes {
            changed.push_str(&text[from..range.start]);
            changed.push_str(part);
            from = range.end;
        }
        changed.push_str(&text[from..]);
        Cow::Owned(changed)
    }

    /// Where `part`, which is a part of the text, is in it.
    fn range(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr() as usize - self.parsed.borrow_owner().as_ptr() as usize;
        start..start + part.len()
    }

    fn replace(&mut self, range: Range<usize>, text: String) {
        self.changes.retain(|(there, _)| *there != range);
        self.changes.push((range, text));
        self.changes.sort_by_key(|(range, _)| range.start);
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_tuple("Request").field(&self.kind()).field(self.operation()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fence(param: Value, origin: &str) -> Request {
        let tags = json!({"x": "a.b", "resonate:origin": origin, "resonate:scope": "global"});
        let create = json!({"id": "ä.1", "timeoutAt": 1, "param": param, "tags": tags});
        let action = json!({"kind": "promise.create", "head": {"corrId": "1"}, "data": create});
        let data = json!({"id": "ä", "version": 1, "action": action, "unknown": [1]});
        let head = json!({"corrId": "c", "version": VERSION, "auth": "secret"});
        Request::parse(json!({"kind": "task.fence", "head": head, "data": data}).to_string())
            .unwrap()
    }

    fn sent(request: Request) -> Value {
        serde_json::from_str(&request.text()).unwrap()
    }

    #[test]
    fn what_no_layer_changes_goes_out_as_it_came_in() {
        for text in [
            r#"{"kind": "task.acquire",  "head":{"corrId":"1","version":"x"}, "data":{"id":"a","version":0,"pid":"p","ttl":1}}"#,
            r#"{"kind":"schedule.create","head":{"corrId":"1","version":"x"},"data":{"any": [1, 2]}}"#,
        ] {
            assert_eq!(Request::parse(text.to_owned()).unwrap().text(), text);
        }
        assert!(Request::parse("{}".to_owned()).is_err());
    }

    #[test]
    fn headers_are_added_to_those_that_are_there() {
        let added = Pairs::from_iter([("a", "1")]);
        let with = |param: Value| {
            let mut request = fence(param, "flow");
            let mut expected: Value = serde_json::from_str(request.parsed.borrow_owner()).unwrap();
            let can = request.add_headers(&added);
            let mut sent = sent(request);
            let content = sent["data"]["action"]["data"]["param"].take();
            expected["data"]["action"]["data"]["param"].take();
            assert_eq!(sent, expected);
            can.then_some(content)
        };
        let both = json!({"data": "x", "headers": {"a": "1", "b": "2"}});
        assert_eq!(with(json!({"data": "x", "headers": {"b": "2"}})), Some(both));
        for none in [json!({"headers": null}), json!({})] {
            assert_eq!(with(none), Some(json!({"headers": {"a": "1"}})));
        }
        assert_eq!(with(json!("text")), None);
        assert_eq!(with(Value::Null), None);
    }

    #[test]
    fn the_true_origin_and_headers_are_written_together() {
        let mut request = fence(json!({"data": "x"}), "flow.0.1");
        request.correct_origin();
        request.add_headers(&Pairs::from_iter([("a", "1")]));
        let create = &sent(request)["data"]["action"]["data"];
        assert_eq!(create["tags"]["resonate:origin"], "flow");
        assert_eq!(create["tags"]["x"], "a.b");
        assert_eq!(create["param"]["headers"]["a"], "1");

        let mut request = fence(json!({}), "flow");
        request.correct_origin();
        assert!(request.changes.is_empty());
    }

    #[test]
    fn a_token_takes_the_place_of_any_other_and_is_not_shown() {
        let get =
            r#"{"kind":"task.get","head":{"version":"x","corrId":"1","more":2},"data":{"id":"a"}}"#;
        for mut request in [fence(json!({}), "flow.0"), Request::parse(get.to_owned()).unwrap()] {
            let mut expected = sent(request.clone());
            expected["head"]["auth"] = "token-2".into();
            request.set_auth("token-1");
            request.set_auth("token-2");
            assert_eq!(sent(request.clone()), expected);
            assert!(!format!("{request:?}").contains("token"), "{request:?}");
            request.correct_origin();
            assert_eq!(sent(request)["head"], expected["head"]);
        }
    }

    #[test]
    fn another_time_out_is_written() {
        let mut request = fence(json!({"data": "x"}), "flow");
        let mut expected = sent(request.clone());
        request.set_timeout(77);
        expected["data"]["action"]["data"]["timeoutAt"] = 77.into();
        assert_eq!(sent(request), expected);
    }
}
