//! A seeded in-memory directory that fails the ways disks fail.
//!
//! Each file keeps a durable image and the changes since its last sync; a crash keeps a random part of the latter,
//! cut at sectors of 512 bytes and in no order, and likewise of the names. The same seed and the same calls give
//! the same outcome.

mod inode;
mod state;

use std::{
    io::{self, IoSlice},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use inode::{Change, Inode};
use rand::RngCore;
use state::{Fate, State};

use super::{Disk, DiskFile};
use crate::size::{to_u64, to_usize};

/// A handle on a simulated directory, valid until the next [`SimulatedDisk::crash`] or [`SimulatedDisk::kill`].
/// Clones are the same directory.
#[derive(Clone, Debug)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    /// Handles from before a crash belong to a process that no longer runs.
    generation: u64,
}

impl SimulatedDisk {
    /// An empty directory; `seed` decides what crashes keep.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(seed))), generation: 0 }
    }

    /// Cuts the power and starts again: all handles go dead, unsynced changes survive in part or not at all.
    /// Returns the handle of the next process. Switches set before are off.
    #[must_use]
    pub fn crash(&self) -> Self {
        let generation = self.lock().restart(true);
        Self { state: Arc::clone(&self.state), generation }
    }

    /// Kills the process only: all handles go dead, but the system keeps every change, synced or not.
    #[must_use]
    pub fn kill(&self) -> Self {
        let generation = self.lock().restart(false);
        Self { state: Arc::clone(&self.state), generation }
    }

    /// Lets `n` more changing operations succeed; the one after happens in part or not at all, and everything from
    /// then on fails as if the process had died there.
    pub fn fail_after(&self, n: u64) {
        self.lock().fail_after = Some(n);
    }

    /// Changing operations (create, write, truncate, punch, remove, sync) since the start.
    #[must_use]
    pub fn n_operations(&self) -> u64 {
        self.lock().n_operations
    }

    /// Whether [`SimulatedDisk::fail_after`] has struck.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Limits the bytes all files may take; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// From now on a sync answers success and does nothing: a planted fault, to see that tests would find it.
    pub fn set_lying_sync(&self, lying: bool) {
        self.lock().lying_sync = lying;
    }

    /// The next sync of a file fails, and what it should have saved is lost at the next crash.
    pub fn fail_next_sync(&self) {
        self.lock().failing_sync = true;
    }

    /// The next write that extends a file writes only part and finds the disk full, whatever
    /// [`Disk::free_bytes`] said; `false` takes that back.
    pub fn fill_during_next_write(&self, full: bool) {
        self.lock().full_next = full;
    }

    /// An independent copy of the directory as it is now, with its own future.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.lock().clone())), generation: self.generation }
    }

    /// Flips the bits of `mask` in one stored byte. Returns whether there is such a byte.
    pub fn flip(&self, name: &str, offset: u64, mask: u8) -> bool {
        let mut state = self.lock();
        let inode = state.inode_of(name);
        match (inode, to_usize(offset)) {
            (Ok(inode), Ok(offset)) => state.inode(inode).flip(offset, mask),
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, inode: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile { disk: self.clone(), inode })
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        let fate = state.step(self.generation)?;
        let inode = fate.of(&mut state, |state| state.create(name))?;
        Ok(self.file(inode))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.lock();
        state.check(self.generation)?;
        Ok(self.file(state.inode_of(name)?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.lock();
        state.check(self.generation)?;
        Ok(state.names().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let fate = state.step(self.generation)?;
        fate.of(&mut state, |state| state.remove(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.lock();
        let fate = state.step(self.generation)?;
        fate.of(&mut state, |state| {
            state.sync_names();
            Ok(())
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.lock();
        state.check(self.generation)?;
        Ok(state.free_bytes())
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        self.lock().rng.fill_bytes(&mut bytes);
        Ok(bytes)
    }
}

/// A file of [`SimulatedDisk`].
#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    inode: u64,
}

impl SimulatedFile {
    /// Looks at the file.
    fn look<T>(&self, look: impl FnOnce(&Inode) -> T) -> io::Result<T> {
        let mut state = self.disk.lock();
        state.check(self.disk.generation)?;
        Ok(look(state.inode(self.inode)))
    }

    /// Changes the file, unless the simulated process dies first.
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fate = state.step(self.disk.generation)?;
        fate.of(&mut state, |state| {
            state.inode(self.inode).change(change);
            Ok(())
        })
    }
}

impl DiskFile for SimulatedFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut data = parts.iter().map(|part| &**part).collect::<Vec<&[u8]>>().concat();
        let mut state = self.disk.lock();
        let fate = state.step(self.disk.generation)?;
        let growth = (offset + to_u64(data.len())).saturating_sub(state.inode(self.inode).len());
        let mut excess = to_usize(growth.saturating_sub(state.free_bytes()))?;
        if growth > 0 && std::mem::take(&mut state.full_next) {
            excess = data.len() - state.part_of(data.len() - 1);
        }
        let kept = match fate {
            Fate::Lives => data.len().saturating_sub(excess),
            _ => state.part_of(data.len()).min(data.len().saturating_sub(excess)),
        };
        data.truncate(kept);
        state.inode(self.inode).change(Change::Write(to_usize(offset)?, data));
        match fate {
            Fate::Lives if excess > 0 => Err(io::ErrorKind::StorageFull.into()),
            Fate::Lives => Ok(()),
            _ => Err(state::died()),
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.look(|inode| inode.read(offset, buffer))?
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fate = state.step(self.disk.generation)?;
        fate.of(&mut state, |state| state.sync(self.inode))
    }

    fn len(&self) -> io::Result<u64> {
        self.look(Inode::len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.change(Change::Truncate(to_usize(len)?))
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<()> {
        self.change(Change::Punch(to_usize(range.start)?..to_usize(range.end)?))
    }
}
