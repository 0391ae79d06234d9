//! What clients did, and what they were answered.

use std::time::Duration;

use serde::Serialize;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// To store a blob.
    Store,
    /// To read all of one.
    Read,
    /// To read some of one.
    Range,
    /// To have one stored longer.
    Extend,
    /// To delete one.
    Delete,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Store, Self::Read, Self::Range, Self::Extend, Self::Delete];

    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Read => "read",
            Self::Range => "range",
            Self::Extend => "extend",
            Self::Delete => "delete",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done; of a read, that the bytes are those that were stored.
    Done {
        /// The first epoch in which the blob is no longer stored, of what was stored or extended.
        end: Option<u32>,
    },
    /// Other bytes were read than were stored.
    Wrong,
    /// There is no such blob.
    Absent,
    /// The blob was encoded wrongly, which it was not.
    Condemned,
    /// It was not done, or it is not known whether it was.
    Failed {
        /// Why, as the command line would say it.
        why: String,
        /// True if it says that too few nodes are there, rather than that something is broken.
        is_refusal: bool,
    },
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was asked for.
    pub kind: Kind,
    /// The number of the blob.
    pub blob: u64,
    /// Bytes of the blob.
    pub size: u64,
    /// When it began, after the beginning of the run.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
    /// The epoch in which it ended, as far as that was known.
    pub epoch: u32,
    /// What came of it.
    pub outcome: Outcome,
}

impl Operation {
    /// How long it took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }

    /// True if it was not done. That there is no such blob is an answer.
    #[must_use]
    pub const fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { .. })
    }
}

/// A time during which something was so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it began.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
}

impl Span {
    /// True if an operation went on at any moment of it.
    #[must_use]
    pub fn meets(&self, operation: &Operation) -> bool {
        operation.start <= self.end && self.start <= operation.end
    }
}
