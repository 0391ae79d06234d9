//! Snapshots in pages: each is a run of entries with the hashes of what lies left and right of it, so a joiner checks
//! each page against a certified root before it keeps a byte of it.
//!
//! A page after the first begins with the last entry of the page before. What lies between two neighbours of a page
//! would need a hash between them, and none is allowed there; so pages that join at an entry leave nothing out.

use bincode::{Decode, Encode};

use super::{
    EMPTY_ROOT, Entry, Tree,
    entries::last_before,
    node::{N_BITS_MAX, Node, bit, branch_hash, leaf_hash},
};
use crate::hash::Hash;

/// Bytes of entries, each with 128 on top, at which a page ends: a message that travels in one piece.
pub const PAGE_BYTES_AIM: usize = 192 << 10;
/// What an entry counts beside its bytes: itself and a branch, as they lie in memory. Without it, a page of the smallest
/// entries would take more memory to decode than its limit allows.
const ENTRY_OVERHEAD_BYTES: usize = 128;
/// Limit for decoding a page: entries up to the aim and one more, hashes at both borders, and the memory that small
/// entries take beside their bytes.
pub const PAGE_BYTES_MAX: usize = 2 << 20;

/// Why a page was refused. Whoever sent it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The items are not those of a tree.
    #[error("item {item} of the page is out of place")]
    Malformed {
        /// The first item at fault, from 0; the number of items if there are too few.
        item: usize,
    },
    /// The page does not continue the one before.
    #[error("the page does not begin where the one before ended")]
    Gap,
    /// The page brings nothing new and is not the last.
    #[error("the page has no new entry")]
    NoProgress,
    /// There are pages to come.
    #[error("the snapshot is not complete")]
    Incomplete,
    /// The page is of another tree.
    #[error("the page leads to root {got:?}, not to {required:?}")]
    Root {
        /// Root computed.
        got: Hash,
        /// Root of the snapshot.
        required: Hash,
    },
}

/// A piece of the tree in preorder.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Item {
    /// Two subtrees follow, which differ at this bit.
    Branch { bit: u16 },
    /// A subtree that is not part of the page.
    Pruned { hash: Hash },
    /// An entry of the page.
    Entry { entry: Entry },
}

/// A run of neighbouring entries of a snapshot, with what is needed to check it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Page {
    items: Vec<Item>,
}

impl Tree {
    /// The page that proves which entries there are from `start` on: [`Page::verify_range`] reads it. It may have an entry
    /// before `start`, from which on it leaves nothing out.
    #[must_use]
    pub fn range_page(&self, start: &[u8], bytes_aim: usize) -> Page {
        let after = last_before(self.root.as_deref(), start);
        self.page(after, bytes_aim).unwrap_or(Page { items: Vec::new() })
    }

    /// The page that follows the entry with key `after`, or the first; `None` if there is no such entry.
    ///
    /// It ends at the first entry with which it has `bytes_aim` bytes, and has at least one that follows `after` unless
    /// that is the last.
    #[must_use]
    pub fn page(&self, after: Option<&[u8]>, bytes_aim: usize) -> Option<Page> {
        if let Some(after) = after {
            self.get(after)?;
        }
        let mut cutter = Cutter { items: Vec::new(), after, bytes: 0, bytes_aim: bytes_aim.max(1) };
        if let Some(root) = &self.root {
            cutter.cut(root, after.is_some());
        }
        Some(Page { items: cutter.items })
    }
}

struct Cutter<'a> {
    items: Vec<Item>,
    after: Option<&'a [u8]>,
    /// Bytes of entries so far, with their overhead.
    bytes: usize,
    bytes_aim: usize,
}

impl Cutter<'_> {
    /// Adds a subtree; `holds_after` if the entry that the page continues is in it.
    fn cut(&mut self, node: &Node, holds_after: bool) {
        if self.bytes >= self.bytes_aim {
            self.items.push(Item::Pruned { hash: node.hash() });
            return;
        }
        match node {
            Node::Leaf(leaf) => {
                if !holds_after {
                    self.bytes += leaf.key.len() + leaf.value.len() + ENTRY_OVERHEAD_BYTES;
                }
                let entry = Entry { key: leaf.key.to_vec(), value: leaf.value.to_vec() };
                self.items.push(Item::Entry { entry });
            }
            Node::Branch(branch) => {
                self.items.push(Item::Branch { bit: branch.bit });
                let is_right = holds_after && self.after.is_some_and(|after| bit(after, branch.bit));
                if is_right {
                    self.items.push(Item::Pruned { hash: branch.left.hash() });
                } else {
                    self.cut(&branch.left, holds_after);
                }
                self.cut(&branch.right, is_right);
            }
        }
    }
}

/// Where a reader of a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first entry.
    Before { has_pruned: bool },
    /// Behind an entry, nothing left out since.
    Within,
    /// Behind the last entry.
    Behind,
}

struct Reader {
    items: std::vec::IntoIter<Item>,
    n_read: usize,
    place: Place,
    has_pruned_before: bool,
    entries: Vec<Entry>,
}

impl Reader {
    const fn malformed(&self) -> PageError {
        PageError::Malformed { item: self.n_read }
    }

    /// Reads a subtree whose branches are at `bit_min` or behind it, which bounds the depth, and returns its hash.
    fn subtree(&mut self, bit_min: u16) -> Result<Hash, PageError> {
        let malformed = self.malformed();
        let item = self.items.next().ok_or_else(|| malformed.clone())?;
        self.n_read += 1;
        match item {
            Item::Branch { bit } => {
                if !(bit_min..N_BITS_MAX).contains(&bit) {
                    return Err(malformed);
                }
                let left = self.subtree(bit + 1)?;
                let right = self.subtree(bit + 1)?;
                Ok(branch_hash(bit, &left, &right))
            }
            Item::Pruned { hash } => {
                self.place = match self.place {
                    Place::Before { .. } => Place::Before { has_pruned: true },
                    Place::Within | Place::Behind => Place::Behind,
                };
                Ok(hash)
            }
            Item::Entry { entry } => {
                if self.place == Place::Behind || !entry.is_bounded() {
                    return Err(malformed);
                }
                self.has_pruned_before |= self.place == Place::Before { has_pruned: true };
                self.place = Place::Within;
                let hash = leaf_hash(&entry.key, &entry.value);
                self.entries.push(entry);
                Ok(hash)
            }
        }
    }
}

impl Page {
    /// Checks that the page is of the tree with this root and continues behind the key `after`, or is the first, and
    /// returns its new entries and whether they are the last.
    pub(super) fn verify(self, root: &Hash, after: Option<&[u8]>) -> Result<(Vec<Entry>, bool), PageError> {
        let (mut entries, is_first, is_last) = self.read(root)?;
        let continues = match after {
            None => is_first,
            Some(after) => entries.first().is_some_and(|first| first.key == after),
        };
        if !continues {
            return Err(PageError::Gap);
        }
        if after.is_some() {
            entries.remove(0);
        }
        if entries.is_empty() && !is_last {
            return Err(PageError::NoProgress);
        }
        Ok((entries, is_last))
    }

    /// Checks that the page is of the tree with this root and shows all entries from `start` on up to its end, and returns
    /// them and whether there are no more.
    ///
    /// # Errors
    ///
    /// If it does not verify, or may leave out an entry; whoever gave it is at fault.
    pub fn verify_range(self, root: &Hash, start: &[u8]) -> Result<(Vec<Entry>, bool), PageError> {
        let (mut entries, is_first, is_last) = self.read(root)?;
        let begins_before = entries.first().is_some_and(|first| first.key.as_slice() < start);
        if !is_first && !begins_before {
            return Err(PageError::Gap);
        }
        entries.retain(|entry| entry.key.as_slice() >= start);
        if entries.is_empty() && !is_last {
            return Err(PageError::NoProgress);
        }
        Ok((entries, is_last))
    }

    /// Checks that the page is of the tree with this root; returns its entries, whether there is none before them, and
    /// whether there is none behind them.
    fn read(self, root: &Hash) -> Result<(Vec<Entry>, bool, bool), PageError> {
        let mut reader = Reader {
            items: self.items.into_iter(),
            n_read: 0,
            place: Place::Before { has_pruned: false },
            has_pruned_before: false,
            entries: Vec::new(),
        };
        let got = if reader.items.len() == 0 { EMPTY_ROOT } else { reader.subtree(0)? };
        if reader.items.len() > 0 {
            return Err(reader.malformed());
        }
        if got != *root {
            return Err(PageError::Root { got, required: *root });
        }
        // A page of hashes alone lets nobody go on.
        let is_last = !matches!(reader.place, Place::Behind | Place::Before { has_pruned: true });
        Ok((reader.entries, !reader.has_pruned_before, is_last))
    }
}

/// A tree that is rebuilt from pages of anyone's, against a certified root.
#[derive(Debug)]
pub struct Restore {
    root: Hash,
    tree: Tree,
    /// Key of the last entry so far.
    last: Option<Vec<u8>>,
    is_complete: bool,
}

impl Restore {
    /// Starts to rebuild the tree with this root.
    #[must_use]
    pub fn new(root: Hash) -> Self {
        Self { root, tree: Tree::default(), last: None, is_complete: false }
    }

    /// Key of the last entry so far: what the next page is asked for by.
    #[must_use]
    pub fn last_key(&self) -> Option<&[u8]> {
        self.last.as_deref()
    }

    /// True once all entries are here.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Verifies the next page and keeps its entries. Costs a hash per item.
    ///
    /// # Errors
    ///
    /// If the page does not verify. Nothing was kept then; ask someone else.
    pub fn accept(&mut self, page: Page) -> Result<(), PageError> {
        let (entries, is_last) = page.verify(&self.root, self.last.as_deref())?;
        for entry in &entries {
            self.tree.insert(&entry.key, &entry.value);
        }
        if let Some(last) = entries.into_iter().next_back() {
            self.last = Some(last.key);
        }
        self.is_complete = is_last;
        Ok(())
    }

    /// The tree, once it is complete.
    ///
    /// # Errors
    ///
    /// If it is not, or its root is not the one asked for, which pages of a certified root rule out.
    pub fn finish(self) -> Result<Tree, PageError> {
        if !self.is_complete {
            return Err(PageError::Incomplete);
        }
        let (got, required) = (self.tree.root(), self.root);
        if got == required { Ok(self.tree) } else { Err(PageError::Root { got, required }) }
    }
}
