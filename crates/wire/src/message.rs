//! A message of the server as text, parsed once.

use std::{borrow::Cow, fmt};

use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    Promise, envelope,
    operation::TaskRef,
    outcome::{OnePromise, OneTask},
};

/// What a message says.
#[derive(Debug)]
pub enum MessageBody<'a> {
    /// A task waits to be acquired: its id, and its version before that.
    Execute(TaskRef<'a>),
    /// A promise that this process listens for is settled.
    Unblock(Promise<'a>),
}

self_cell::self_cell!(
    struct Parsed {
        owner: String,
        #[covariant]
        dependent: MessageBody,
    }
);

/// A message of the server.
pub struct Message(Parsed);

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// It is none of this protocol.
    pub fn parse(text: String) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Incoming<'a> {
            #[serde(borrow)]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        let parsed = Parsed::try_new(text, |text| {
            let Incoming { kind, data } = serde_json::from_str(text)?;
            let data = data.get();
            match &*kind {
                "execute" => {
                    Ok(MessageBody::Execute(serde_json::from_str::<OneTask<_>>(data)?.task))
                }
                "unblock" => {
                    Ok(MessageBody::Unblock(serde_json::from_str::<OnePromise<_>>(data)?.promise))
                }
                kind => Err(serde::de::Error::unknown_variant(kind, &["execute", "unblock"])),
            }
        })?;
        Ok(Self(parsed))
    }

    /// The message that a task waits, as the server sends it.
    pub fn execute(id: &str, version: i64) -> Self {
        let task = TaskRef { id: id.into(), version };
        let text = envelope::to_text("execute", json!({}), &OneTask { task });
        Self::parse(text).expect("a message that was just written can be read")
    }

    /// What it says.
    pub fn body(&self) -> &MessageBody<'_> {
        self.0.borrow_dependent()
    }

    /// The text, as it came.
    pub fn into_text(self) -> String {
        self.0.into_owner()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_tuple("Message").field(self.body()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_and_others_are_refused() {
        let execute = Message::execute("x.1", 3);
        assert!(
            matches!(execute.body(), MessageBody::Execute(task) if task.id == "x.1" && task.version == 3)
        );
        let text = r#"{"kind":"unblock","head":{},"data":{"promise":{"id":"x","state":"resolved","timeoutAt":2,"createdAt":1,"settledAt":1}}}"#;
        let unblock = Message::parse(text.to_owned()).unwrap();
        assert!(matches!(unblock.body(), MessageBody::Unblock(promise) if !promise.is_pending()));
        assert_eq!(unblock.into_text(), text);
        for bad in ["", "{}", r#"{"kind":"other","data":{}}"#] {
            assert!(Message::parse(bad.to_owned()).is_err());
        }
    }
}
