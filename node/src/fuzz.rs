//! What fuzzing calls that is not public otherwise: decoders of what disks, peers and people give. Hidden, and no part of
//! the interface.
//!
//! Each decoder returns the form that its value is written in. Where bytes have one form, that must be what was read; a
//! configuration file may be written in many, so what it is written as is read again.

use protocol::{BlobId, codec, encoding::SegmentEncoder};
use serde::{Serialize, de::DeserializeOwned};
use storage::Key;

pub use crate::upload::{Piece, assemble, split_whole_blob};
use crate::{
    config::{ClientFile, MemberFile, parse_text},
    exchange::decode_announcement,
    ledger::consensus::read_record,
    repair::Evidence,
    sliver_store::{read_commitment, read_name},
};

/// Reads an announcement of a stage of an epoch.
#[must_use]
pub fn announcement(bytes: &[u8]) -> Option<Vec<u8>> {
    decode_announcement(bytes).ok().map(|announced| codec::encode(&announced))
}

/// Reads a record of the log of votes, and makes of it what consensus takes.
#[must_use]
pub fn wal_record(bytes: &[u8], height: u64) -> Option<Vec<u8>> {
    read_record(bytes, height)
}

/// Reads evidence that a blob was encoded wrongly; true if it holds.
#[must_use]
pub fn evidence(bytes: &[u8], blob_id: BlobId, encoder: &mut SegmentEncoder) -> bool {
    Evidence::verify(bytes, blob_id, encoder).is_ok()
}

/// Reads the record of a commitment in the sliver store.
#[must_use]
pub fn commitment_record(bytes: &[u8]) -> Option<Vec<u8>> {
    read_commitment(bytes)
}

/// Reads the name of a record in the sliver store.
#[must_use]
pub fn record_name(key: &Key) -> Option<Key> {
    read_name(key)
}

/// Reads the text of a file that holds a secret key.
#[must_use]
pub fn key_file(text: &[u8]) -> Option<String> {
    crate::keys::parse(text).map(|secret| hex::encode(*secret))
}

/// Reads the text of a client's configuration, and writes it.
#[must_use]
pub fn client_file(text: &str) -> Option<String> {
    rewritten::<ClientFile>(text)
}

/// Reads the text of a member file, and writes it.
#[must_use]
pub fn member_file(text: &str) -> Option<String> {
    rewritten::<MemberFile>(text)
}

fn rewritten<T: DeserializeOwned + Serialize>(text: &str) -> Option<String> {
    let file: T = parse_text(text)?;
    Some(toml::to_string(&file).expect("what was read as TOML is TOML"))
}
