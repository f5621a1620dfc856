//! Times in which the gateway could not reach the server while somebody looked.

use super::{
    attempts::{Kind, SHORT, SOON, Segment},
    known::Known,
};

/// From the last look that went well to the end of the first one after it, in Unix milliseconds of the
/// server's clock. The server may have been there for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    pub from: i64,
    pub to: i64,
}

impl Outage {
    /// Whether some of it lies between these moments.
    pub fn touches(&self, from: i64, to: i64) -> bool {
        self.from <= to && from <= self.to
    }

    /// The part of it of which nothing is known: the longest in which nothing of the flow was stored. None: there
    /// is always something, so only the gateway could not reach the server.
    pub fn dark(&self, known: &Known) -> Option<Self> {
        let records = known.calls.iter().flat_map(|call| {
            let points = call.checkpoints.iter().filter_map(|point| point.record.as_ref());
            call.record.iter().chain(points)
        });
        let times = records.flat_map(|it| [Some(it.created), it.settled, it.begun]).flatten();
        let times = times.filter(|at| self.touches(*at, *at));
        let mut times: Vec<_> = times.chain([self.from, self.to]).collect();
        times.sort_unstable();
        let parts = times.windows(2).map(|it| Self { from: it[0], to: it[1] });
        parts.max_by_key(|it| it.to - it.from).filter(|it| it.to - it.from > SOON)
    }

    /// What is drawn of `segments` if this time is dark. Waits for functions and timers need no process, and
    /// are stored.
    pub fn hide(&self, segments: &[Segment]) -> Vec<Segment> {
        let mut all: Vec<Segment> = Vec::new();
        for segment in segments {
            let end = segment.to.unwrap_or(i64::MAX);
            let (from, mut to) = (segment.from.max(self.from), end.min(self.to));
            if from >= to || matches!(segment.kind, Kind::Wait | Kind::Sleep) {
                all.push(segment.clone());
                continue;
            }
            // A shorter wait after it is not drawn.
            if matches!(segment.kind, Kind::Silent | Kind::Queue) && end - to < SHORT {
                to = end;
            }
            if segment.from < from {
                all.push(Segment { to: Some(from), ..segment.clone() });
            }
            match all.last_mut().filter(|last| last.kind == Kind::Away) {
                Some(last) => last.to = Some(to),
                None => all.push(Segment { kind: Kind::Away, who: None, from, to: Some(to) }),
            }
            if end > to {
                all.push(Segment { from: to, ..segment.clone() });
            }
        }
        all
    }
}
