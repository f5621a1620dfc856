//! `OTEL_SPAN_*` limits. The SDK applies them to the spans that it makes itself, and knows no limit
//! for the length of a value.

use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanLimits};

/// How much a span may carry; what comes later is dropped, and counted where OTLP has a count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub attributes: usize,
    pub events: usize,
    pub links: usize,
    /// In characters.
    pub value_length: Option<usize>,
}

impl Limits {
    /// No limits.
    pub const NONE: Self =
        Self { attributes: usize::MAX, events: usize::MAX, links: usize::MAX, value_length: None };

    /// The same for the SDK, which then drops before a span ends.
    pub fn of_sdk(&self) -> SpanLimits {
        let count = |limit| u32::try_from(limit).unwrap_or(u32::MAX);
        SpanLimits {
            max_attributes_per_span: count(self.attributes),
            max_events_per_span: count(self.events),
            max_links_per_span: count(self.links),
            ..SpanLimits::default()
        }
    }

    /// Cuts a finished span down.
    pub fn apply(&self, span: &mut SpanData) {
        span.dropped_attributes_count += truncate(&mut span.attributes, self.attributes);
        span.events.dropped_count += truncate(&mut span.events.events, self.events);
        span.links.dropped_count += truncate(&mut span.links.links, self.links);
        let Some(length) = self.value_length else { return };
        let events = span.events.events.iter_mut().flat_map(|event| &mut event.attributes);
        let links = span.links.links.iter_mut().flat_map(|link| &mut link.attributes);
        for attribute in span.attributes.iter_mut().chain(events).chain(links) {
            shorten(attribute, length);
        }
    }
}

/// Keeps the first `limit` items. Returns how many are dropped.
fn truncate<T>(items: &mut Vec<T>, limit: usize) -> u32 {
    let dropped = items.len().saturating_sub(limit);
    items.truncate(limit);
    u32::try_from(dropped).unwrap_or(u32::MAX)
}

fn shorten(attribute: &mut KeyValue, length: usize) {
    let cut = |text: &mut StringValue| {
        if let Some((end, _)) = text.as_str().char_indices().nth(length) {
            *text = text.as_str()[..end].to_owned().into();
        }
    };
    match &mut attribute.value {
        Value::String(text) => cut(text),
        Value::Array(Array::String(texts)) => texts.iter_mut().for_each(cut),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::{
        SpanId, TraceFlags, TraceId,
        trace::{Event, Link, SpanContext, TraceState},
    };

    use super::*;
    use crate::export::tests::span;

    #[test]
    fn limits_keep_what_comes_first_and_count_the_rest() {
        let text = |name| KeyValue::new(name, "größer");
        let mut it = span(TraceFlags::SAMPLED);
        let texts = vec![StringValue::from("größer"), "g".into()];
        it.attributes = vec![
            text("kept"),
            KeyValue::new("texts", Value::Array(Array::String(texts))),
            KeyValue::new("number", 12345),
            text("dropped"),
        ];
        let event = |name| Event::new(name, SystemTime::now(), vec![text("cause")], 0);
        it.events.events = vec![event("kept"), event("dropped"), event("dropped")];
        let of = SpanContext::new(
            TraceId::from(1),
            SpanId::from(1),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        it.links.links = vec![Link::new(of.clone(), vec![text("why")], 0), Link::with_context(of)];
        Limits { attributes: 3, events: 1, links: 1, value_length: Some(3) }.apply(&mut it);

        let short = |name| KeyValue::new(name, "grö");
        let texts = Value::Array(Array::String(vec!["grö".into(), "g".into()]));
        assert_eq!(
            it.attributes,
            [short("kept"), KeyValue::new("texts", texts), KeyValue::new("number", 12345)]
        );
        assert_eq!((it.events.len(), &it.events[0].attributes[0]), (1, &short("cause")));
        assert_eq!((it.links.len(), &it.links[0].attributes[0]), (1, &short("why")));
        let counts = (it.dropped_attributes_count, it.events.dropped_count, it.links.dropped_count);
        assert_eq!(counts, (1, 2, 1));

        let unchanged = it.clone();
        Limits::NONE.apply(&mut it);
        assert_eq!(it, unchanged);
    }
}
