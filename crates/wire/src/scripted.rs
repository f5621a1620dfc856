//! A server for unit tests of layers: it answers as the test says, and remembers what came.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::{Answer, Exchange, ExchangeError, Request};

/// What the server does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// It answers with this status and data.
    Answer(u16, Value),
    /// The same, to a request that was sent more than once.
    Repeated(u16, Value),
    /// It does not answer.
    Lost,
    /// It refuses the request for its length.
    TooLarge,
}

type Script = Box<dyn FnMut(&str, &Value) -> Reply + Send>;

/// A server that answers by a script. Clones share everything.
#[derive(Clone)]
pub struct Scripted {
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Scripted {
    /// A server that answers each request, given as kind and data, with what `script` returns.
    pub fn new(script: impl FnMut(&str, &Value) -> Reply + Send + 'static) -> Self {
        Self { script: Arc::new(Mutex::new(Box::new(script))), seen: Arc::default() }
    }

    /// The requests that came, as kind and data.
    pub fn seen(&self) -> Vec<(String, Value)> {
        self.seen.lock().expect("no test panics with this lock").clone()
    }

    /// The kinds of the requests that came.
    pub fn kinds(&self) -> Vec<String> {
        self.seen().into_iter().map(|(kind, _)| kind).collect()
    }
}

#[async_trait::async_trait]
impl Exchange for Scripted {
    async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError> {
        let mut whole: Value = serde_json::from_str(&request.text()).expect("a request is JSON");
        let data = whole["data"].take();
        let reply = (self.script.lock().expect("no script panics"))(request.kind(), &data);
        let mut seen = self.seen.lock().expect("no test panics with this lock");
        seen.push((request.kind().to_owned(), data));
        match reply {
            Reply::Answer(status, data) => Ok(Answer::local(&request, status, &data)),
            Reply::Repeated(status, data) => {
                let mut answer = Answer::local(&request, status, &data);
                answer.repeated = true;
                Ok(answer)
            }
            Reply::TooLarge => Err(ExchangeError::TooLarge { bytes: request.text().len() }),
            Reply::Lost => Err(ExchangeError::Unreachable {
                server: "http://127.0.0.1:1".to_owned(),
                reason: "lost".to_owned(),
            }),
        }
    }
}
