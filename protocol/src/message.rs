//! What nodes and clients ask each other.
//!
//! A message is the header of a frame; slivers, symbols and commitments travel beside it as the frame's payload, so
//! that no message is ever decoded around a large value. Requests and responses are append-only enums: the position of
//! a variant is its number on the wire.
//!
//! Everything here is a claim until it is verified by the types of [`crate::commitment`] and [`crate::certificate`].

use bincode::{Decode, Encode};

use crate::{
    certificate::MemberSignature,
    codec::{self, DecodeError},
    commitment::BlobHeader,
    encoding::Axis,
    hash::Hash,
    ids::{BlobId, Epoch, RegistrationId, SegmentIndex, SliverPairIndex},
    ledger::wire,
};

/// Most bytes of a sliver, symbol or proof in one message.
///
/// A stream starts with a window of 256 KiB: a message that fits in it crosses the network in one round trip, and
/// many of them in flight fill a long link (measured: seven times one long message at 20 ms).
pub const RANGE_BYTES_MAX: usize = 240 << 10;
/// Most symbols asked for in one message: their list must fit in a frame's header.
pub const SYMBOLS_MAX: usize = 1024;
/// Most bytes of the reason for which a transaction is rejected.
pub const REASON_BYTES_MAX: usize = 512;
/// Bytes claimed by a message, at most: a header of 16 KiB whose lists take a few times that in memory.
const MESSAGE_LIMIT: usize = 64 << 10;

/// Names a sliver of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct SliverAt {
    /// The blob.
    pub blob_id: BlobId,
    /// The segment.
    pub segment: SegmentIndex,
    /// The sliver pair.
    pub pair: SliverPairIndex,
    /// Which of the pair's two slivers.
    pub axis: Axis,
}

/// Names a recovery symbol within a segment: where a helper's sliver crosses a lost one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct SymbolAt {
    /// Direction of the lost sliver.
    pub axis: Axis,
    /// Index of the lost sliver.
    pub index: u16,
    /// Index of the helper's sliver, along the other axis.
    pub crossing: u16,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Keep this commitment (the payload, 64 `n` bytes) for an upload. Answered by [`Response::Done`].
    StoreCommitment {
        /// Header of the blob.
        header: BlobHeader,
        /// The segment committed to.
        segment: SegmentIndex,
        /// Path from the segment root to the blob root.
        path: Vec<Hash>,
    },
    /// Keep this part of a sliver (the payload). Answered by [`Response::Done`], once durable if it is the last part.
    StoreSliver {
        /// The sliver.
        at: SliverAt,
        /// Where in the sliver the payload begins.
        offset: u32,
    },
    /// Vouch for the slivers of a blob, once the ledger has this registration of it. Answered by
    /// [`Response::Confirmed`] or [`Response::Missing`].
    Confirm {
        /// Header of the blob.
        header: BlobHeader,
        /// The registration.
        registration: RegistrationId,
        /// The epoch for whose committee the node is to vouch.
        epoch: Epoch,
    },
    /// Keep and vouch for all slivers that the node is to hold of a blob of one segment, in one message. The payload is an
    /// order, the commitment of the segment, and those slivers, in the order of
    /// [`slivers_of`](crate::committee::Committee::slivers_of) of the committee of `epoch`. Answered by
    /// [`Response::Confirmed`].
    StoreBlob {
        /// Header of the blob.
        header: BlobHeader,
        /// The registration.
        registration: RegistrationId,
        /// The epoch for whose committee the node is to vouch.
        epoch: Epoch,
        /// Bytes of the order: none, or the owner's signed transaction that makes the registration, on which the node may
        /// act, and vouch, before the ledger has it.
        order_bytes: u16,
    },
    /// The commitment of a segment. Answered by [`Response::Commitment`], the commitment as payload.
    FetchCommitment {
        /// The blob.
        blob_id: BlobId,
        /// The segment.
        segment: SegmentIndex,
    },
    /// Part of a sliver. Answered by [`Response::Sliver`], the bytes as payload.
    FetchSliver {
        /// The sliver.
        at: SliverAt,
        /// Where in the sliver to begin.
        offset: u32,
        /// Bytes wanted, at most [`RANGE_BYTES_MAX`].
        len: u32,
    },
    /// The same range of several recovery symbols. Answered by [`Response::Symbols`], the ranges one after the other
    /// as payload, at most [`RANGE_BYTES_MAX`] together.
    FetchSymbols {
        /// The blob.
        blob_id: BlobId,
        /// The segment.
        segment: SegmentIndex,
        /// The symbols, at most [`SYMBOLS_MAX`].
        symbols: Vec<SymbolAt>,
        /// Where in each symbol to begin; even.
        offset: u32,
        /// Bytes wanted of each symbol; even.
        len: u32,
    },
    /// The proof of a recovery symbol. Answered by [`Response::SymbolProof`].
    FetchSymbolProof {
        /// The blob.
        blob_id: BlobId,
        /// The segment.
        segment: SegmentIndex,
        /// The symbol.
        symbol: SymbolAt,
    },
    /// Verify this inconsistency evidence, fetched from the asker, and vouch that the blob is invalid. Answered by
    /// [`Response::Attested`].
    Attest {
        /// The blob.
        blob_id: BlobId,
        /// Bytes of the evidence.
        evidence_bytes: u32,
    },
    /// Part of the inconsistency evidence against a blob. Answered by [`Response::Evidence`], the bytes as payload.
    FetchEvidence {
        /// The blob.
        blob_id: BlobId,
        /// Where to begin.
        offset: u32,
        /// Bytes wanted, at most [`RANGE_BYTES_MAX`].
        len: u32,
    },
    /// How is the node? Answered by [`Response::Health`].
    Health,
    /// Nodes of the ledger among themselves. Answered by [`Response::Ledger`].
    Ledger(wire::Request),
    /// What is the value of these keys in the ledger, with proofs? Answered by [`Response::Entries`].
    Entries {
        /// At most [`KEYS_MAX`](crate::ledger::answer::KEYS_MAX) keys of at most
        /// [`KEY_BYTES_MAX`](crate::ledger::answer::KEY_BYTES_MAX) bytes.
        keys: Vec<Vec<u8>>,
    },
    /// Which entries does the ledger have from this key on, with proofs? Answered by [`Response::Range`].
    Range {
        /// At most [`KEY_BYTES_MAX`](crate::ledger::answer::KEY_BYTES_MAX) bytes.
        start: Vec<u8>,
    },
    /// Order this transaction, the payload. Answered by [`Response::Submitted`] once it is in a block.
    Submit {
        /// Entries to prove as of that block, within the bounds of [`Self::Entries`].
        keys: Vec<Vec<u8>>,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Response {
    /// Done, durably where the request says so.
    Done,
    /// The node vouches for its slivers of the blob.
    Confirmed(MemberSignature),
    /// The node lacks this many slivers of the blob.
    Missing {
        /// Slivers that the node should hold and does not.
        slivers: u32,
    },
    /// The commitment of a segment is the payload.
    Commitment {
        /// Header of the blob.
        header: BlobHeader,
        /// Path from the segment root to the blob root.
        path: Vec<Hash>,
    },
    /// The range of the sliver is the payload.
    Sliver {
        /// Root over the sliver's parity symbols.
        parity: Hash,
    },
    /// The ranges of the symbols are the payload.
    Symbols,
    /// The proof of a symbol; the leaf is the payload if it is a group of symbols, else it is the symbol itself.
    SymbolProof {
        /// Path of the leaf within its part of the sliver.
        path: Vec<Hash>,
        /// Root of the other part.
        other_part: Hash,
    },
    /// The node verified the evidence and vouches that the blob is invalid.
    Attested(MemberSignature),
    /// The range of the evidence is the payload.
    Evidence,
    /// How the node is.
    Health(NodeHealth),
    /// The node did not do what was asked.
    Refused(Refusal),
    /// A [`wire::Response`] is the payload.
    Ledger,
    /// An [`Answer`](crate::ledger::answer::Answer) is the payload.
    Entries,
    /// A [`Range`](crate::ledger::answer::Range) is the payload.
    Range,
    /// The transaction was executed in the block of this height. An [`Answer`](crate::ledger::answer::Answer) of that height
    /// or a later one is the payload.
    Submitted {
        /// Height of the block.
        height: u64,
    },
}

/// Why a node did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    /// The node knows or holds no such thing.
    #[error("not found")]
    NotFound,
    /// The node does not answer for that shard.
    #[error("the node does not answer for that shard")]
    NotMine,
    /// The node has too much in hand; ask again later.
    #[error("the node is busy")]
    Busy,
    /// The node's disk is full.
    #[error("the node's disk is full")]
    Full,
    /// The request contradicts itself or its payload.
    #[error("the request is malformed")]
    Malformed,
    /// What was sent does not verify against the blob ID.
    #[error("what was sent does not match its blob ID")]
    Unverifiable,
    /// The asker is not on the committee.
    #[error("only members of the committee may ask this")]
    NotMember,
    /// The blob is of another number of shards than this network has.
    #[error("the blob was encoded for another network")]
    OtherNetwork,
    /// The blob was proved to be encoded wrongly.
    #[error("the blob was encoded wrongly by its writer")]
    Invalid,
    /// The ledger has no such registration of the blob, or no longer.
    #[error("the ledger has no such registration of the blob")]
    NotRegistered,
    /// The node failed at it; its operator can tell why.
    #[error("the node failed internally")]
    Internal,
    /// The ledger's rules do not allow the transaction: the text says why, in at most [`REASON_BYTES_MAX`] bytes.
    #[error("{0}")]
    Rejected(String),
    /// The transaction was not ordered in time; it may still be.
    #[error("the transaction is not in a block yet; it may still get there")]
    NotOrdered,
    /// The node does not vouch for that epoch: it is over, has not begun as far as the node knows, or the node is on another
    /// committee.
    #[error("the node does not vouch for that epoch; as far as it knows, the current one is {current}")]
    WrongEpoch {
        /// The current epoch, as far as the node knows.
        current: Epoch,
    },
    /// The node has no part in ordering the ledger now: what it passed on nobody would hear.
    #[error("the node is not on the committee; ask one that is")]
    NotOnCommittee,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeHealth {
    /// The name that its operator gave it.
    pub name: String,
    /// Shards it answers for.
    pub shards: u16,
    /// Certified blobs it knows of.
    pub blobs: u64,
    /// Slivers it holds.
    pub slivers_held: u64,
    /// Slivers it should hold and does not, as of its last look.
    pub slivers_missing: u64,
    /// Bytes that repair received from peers since the node started.
    pub repair_bytes_received: u64,
    /// Bytes of slivers that repair regained since the node started.
    pub repair_bytes_regained: u64,
    /// Slivers found corrupt since the node started.
    pub slivers_corrupt: u64,
    /// Peers connected.
    pub peers: u16,
    /// Seconds since the node started.
    pub uptime_seconds: u64,
    /// Height of its ledger.
    pub ledger_height: u64,
    /// Root of its ledger's state at that height.
    pub ledger_root: Hash,
}

impl Request {
    /// The request as the header of a frame.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a request.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; whoever sent the bytes is at fault.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_exact::<_, MESSAGE_LIMIT>(bytes)
    }
}

impl Response {
    /// The response as the header of a frame.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a response.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; whoever sent the bytes is at fault.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_exact::<_, MESSAGE_LIMIT>(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_list_of_symbols_fits_in_a_header() {
        let symbol = SymbolAt { axis: Axis::Primary, index: 999, crossing: 999 };
        let request = Request::FetchSymbols {
            blob_id: BlobId([1; 32]),
            segment: SegmentIndex(u32::MAX),
            symbols: vec![symbol; SYMBOLS_MAX],
            offset: 0,
            len: 2,
        };
        let bytes = request.to_bytes();
        assert!(bytes.len() <= 16 << 10, "{} bytes", bytes.len());
        assert_eq!(Request::from_bytes(&bytes), Ok(request));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(request) = Request::from_bytes(&bytes) {
                prop_assert_eq!(request.to_bytes(), bytes.clone());
            }
            if let Ok(response) = Response::from_bytes(&bytes) {
                prop_assert_eq!(response.to_bytes(), bytes);
            }
        }
    }
}
