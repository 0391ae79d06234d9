//! An index that is forgotten at every restart and rebuilt from the logs: for simulations and small stores.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock},
};

use super::{Change, Entry, Index, IndexError, Summary};
use crate::key::Key;

/// A map in memory.
#[derive(Debug, Default)]
pub struct MemoryIndex(RwLock<(BTreeMap<Key, Entry>, Option<Summary>)>);

impl Index for MemoryIndex {
    fn get(&self, key: &Key) -> Result<Option<Entry>, IndexError> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).0.get(key).copied())
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Entry)>, IndexError> {
        // A prefix longer than any key begins none.
        let Ok(first) = Key::new(prefix.to_vec()) else { return Ok(Vec::new()) };
        let start = match after {
            Some(after) if *after >= first => Bound::Excluded(after.clone()),
            _ => Bound::Included(first),
        };
        let guard = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let entries = guard.0.range((start, Bound::Unbounded));
        let matching = entries.take_while(|(key, _)| key.as_bytes().starts_with(prefix)).take(limit);
        Ok(matching.map(|(key, entry)| (key.clone(), *entry)).collect())
    }

    fn apply(&self, changes: &[Change], summary: &Summary) -> Result<(), IndexError> {
        let mut guard = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, entry) in changes {
            match entry {
                Some(entry) => guard.0.insert(key.clone(), *entry),
                None => guard.0.remove(key),
            };
        }
        guard.1 = Some(*summary);
        Ok(())
    }

    fn summary(&self) -> Result<Option<Summary>, IndexError> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    fn flush(&self) -> Result<(), IndexError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), IndexError> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Default::default();
        Ok(())
    }
}
