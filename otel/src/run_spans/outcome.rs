//! How runs end.

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It waits for other promises; another run continues when they are settled.
    Suspended,
    /// The function returned a value.
    Fulfilled,
    /// The function failed.
    Rejected,
    /// It was released for another process to continue.
    Released,
    /// Its lease was lost, or another run settled its promise.
    Fenced,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "suspended",
            Self::Fulfilled => "fulfilled",
            Self::Rejected => "rejected",
            Self::Released => "released",
            Self::Fenced => "fenced",
        }
    }
}
