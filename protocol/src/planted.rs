//! Bugs that tests switch on, to see that they would be found.
//!
//! A test that never fails proves nothing. Each [`Bug`] is a mistake that somebody could make at the place where
//! [`is_planted`] is asked; with the feature `planted`, a simulation switches one on in its own thread and must then
//! report a broken promise. Without the feature the question is a constant and costs nothing.

/// A mistake that somebody could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A sync that does nothing.
    SkippedSync,
    /// A write is acknowledged before it is made.
    AcknowledgedTooSoon,
    /// A quorum of one shard less.
    QuorumOffByOne,
    /// An uploaded sliver is kept without being checked.
    UploadUnchecked,
    /// A node vouches for a blob without looking whether it holds it.
    ConfirmedBlindly,
    /// A reader takes slivers without checking them.
    ReadUnchecked,
    /// A rebuilt sliver is kept without being checked.
    RepairUnchecked,
    /// Bytes that the disk damaged are served.
    ServedCorrupt,
    /// A node's word that an entry does not exist is taken without a proof.
    AbsenceUnproven,
    /// A node looks at what blocks say while it runs, and never at what was left to do before.
    NoPass,
    /// The proof that a blob is invalid is not acted on.
    InvalidIgnored,
    /// A node says that its shards are ready without looking, and gets nothing of them before they are its own.
    ReadyBlindly,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 12] = [
        Self::SkippedSync,
        Self::AcknowledgedTooSoon,
        Self::QuorumOffByOne,
        Self::UploadUnchecked,
        Self::ConfirmedBlindly,
        Self::ReadUnchecked,
        Self::RepairUnchecked,
        Self::ServedCorrupt,
        Self::AbsenceUnproven,
        Self::NoPass,
        Self::InvalidIgnored,
        Self::ReadyBlindly,
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches a bug on in this thread, or all off.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// True if the bug is switched on in this thread.
    #[must_use]
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(not(feature = "planted"))]
mod switch {
    use super::Bug;

    /// No bug is ever switched on: this build has none.
    #[must_use]
    pub const fn is_planted(_: Bug) -> bool {
        false
    }
}

pub use switch::*;
