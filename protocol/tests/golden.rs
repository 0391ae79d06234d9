//! Blob IDs of known blobs. A change here is a change of the format: every blob ever stored gets another ID.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;

use protocol::{
    SegmentIndex,
    commitment::BlobHeader,
    encoding::{Axis, BlobShape, SegmentEncoder},
};

/// Byte `i` of every test blob: not constant, no short period, and easy to write down in any language.
fn byte(i: u64) -> u8 {
    let [a, b, c, ..] = i.to_le_bytes();
    a.wrapping_mul(31) ^ b.wrapping_mul(17) ^ c
}

fn blob_id(mut encoder: SegmentEncoder, length: u64) -> String {
    let shape = BlobShape::new(encoder.n(), length).unwrap();
    let roots: Vec<_> = shape
        .segments()
        .map(|index| {
            let data: Vec<u8> = shape.range(index).unwrap().map(byte).collect();
            encoder.encode(shape.segment(index).unwrap(), &data).commitment().root()
        })
        .collect();
    BlobHeader::new(&shape, &roots).blob_id().to_string()
}

/// Longer blobs are not encoded once more without vector instructions.
const PORTABLE_BYTES_MAX: u64 = 2 << 20;

#[test]
fn blob_ids_are_what_they_always_were() {
    let vectors = include_str!("golden/blob_ids.txt");
    let mut wrong = Vec::new();
    for line in vectors.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let [n, length, expected] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("malformed line: {line}");
        };
        let (n, length) = (n.parse().unwrap(), length.parse().unwrap());
        let got = blob_id(SegmentEncoder::new(n), length);
        if got != expected {
            wrong.push(format!("{n} {length} {got}"));
        }
        if length <= PORTABLE_BYTES_MAX {
            assert_eq!(got, blob_id(SegmentEncoder::portable(n), length), "{n} {length}, portable kernel");
        }
    }
    assert!(wrong.is_empty(), "computed now:\n{}", wrong.join("\n"));
}

/// All that is computed on the way to the blob ID, for whoever writes a second implementation.
#[test]
fn a_segment_is_what_it_always_was() {
    let mut text = String::new();
    for length in [5, 300] {
        let shape = BlobShape::new(4, length).unwrap();
        let data: Vec<u8> = (0..length).map(byte).collect();
        let segment = SegmentEncoder::new(4).encode(shape.segment(SegmentIndex(0)).unwrap(), &data);
        let commitment = segment.commitment();
        writeln!(text, "blob of {length} bytes, n 4: {}", hex::encode(&data)).unwrap();
        writeln!(text, "{:?}, symbols of {} bytes", shape.encoding(), segment.shape().symbol_bytes())
            .unwrap();
        for axis in [Axis::Primary, Axis::Secondary] {
            for index in 0..4 {
                let hashes = segment.hashes(axis, index);
                writeln!(text, "{axis:?} sliver {index}: {}", hex::encode(segment.sliver(axis, index)))
                    .unwrap();
                writeln!(
                    text,
                    "  source {:?} parity {:?} root {:?}",
                    hashes.source,
                    hashes.parity,
                    hashes.root()
                )
                .unwrap();
            }
        }
        writeln!(text, "commitment: {}", hex::encode(commitment.to_bytes())).unwrap();
        writeln!(text, "segment root: {:?}", commitment.root()).unwrap();
        writeln!(text, "blob ID: {}\n", BlobHeader::new(&shape, &[commitment.root()]).blob_id()).unwrap();
    }
    assert_eq!(text, include_str!("golden/segments.txt"), "computed now:\n{text}");
}
