//! What travels: a frame on a channel between two peers, or bytes on a topic to all of them.

use bytes::Bytes;

/// Bytes that the header of a frame may have.
///
/// A header is one encoded message: a list of a few hundred symbols or hashes fits; more belongs in the payload.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Bytes that the payload of a frame may have.
///
/// A range of 240 KiB fits beside its proof, and with its header it stays near the 256 KiB that a fresh Yamux
/// stream may send before it has to wait a round trip for more window. Anything longer travels as ranges.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// One message: a small header that the node decodes, and bytes that it only stores or hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The encoded message, at most [`HEADER_BYTES_MAX`].
    pub header: Bytes,
    /// Raw bytes that belong to the message, at most [`PAYLOAD_BYTES_MAX`]. Never copied on the way out.
    pub payload: Bytes,
}

impl Frame {
    /// Returns a frame; its size is checked when it is sent.
    #[must_use]
    pub fn new(header: impl Into<Bytes>, payload: impl Into<Bytes>) -> Self {
        Self { header: header.into(), payload: payload.into() }
    }

    /// Bytes of header and payload together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// Checks both parts against their limits.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] names the part that does not fit.
    pub fn check(&self) -> Result<(), TooLarge> {
        check_lengths(self.header.len(), self.payload.len())
    }
}

/// Checks the lengths of a frame before anything is allocated for it.
pub(crate) const fn check_lengths(header: usize, payload: usize) -> Result<(), TooLarge> {
    if header > HEADER_BYTES_MAX {
        return Err(TooLarge { part: "header", bytes: header, bytes_max: HEADER_BYTES_MAX });
    }
    if payload > PAYLOAD_BYTES_MAX {
        return Err(TooLarge { part: "payload", bytes: payload, bytes_max: PAYLOAD_BYTES_MAX });
    }
    Ok(())
}

/// A message is larger than its limit and was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} has {bytes} bytes, at most {bytes_max} are allowed")]
pub struct TooLarge {
    /// What is too large.
    pub part: &'static str,
    /// Bytes it has.
    pub bytes: usize,
    /// Bytes it may have.
    pub bytes_max: usize,
}

/// Two independent ways to ask a peer, each with queues and limits of its own, so that bulk never starves control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Small and urgent: confirmations, status, ledger catch-up.
    Control,
    /// Slivers, symbols and pages of shards.
    Bulk,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 2] = [Self::Control, Self::Bulk];

    /// The name that the wire protocol carries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Bulk => "bulk",
        }
    }
}

/// What gossip is about. A topic is one flood of its own, with a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Announcements of the epoch change.
    Epoch,
    /// Proposals and votes of the control ledger.
    Ledger,
    /// Transactions for the control ledger.
    Transactions,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 3] = [Self::Epoch, Self::Ledger, Self::Transactions];

    /// The name that the wire protocol carries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Ledger => "ledger",
            Self::Transactions => "transactions",
        }
    }

    /// Bytes that one message on this topic may have.
    ///
    /// Each message reaches a peer several times, so they are kept small; only a block proposal is allowed more.
    #[must_use]
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Ledger => 2 * 1024 * 1024,
            Self::Epoch | Self::Transactions => 64 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_frame_passes_and_one_byte_more_does_not() {
        let largest = Frame::new(vec![0; HEADER_BYTES_MAX], vec![0; PAYLOAD_BYTES_MAX]);
        assert_eq!(largest.check(), Ok(()));
        let header = Frame::new(vec![0; HEADER_BYTES_MAX + 1], Bytes::new()).check().unwrap_err();
        assert_eq!(header.to_string(), "header has 16385 bytes, at most 16384 are allowed");
        assert_eq!(
            Frame::new(Bytes::new(), vec![0; PAYLOAD_BYTES_MAX + 1]).check().unwrap_err().part,
            "payload"
        );
    }
}
