//! What all handles on one simulated directory share.

use std::{collections::BTreeMap, io};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::inode::Inode;

/// What becomes of the operation at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It happens.
    Lives,
    /// It happens, but the process dies before it learns of it.
    DiesAfter,
    /// The process dies before it happens.
    DiesBefore,
}

impl Fate {
    /// Carries out `operation` accordingly.
    pub(super) fn of<T>(
        self,
        state: &mut State,
        operation: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        match self {
            Self::Lives => operation(state),
            Self::DiesAfter => operation(state).and_then(|_| Err(died())),
            Self::DiesBefore => Err(died()),
        }
    }
}

/// The answer to everything a dead process asks.
pub(super) fn died() -> io::Error {
    io::Error::other("simulated: the process has died")
}

/// A name given or taken, not yet durable.
#[derive(Clone, Debug)]
enum Rename {
    Created(String, u64),
    Removed(String),
}

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) rng: ChaCha8Rng,
    pub(super) n_operations: u64,
    pub(super) fail_after: Option<u64>,
    pub(super) dead: bool,
    pub(super) capacity: Option<u64>,
    pub(super) lying_sync: bool,
    pub(super) failing_sync: bool,
    pub(super) full_next: bool,
    generation: u64,
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<Rename>,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            n_operations: 0,
            fail_after: None,
            dead: false,
            capacity: None,
            lying_sync: false,
            failing_sync: false,
            full_next: false,
            generation: 0,
            next_inode: 0,
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
        }
    }

    /// Whether a handle of this generation still works.
    pub(super) fn check(&self, generation: u64) -> io::Result<()> {
        if self.dead || generation != self.generation { Err(died()) } else { Ok(()) }
    }

    /// Counts one changing operation and says what becomes of it.
    pub(super) fn step(&mut self, generation: u64) -> io::Result<Fate> {
        self.check(generation)?;
        self.n_operations += 1;
        match &mut self.fail_after {
            None => Ok(Fate::Lives),
            Some(0) => {
                self.dead = true;
                Ok(if self.rng.random() { Fate::DiesAfter } else { Fate::DiesBefore })
            }
            Some(n) => {
                *n -= 1;
                Ok(Fate::Lives)
            }
        }
    }

    /// Ends the process, and with it the power if `power_cut`. Returns the generation of the next one.
    pub(super) fn restart(&mut self, power_cut: bool) -> u64 {
        if power_cut {
            for change in std::mem::take(&mut self.pending_names) {
                if self.rng.random() {
                    self.make_durable(change);
                }
            }
            self.names.clone_from(&self.durable_names);
            for inode in self.inodes.values_mut() {
                inode.crash(&mut self.rng);
            }
        }
        let named: Vec<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        self.inodes.retain(|inode, _| named.contains(inode));
        (self.dead, self.fail_after, self.lying_sync, self.failing_sync) = (false, None, false, false);
        self.full_next = false;
        self.generation += 1;
        self.generation
    }

    pub(super) fn create(&mut self, name: &str) -> io::Result<u64> {
        if self.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.names.insert(name.to_owned(), inode);
        self.pending_names.push(Rename::Created(name.to_owned(), inode));
        Ok(inode)
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        self.pending_names.push(Rename::Removed(name.to_owned()));
        Ok(())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.names.keys()
    }

    pub(super) fn inode_of(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A file that some handle refers to.
    ///
    /// # Panics
    /// If there is none, which no live handle can bring about.
    pub(super) fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("a live handle keeps its file")
    }

    pub(super) fn sync_names(&mut self) {
        if !self.lying_sync {
            for change in std::mem::take(&mut self.pending_names) {
                self.make_durable(change);
            }
        }
    }

    pub(super) fn sync(&mut self, inode: u64) -> io::Result<()> {
        if std::mem::take(&mut self.failing_sync) {
            self.inode(inode).lose();
            return Err(io::Error::other("simulated: input/output error"));
        }
        if !self.lying_sync {
            self.inode(inode).sync();
        }
        Ok(())
    }

    pub(super) fn free_bytes(&self) -> u64 {
        let used: u64 =
            self.names.values().filter_map(|inode| self.inodes.get(inode)).map(Inode::allocated).sum();
        // Without a capacity: more than anything asks for, less than would overflow in a sum.
        self.capacity.map_or(u64::MAX / 2, |capacity| capacity.saturating_sub(used))
    }

    /// How much of a write of `len` bytes happens before the process dies.
    pub(super) fn part_of(&mut self, len: usize) -> usize {
        self.rng.random_range(0..=len)
    }

    fn make_durable(&mut self, change: Rename) {
        match change {
            Rename::Created(name, inode) => self.durable_names.insert(name, inode),
            Rename::Removed(name) => self.durable_names.remove(&name),
        };
    }
}
