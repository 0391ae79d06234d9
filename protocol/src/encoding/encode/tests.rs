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
    let (large, small) = (shape(7, 50_000), shape(7, 10));
    let fresh = SegmentEncoder::new(7).encode(small, &[9; 10]);
    let mut segment = encoder.encode(large, &data(50_000, 3));
    encoder.encode_into(small, &[9; 10], &mut segment);
    assert_eq!(*segment.primary, *fresh.primary);
    assert_eq!(*segment.secondary, *fresh.secondary);
    assert_eq!(segment.commitment(), fresh.commitment());
}
