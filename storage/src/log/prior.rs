//! Which log files may hold older puts of a key.

use crate::{fields::Fields, log::LogNumber};

/// A range of log files, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prior(Option<(LogNumber, LogNumber)>);

impl Prior {
    /// No file.
    pub const NONE: Self = Self(None);

    /// The range extended to `log`.
    #[must_use]
    pub(crate) fn with(self, log: LogNumber) -> Self {
        let (first, last) = self.0.unwrap_or((log, log));
        Self(Some((first.min(log), last.max(log))))
    }

    /// The range shrunk to the files that exist, which are given in ascending order.
    #[must_use]
    pub(crate) fn within(self, logs: impl DoubleEndedIterator<Item = LogNumber>) -> Self {
        let Some((first, last)) = self.0 else { return Self::NONE };
        let mut existing = logs.filter(|log| (first..=last).contains(log));
        let Some(first) = existing.next() else { return Self::NONE };
        Self(Some((first, existing.next_back().unwrap_or(first))))
    }

    /// Whether there is no such file.
    pub(crate) const fn is_none(self) -> bool {
        self.0.is_none()
    }

    /// 16 bytes: first and last; zeros for none, since no file has the number 0.
    pub(crate) fn encode(self) -> [u8; 16] {
        let (first, last) = self.0.unwrap_or((LogNumber(0), LogNumber(0)));
        let mut bytes = [0; 16];
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&first.0.to_le_bytes());
        high.copy_from_slice(&last.0.to_le_bytes());
        bytes
    }

    /// What [`Prior::encode`] made, or `None` if it could not have.
    pub(crate) fn decode(bytes: [u8; 16]) -> Option<Self> {
        let mut fields = Fields::new(&bytes);
        match (fields.u64()?, fields.u64()?) {
            (0, 0) => Some(Self::NONE),
            (first, last) if 0 < first && first <= last => {
                Some(Self(Some((LogNumber(first), LogNumber(last)))))
            }
            _ => None,
        }
    }
}
