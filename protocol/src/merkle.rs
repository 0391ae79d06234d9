//! Merkle trees over any number of leaves.
//!
//! The nodes of a level are hashed in pairs from the left; a last node without a partner moves up unchanged.
//! The shape follows from the number of leaves alone, which every verifier knows from elsewhere, so a path
//! needs no directions and a proof for one index never fits another.

use crate::hash::{Digest, Hash, NODE};

/// Most levels of any tree here: blobs have at most 2^32 segments, segments at most 1000 pairs.
pub const PATH_LEN_MAX: usize = 32;

/// Parents hashed before they are moved to their place.
const BATCH: usize = 16;

/// Returns the root over `leaves`, using them as work space.
///
/// # Panics
///
/// If there are no leaves.
#[must_use]
pub fn root_in_place(leaves: &mut [Digest]) -> Hash {
    let len = leaves.len();
    roots_in_place(leaves, len);
    Hash(leaves[0])
}

/// Replaces each group of `len` consecutive leaves by its root, at the front of `leaves`. Groups are hashed side by
/// side, so that many small trees are as quick as one large one.
///
/// # Panics
///
/// If `len` is zero, or does not divide the number of leaves.
pub fn roots_in_place(leaves: &mut [Digest], len: usize) {
    assert!(len > 0, "a tree has leaves");
    assert!(leaves.len().is_multiple_of(len), "whole groups");
    let n_groups = leaves.len() / len;
    let mut len = len;
    let mut parents = [[0; 32]; BATCH];
    while len > 1 {
        let (n_pairs, next_len) = (len / 2, len.div_ceil(2));
        // Parents land left of the children that are still to be read.
        let total = n_groups * n_pairs;
        let (mut group, mut pair) = (0, 0);
        for first in (0..total).step_by(BATCH) {
            let batch = BATCH.min(total - first);
            let (start_group, start_pair) = (group, pair);
            let bytes = leaves.as_flattened();
            let children = (0..batch).map(|_| {
                let at = (group * len + 2 * pair) * 32;
                pair += 1;
                if pair == n_pairs {
                    (group, pair) = (group + 1, 0);
                }
                bytes[at..].first_chunk::<64>().expect("a pair of leaves lies within its group")
            });
            NODE.hash_each(children, &mut parents);
            let (mut group, mut pair) = (start_group, start_pair);
            for parent in &parents[..batch] {
                leaves[group * next_len + pair] = *parent;
                pair += 1;
                if pair == n_pairs {
                    if len % 2 == 1 {
                        leaves[group * next_len + pair] = leaves[group * len + len - 1];
                    }
                    (group, pair) = (group + 1, 0);
                }
            }
        }
        len = next_len;
    }
}

/// Replaces each column of a matrix of leaves, `[rows][n_columns]`, by its root, in the first row. Rows are read and
/// written one after the other, so a large matrix needs no transposition.
///
/// # Panics
///
/// If there are no rows, or `n_columns` does not divide the number of leaves.
pub fn column_roots_in_place(leaves: &mut [Digest], n_columns: usize) {
    assert!(leaves.len().is_multiple_of(n_columns), "whole rows");
    let mut n_rows = leaves.len() / n_columns;
    assert!(n_rows > 0, "a tree has leaves");
    let mut pairs = [[0_u8; 64]; BATCH];
    while n_rows > 1 {
        for pair in 0..n_rows / 2 {
            for first in (0..n_columns).step_by(BATCH) {
                let batch = BATCH.min(n_columns - first);
                let left = 2 * pair * n_columns + first;
                let right = left + n_columns;
                for (i, pair) in pairs[..batch].iter_mut().enumerate() {
                    pair[..32].copy_from_slice(&leaves[left + i]);
                    pair[32..].copy_from_slice(&leaves[right + i]);
                }
                NODE.hash_each(&pairs[..batch], &mut leaves[pair * n_columns + first..][..batch]);
            }
        }
        if n_rows % 2 == 1 {
            leaves.copy_within((n_rows - 1) * n_columns..n_rows * n_columns, n_rows / 2 * n_columns);
        }
        n_rows = n_rows.div_ceil(2);
    }
}

/// Returns the root over `leaves`.
///
/// # Panics
///
/// If there are no leaves.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    let mut leaves: Vec<Digest> = leaves.iter().map(|leaf| leaf.0).collect();
    root_in_place(&mut leaves)
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

    /// The definition: pairs from the left, the last one moves up alone.
    fn reference(leaves: &[Hash]) -> Hash {
        match leaves {
            [root] => *root,
            _ => {
                let level: Vec<_> = leaves
                    .chunks(2)
                    .map(|pair| if let [left, right] = pair { parent(left, right) } else { pair[0] })
                    .collect();
                reference(&level)
            }
        }
    }

    #[test]
    fn every_leaf_proves_itself_and_nothing_else() {
        for n in (1..40).chain([99, 100, 255, 256, 257]) {
            let leaves = leaves(n);
            let root = root(&leaves);
            assert_eq!(root, reference(&leaves));
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
    fn many_trees_at_once_are_as_each_by_itself() {
        for (rows, columns) in [(1, 1), (1, 5), (5, 1), (2, 17), (7, 16), (13, 40), (33, 3), (64, 64)] {
            let all = leaves(rows * columns);
            let n_columns = usize::try_from(columns).unwrap();
            let digests: Vec<Digest> = all.iter().map(|leaf| leaf.0).collect();
            let mut groups = digests.clone();
            roots_in_place(&mut groups, n_columns);
            for (group, root) in all.chunks(n_columns).zip(&groups) {
                assert_eq!(reference(group).0, *root, "{rows} groups of {columns}");
            }
            let mut matrix = digests;
            column_roots_in_place(&mut matrix, n_columns);
            for (column, root) in matrix[..n_columns].iter().enumerate() {
                let column: Vec<Hash> = all.iter().skip(column).step_by(n_columns).copied().collect();
                assert_eq!(reference(&column).0, *root, "{columns} columns of {rows}");
            }
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
