use proptest::prelude::*;
use reed_solomon_simd::{ReedSolomonEncoder, engine::tables};

use super::*;

fn shards(count: usize, len: usize, seed: u64) -> Vec<Vec<u8>> {
    use rand::{RngCore as _, SeedableRng as _};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| {
            let mut shard = vec![0; len];
            rng.fill_bytes(&mut shard);
            shard
        })
        .collect()
}

fn extend(code: &Code, source: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut workspace = Workspace::default();
    let parity = code.encode_tile(&mut workspace, source[0].len(), |i, shard| shard.copy_from(&source[i]));
    parity.into_shards().map(|shard| shard.into_bytes().to_vec()).collect()
}

/// Elements in the order in which the crate wants them: low bytes, then high bytes.
fn planes(shard: &[u8]) -> Vec<u8> {
    let pairs = || shard.as_chunks::<2>().0.iter();
    pairs().map(|pair| pair[0]).chain(pairs().map(|pair| pair[1])).collect()
}

#[test]
fn the_code_is_the_crates_own() {
    for n in (4..=64).chain([100, 101, 127, 128, 129, 255, 334, 500, 667, 1000]) {
        for k in [crate::encoding::n_source_rows(n), crate::encoding::n_source_columns(n)] {
            let n = usize::from(n);
            let code = Code::new(k, n);
            // 32 elements, so that a shard is one block of the crate's layout.
            let source = shards(k, 64, 7);
            let parity = extend(&code, &source);
            let mut theirs = ReedSolomonEncoder::new(k, n - k, 64).unwrap();
            for shard in &source {
                theirs.add_original_shard(planes(shard)).unwrap();
            }
            let theirs = theirs.encode().unwrap();
            for (ours, theirs) in parity.iter().zip(theirs.recovery_iter()) {
                assert_eq!(planes(ours), theirs, "{k} of {n}");
            }
        }
    }
}

/// Product of two field elements.
fn product(a: GfElement, b: GfElement) -> GfElement {
    let tables::ExpLog { exp, log } = tables::get_exp_log();
    if a == 0 || b == 0 { 0 } else { tables::mul(a, log[usize::from(b)], exp, log) }
}

fn inverse(a: GfElement) -> GfElement {
    let tables::ExpLog { exp, log } = tables::get_exp_log();
    tables::mul(1, GF_MODULUS - log[usize::from(a)], exp, log)
}

/// The value at `x` of the polynomial of least degree through the points, which are pairs of position and value.
fn interpolate(points: &[(GfElement, GfElement)], x: GfElement) -> GfElement {
    points.iter().fold(0, |sum, (xi, yi)| {
        let others = points.iter().filter(|(xj, _)| xj != xi);
        sum ^ others.fold(*yi, |term, (xj, _)| product(product(term, x ^ xj), inverse(xi ^ xj)))
    })
}

/// The field as `docs/spec/encoding.md` defines it: polynomials over bits modulo 0x1002d, written in another basis.
#[test]
fn the_field_is_the_documented_one() {
    use reed_solomon_simd::engine::{CANTOR_BASIS, GF_POLYNOMIAL};
    assert_eq!(GF_POLYNOMIAL, 0x1002d);
    let to_polynomial = |a: GfElement| {
        let bits = CANTOR_BASIS.iter().enumerate().filter(|(bit, _)| a >> bit & 1 == 1);
        bits.fold(0_u32, |sum, (_, basis)| sum ^ u32::from(*basis))
    };
    let multiply = |a: u32, b: u32| {
        let mut sum = (0..16).filter(|bit| b >> bit & 1 == 1).fold(0_u32, |sum, bit| sum ^ a << bit);
        for bit in (16..32).rev() {
            if sum >> bit & 1 == 1 {
                sum ^= 0x1002d << (bit - 16);
            }
        }
        sum
    };
    for (a, b) in [(1, 1), (1, 77), (2, 3), (255, 256), (0x1234, 0xfedc), (65535, 65535), (0, 9)] {
        let expected = multiply(to_polynomial(a), to_polynomial(b));
        assert_eq!(to_polynomial(product(a, b)), expected, "{a} * {b}");
    }
}

/// The code as `docs/spec/encoding.md` defines it: values of a polynomial.
#[test]
fn parity_is_the_values_of_a_polynomial() {
    let narrow = |index: usize| GfElement::try_from(index).unwrap();
    for (k, n) in
        [(2, 4), (3, 4), (3, 7), (5, 7), (4, 10), (7, 10), (5, 13), (9, 13), (11, 31), (21, 31), (34, 100)]
    {
        let code = Code::new(k, n);
        let source = shards(k, 2, 42);
        let parity = extend(&code, &source);
        let element = |shard: &[u8]| GfElement::from_le_bytes([shard[0], shard[1]]);
        let value = |i: usize| source.get(i).map_or(0, |shard| element(shard));
        let chunk = code.chunk();
        let (points, first): (Vec<_>, usize) = if code.high_rate {
            // Source values from `chunk` on, zeros to the next power of two; parity from 0 on.
            let end = (chunk + k).next_power_of_two();
            ((chunk..end).map(|at| (narrow(at), value(at - chunk))).collect(), 0)
        } else {
            // Source values from 0 on, zeros to `chunk`; parity from there on.
            ((0..chunk).map(|at| (narrow(at), value(at))).collect(), chunk)
        };
        for (j, parity) in parity.iter().enumerate() {
            let expected = interpolate(&points, narrow(first + j));
            assert_eq!(element(parity), expected, "parity {j} of {k} of {n}, high rate: {}", code.high_rate);
        }
    }
}

/// Every pattern twice over, more than are kept: each decodes with its own factors, however long ago it was set before.
#[test]
fn patterns_that_come_again_decode_alike() {
    let (k, n) = (4, 10);
    let code = Code::new(k, n);
    let mut all = shards(k, 64, 3);
    all.extend(extend(&code, &all));
    let is_present = |pattern: u32, index: usize| pattern >> index & 1 == 1;
    let patterns: Vec<u32> = (0..1 << n).filter(|pattern: &u32| pattern.count_ones() == 4).collect();
    assert!(patterns.len() > LOCATORS_MAX);
    let mut workspace = Workspace::default();
    // The last ones are still there when the first ones come again from the other end.
    for pattern in patterns.iter().chain(patterns.iter().rev()) {
        let present: Vec<bool> = (0..n).map(|index| is_present(*pattern, index)).collect();
        code.set_present(&mut workspace, &present);
        let mut n_decoded = 0;
        code.decode_tile(
            &mut workspace,
            64,
            |i, shard| shard.copy_from(&all[i]),
            |i, shard| {
                assert_eq!(shard.into_bytes(), all[i], "shard {i} of pattern {pattern:b}");
                n_decoded += 1;
            },
        );
        assert_eq!(n_decoded, present[..k].iter().filter(|present| !**present).count());
        assert!(workspace.locators.len() <= LOCATORS_MAX);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_k_of_n_give_the_source_back(n in 4_u16..=120, column: bool, elements in 1_usize..200, seed: u64) {
        use rand::{SeedableRng as _, seq::SliceRandom as _};
        let k = if column { crate::encoding::n_source_rows(n) } else { crate::encoding::n_source_columns(n) };
        let n = usize::from(n);
        let code = Code::new(k, n);
        let mut all = shards(k, 2 * elements, seed);
        all.extend(extend(&code, &all));
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed ^ 1));
        let mut present = vec![false; n];
        for index in &order[..k] {
            present[*index] = true;
        }
        let mut workspace = Workspace::default();
        code.set_present(&mut workspace, &present);
        let mut missing: Vec<usize> = (0..k).filter(|i| !present[*i]).collect();
        code.decode_tile(
            &mut workspace,
            2 * elements,
            |i, shard| shard.copy_from(&all[i]),
            |i, shard| {
                assert_eq!(shard.into_bytes(), all[i]);
                missing.retain(|m| *m != i);
            },
        );
        prop_assert!(missing.is_empty());
    }

    #[test]
    fn tiles_and_whole_shards_give_the_same_bytes(n in 4_u16..=40, elements in 2_usize..300, cut in 1_usize..300) {
        let code = Code::new(crate::encoding::n_source_rows(n), usize::from(n));
        let source = shards(code.k(), 2 * elements, 11);
        let whole = extend(&code, &source);
        let cut = 2 * (1 + cut % (elements - 1));
        let parts: Vec<_> = [0..cut, cut..2 * elements]
            .map(|range| extend(&code, &source.iter().map(|s| s[range.clone()].to_vec()).collect::<Vec<_>>()))
            .to_vec();
        for (j, whole) in whole.iter().enumerate() {
            prop_assert_eq!(&[&parts[0][j][..], &parts[1][j][..]].concat(), whole);
        }
    }

    #[test]
    fn the_generator_gives_each_parity_symbol(n in 4_u16..=100, row: bool, seed: u64) {
        let k = if row { crate::encoding::n_source_columns(n) } else { crate::encoding::n_source_rows(n) };
        let code = Code::new(k, usize::from(n));
        let source = shards(k, 130, seed);
        let parity = extend(&code, &source);
        let mut workspace = Workspace::default();
        let generator = code.generator(&mut workspace);
        for (coefficients, parity) in generator.iter().zip(&parity) {
            let mut sum = crate::encoding::recover::SymbolSum::new(130);
            for (coefficient, source) in coefficients.iter().zip(&source) {
                sum.add(*coefficient, source);
            }
            prop_assert_eq!(&sum.finish(), parity);
        }
    }
}
