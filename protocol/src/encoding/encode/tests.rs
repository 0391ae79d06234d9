use super::*;
use crate::encoding::BlobShape;

fn data(len: usize, seed: u64) -> Vec<u8> {
    use rand::{RngCore as _, SeedableRng as _};
    let mut data = vec![0; len];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut data);
    data
}

fn shape(n: u16, len: usize) -> SegmentShape {
    let blob = BlobShape::new(n, u64::try_from(len).unwrap()).unwrap();
    blob.segment(crate::SegmentIndex(0)).unwrap()
}

/// The grid by its definition: each row and each column extended by itself, one symbol at a time.
fn check_against_definition(n: u16, len: usize) {
    let shape = shape(n, len);
    let mut encoder = SegmentEncoder::new(n);
    let data = data(len, 1);
    let segment = encoder.encode(shape, &data);
    let w = shape.symbol_bytes();
    let (s, p) = (shape.n_source(Axis::Primary), shape.n_source(Axis::Secondary));
    let mut padded = data;
    padded.resize(shape.source_bytes(), 0);
    if shape.is_replicated() {
        return check_copies(&padded, &segment);
    }
    assert_eq!(segment.primary[..padded.len()], padded);
    let symbol = |row: usize, column: usize| &padded[(row * s + column) * w..][..w];
    for axis in [Axis::Primary, Axis::Secondary] {
        for index in 0..n {
            let sliver = segment.sliver(axis, index);
            let at = usize::from(index);
            // Systematic slivers are the grid; the others extend it across.
            let (systematic, across) = match axis {
                Axis::Primary => (at < p, s),
                Axis::Secondary => (at < s, p),
            };
            for i in 0..across {
                let own = &sliver[i * w..][..w];
                if systematic {
                    let (row, column) = if axis == Axis::Primary { (at, i) } else { (i, at) };
                    assert_eq!(own, symbol(row, column));
                } else {
                    let crossing = segment.sliver(axis.crossing(), u16::try_from(i).unwrap()).to_vec();
                    let extended = encoder.extend_sliver(shape, axis.crossing(), &crossing);
                    let k = shape.n_source(axis.crossing());
                    assert_eq!(own, &extended[(at - k) * w..][..w], "{axis:?} {index} symbol {i}");
                }
            }
            let parity = encoder.extend_sliver(shape, axis, sliver);
            let (source, parity) = (root_of_part(shape, sliver), root_of_part(shape, &parity));
            let expected = SliverHashes { source, parity };
            assert_eq!(segment.hashes(axis, index), expected, "{axis:?} {index}");
            assert_eq!(source_root(shape, sliver), expected.source);
        }
    }
}

/// Every sliver is the bytes, and the commitment is their hash.
fn check_copies(padded: &[u8], segment: &EncodedSegment) {
    let mut block = padded.to_vec();
    block.resize(padded.len().next_multiple_of(64), 0);
    let source = if padded.len() <= 1024 {
        crate::hash::LEAF.hash(&block)
    } else {
        let pieces = block.chunks(1024).map(|piece| crate::hash::LEAF.hash(piece));
        merkle::root(&pieces.collect::<Vec<_>>())
    };
    let root = merkle::parent(&source, &Hash::default());
    for axis in [Axis::Primary, Axis::Secondary] {
        for index in 0..segment.shape().n() {
            assert_eq!(segment.sliver(axis, index), padded);
            assert_eq!(segment.hashes(axis, index).root(), root);
            assert_eq!(segment.commitment().sliver_root(axis, index), root);
        }
    }
    assert_eq!(segment.commitment().to_bytes(), [root.0, root.0].concat());
}

#[test]
fn the_grid_is_what_its_definition_says() {
    for n in [4, 5, 6, 7, 10, 13, 31] {
        for len in [0, 1, 2, 57, 1000, 4096, 100_000] {
            check_against_definition(n, len);
        }
    }
    check_against_definition(4, 300_000);
    check_against_definition(7, 400_000);
    check_against_definition(10, 300_001);
    check_against_definition(16, 500_000);
    check_against_definition(100, 5000);
    check_against_definition(100, 200_000);
}

#[test]
fn crossing_slivers_share_their_symbol_beyond_the_source() {
    // Parity row and parity column meet in the corner: extended from either side, it is one symbol.
    let (n, len) = (13, 20_000);
    let shape = shape(n, len);
    let mut encoder = SegmentEncoder::new(n);
    let segment = encoder.encode(shape, &data(len, 2));
    let w = shape.symbol_bytes();
    let (s, p) = (shape.n_source(Axis::Primary), shape.n_source(Axis::Secondary));
    for row in p..usize::from(n) {
        let primary = segment.sliver(Axis::Primary, u16::try_from(row).unwrap()).to_vec();
        let row_parity = encoder.extend_sliver(shape, Axis::Primary, &primary);
        for column in s..usize::from(n) {
            let secondary = segment.sliver(Axis::Secondary, u16::try_from(column).unwrap()).to_vec();
            let column_parity = encoder.extend_sliver(shape, Axis::Secondary, &secondary);
            assert_eq!(row_parity[(column - s) * w..][..w], column_parity[(row - p) * w..][..w]);
        }
    }
}

#[test]
fn buffers_of_an_earlier_segment_leave_no_trace() {
    let mut encoder = SegmentEncoder::new(7);
    // Replicated, grouped, one pass after the other, in stripes: each after each.
    let lens = [10, 500, 50_000, 400_000];
    for before in lens {
        for len in lens {
            let fresh = SegmentEncoder::new(7).encode(shape(7, len), &data(len, 4));
            let mut segment = encoder.encode(shape(7, before), &data(before, 3));
            encoder.encode_into(shape(7, len), &data(len, 4), &mut segment);
            assert_eq!(*segment.primary, *fresh.primary, "{len} after {before}");
            assert_eq!(*segment.secondary, *fresh.secondary);
            assert_eq!(segment.commitment(), fresh.commitment());
        }
    }
}
