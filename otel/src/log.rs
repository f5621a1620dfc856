//! Log lines that name the trace and the span in which they are written.

use std::fmt;

use opentelemetry::{Context, trace::TraceContextExt};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Adds `trace_id` and `span_id` of the active OpenTelemetry context to each log line: to the end of a
/// line for people, into the object of a JSON line. A line outside any context stays as it is.
///
/// ```
/// # fn main() {
/// let lines = tracing_subscriber::fmt::layer::<tracing_subscriber::Registry>().json();
/// let lines = lines.map_event_format(resonate_otel::WithTraceIds::new);
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct WithTraceIds<F>(F);

impl<F> WithTraceIds<F> {
    /// The format `inner` with the two ids.
    pub fn new(inner: F) -> Self {
        Self(inner)
    }
}

impl<S, N, F> FormatEvent<S, N> for WithTraceIds<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let active = Context::current();
        let span = active.span().span_context().clone();
        if !span.is_valid() {
            return self.0.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let (trace, id) = (span.trace_id(), span.span_id());
        let line = line.trim_end_matches('\n');
        match line.strip_suffix('}').filter(|line| line.starts_with('{')) {
            Some(object) => {
                writeln!(writer, r#"{object},"trace_id":"{trace}","span_id":"{id}"}}"#)
            }
            None => writeln!(writer, "{line} trace_id={trace} span_id={id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::{
        SpanId, TraceFlags, TraceId,
        trace::{SpanContext, TraceState},
    };
    use tracing_subscriber::{Registry, fmt, layer::SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(json: bool) -> String {
        let written = Written::default();
        let writer = written.clone();
        let lines = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let subscriber: Box<dyn Subscriber + Send + Sync> = match json {
            true => {
                let lines = lines.json().flatten_event(true).map_event_format(WithTraceIds::new);
                Box::new(Registry::default().with(lines))
            }
            false => {
                let lines = lines.map_event_format(WithTraceIds::new);
                Box::new(Registry::default().with(lines))
            }
        };
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("outside");
            let span = SpanContext::new(
                TraceId::from(10),
                SpanId::from(11),
                TraceFlags::default(),
                true,
                TraceState::default(),
            );
            let _active = Context::new().with_remote_span_context(span).attach();
            tracing::info!(n = 1, "inside {{}}");
        });
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_for_people_ends_with_the_ids() {
        let text = lines(false);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].ends_with("outside"), "{text}");
        let ids = "trace_id=0000000000000000000000000000000a span_id=000000000000000b";
        assert!(lines[1].ends_with(&format!("inside {{}} n=1 {ids}")), "{text}");
    }

    #[test]
    fn a_json_line_has_the_ids_among_its_fields() {
        let text = lines(true);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines[0]["trace_id"].is_null(), "{text}");
        assert_eq!(lines[1]["trace_id"], "0000000000000000000000000000000a");
        assert_eq!((&lines[1]["span_id"], &lines[1]["n"]), (&"000000000000000b".into(), &1.into()));
    }
}
