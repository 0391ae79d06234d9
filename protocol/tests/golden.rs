//! Blob IDs of known blobs. A change here is a change of the format: every blob ever stored gets another ID.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use protocol::{
    commitment::BlobHeader,
    encoding::{BlobShape, SegmentEncoder},
};

/// Byte `i` of every test blob: not constant, no short period, and easy to write down in any language.
fn byte(i: u64) -> u8 {
    let [a, b, c, ..] = i.to_le_bytes();
    a.wrapping_mul(31) ^ b.wrapping_mul(17) ^ c
}

fn blob_id(n: u16, length: u64) -> String {
    let shape = BlobShape::new(n, length).unwrap();
    let mut encoder = SegmentEncoder::new(n);
    let roots: Vec<_> = shape
        .segments()
        .map(|index| {
            let data: Vec<u8> = shape.range(index).unwrap().map(byte).collect();
            encoder.encode(shape.segment(index).unwrap(), &data).commitment().root()
        })
        .collect();
    BlobHeader::new(&shape, &roots).blob_id().to_string()
}

#[test]
fn blob_ids_are_what_they_always_were() {
    let vectors = include_str!("golden/blob_ids.txt");
    let mut wrong = Vec::new();
    for line in vectors.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let [n, length, expected] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("malformed line: {line}");
        };
        let got = blob_id(n.parse().unwrap(), length.parse().unwrap());
        if got != expected {
            wrong.push(format!("{n} {length} {got}"));
        }
    }
    assert!(wrong.is_empty(), "computed now:\n{}", wrong.join("\n"));
}
