//! Merkle trees over any number of leaves.
//!
//! The nodes of a level are hashed in pairs from the left; a last node without a partner moves up unchanged.
//! The shape follows from the number of leaves alone, which every verifier knows from elsewhere, so a path
//! needs no directions and a proof for one index never fits another.

use crate::hash::{Hash, NODE};

/// Most levels of any tree here: blobs have at most 2^32 segments, segments at most 1000 pairs.
pub const PATH_LEN_MAX: usize = 32;

/// Returns the root over `leaves`, using them as work space.
///
/// # Panics
///
/// If there are no leaves.
#[must_use]
pub fn root_in_place(leaves: &mut [Hash]) -> Hash {
    assert!(!leaves.is_empty(), "a tree has leaves");
    let mut len = leaves.len();
    let mut pairs = [[0_u8; 64]; 16];
    while len > 1 {
        let n_pairs = len / 2;
        let mut done = 0;
        while done < n_pairs {
            let batch = (n_pairs - done).min(pairs.len());
            for (pair, children) in pairs.iter_mut().zip(leaves[2 * done..2 * (done + batch)].chunks_exact(2))
            {
                pair[..32].copy_from_slice(&children[0].0);
                pair[32..].copy_from_slice(&children[1].0);
            }
            // Parents land left of the children still to be read: `done + batch <= 2 * (done + batch)`.
            NODE.hash_many(pairs[..batch].as_flattened(), 64, &mut leaves[done..done + batch]);
            done += batch;
        }
        if len % 2 == 1 {
            leaves[n_pairs] = leaves[len - 1];
        }
        len = n_pairs + len % 2;
    }
    leaves[0]
}

/// Returns the root over `leaves`.
///
/// # Panics
///
/// If there are no leaves.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    root_in_place(&mut leaves.to_vec())
}

/// Hashes two nodes into their parent.
#[must_use]
pub fn parent(left: &Hash, right: &Hash) -> Hash {
    NODE.hash_parts(&[&left.0, &right.0])
}

/// Returns the path of the leaf at `index`: its sibling on each level, from the leaves up, where it has one.
///
/// # Panics
///
/// If `index` is not a leaf's.
#[must_use]
pub fn path(leaves: &[Hash], index: usize) -> Vec<Hash> {
    assert!(index < leaves.len(), "the leaf exists");
    let mut level = leaves.to_vec();
    let mut index = index;
    let mut path = Vec::new();
    while level.len() > 1 {
        if let Some(sibling) = level.get(index ^ 1) {
            path.push(*sibling);
        }
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => parent(left, right),
                _ => pair[0],
            })
            .collect();
        index /= 2;
    }
    path
}

/// Returns the root that `path` leads to from the leaf at `index` of `n_leaves`, or `None` if the path does
/// not have the length that this position calls for.
#[must_use]
pub fn root_of_path(leaf: &Hash, index: usize, n_leaves: usize, path: &[Hash]) -> Option<Hash> {
    if index >= n_leaves {
        return None;
    }
    let (mut hash, mut index, mut len) = (*leaf, index, n_leaves);
    let mut siblings = path.iter();
    while len > 1 {
        if index ^ 1 < len {
            let sibling = siblings.next()?;
            hash = if index % 2 == 0 { parent(&hash, sibling) } else { parent(sibling, &hash) };
        }
        index /= 2;
        len = len.div_ceil(2);
    }
    siblings.next().is_none().then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::LEAF;

    fn leaves(n: u32) -> Vec<Hash> {
        (0..n).map(|i| LEAF.hash(&i.to_le_bytes())).collect()
    }

    #[test]
    fn every_leaf_proves_itself_and_nothing_else() {
        for n in (1..40).chain([99, 100, 255, 256, 257]) {
            let leaves = leaves(n);
            let root = root(&leaves);
            for (index, leaf) in leaves.iter().enumerate() {
                let path = path(&leaves, index);
                assert!(path.len() <= PATH_LEN_MAX);
                assert_eq!(root_of_path(leaf, index, leaves.len(), &path), Some(root), "{index} of {n}");
                let other = (index + 1) % leaves.len();
                if other != index {
                    assert_ne!(root_of_path(leaf, other, leaves.len(), &path), Some(root));
                    assert_ne!(root_of_path(&leaves[other], index, leaves.len(), &path), Some(root));
                    let mut longer = path.clone();
                    longer.push(Hash::default());
                    assert_eq!(root_of_path(leaf, index, leaves.len(), &longer), None);
                    assert_eq!(root_of_path(leaf, index, leaves.len(), &path[..path.len() - 1]), None);
                }
            }
            assert_eq!(root_of_path(&leaves[0], leaves.len(), leaves.len(), &[]), None);
        }
    }

    #[test]
    fn a_root_depends_on_order_and_count() {
        let mut leaves = leaves(5);
        let before = root(&leaves);
        leaves.swap(0, 4);
        assert_ne!(root(&leaves), before);
        leaves.swap(0, 4);
        leaves.push(leaves[4]);
        assert_ne!(root(&leaves), before);
    }
}
