//! An index whose unflushed changes a crash takes back, and which now and then comes back as an old copy of itself.

use std::sync::{Arc, Mutex};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use storage::{
    Key,
    index::{Change, Entry, Index, IndexError, MemoryIndex, Summary},
};

/// Clones are the same index.
#[derive(Clone, Debug)]
pub(crate) struct LaggingIndex(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rng: ChaCha8Rng,
    current: MemoryIndex,
    history: Vec<(Vec<Change>, Summary)>,
    n_flushed: usize,
}

impl LaggingIndex {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(State {
            rng,
            current: MemoryIndex::default(),
            history: Vec::new(),
            n_flushed: 0,
        })))
    }

    /// An independent copy.
    pub(crate) fn fork(&self) -> Self {
        let copy = Self::new(0);
        {
            let (state, mut other) = (self.0.lock().unwrap(), copy.0.lock().unwrap());
            for (changes, summary) in &state.history {
                other.current.apply(changes, summary).unwrap();
            }
            other.history.clone_from(&state.history);
            other.n_flushed = state.n_flushed;
        }
        copy
    }

    /// Loses one entry without a trace.
    pub(crate) fn lose_entry(&self, key: &Key) {
        let mut state = self.0.lock().unwrap();
        let summary = state.current.summary().unwrap().unwrap();
        state.history.push((vec![(key.clone(), None)], summary));
        state.current.apply(&[(key.clone(), None)], &summary).unwrap();
    }

    /// Goes back to some moment since the last flush, or rarely to any earlier one. Of what was not flushed, any
    /// change may be missing on its own.
    pub(crate) fn crash(&self) {
        let mut state = self.0.lock().unwrap();
        let (n_flushed, gaps) = (state.n_flushed, state.rng.random::<bool>());
        let State { rng, history, .. } = &mut *state;
        for (changes, _) in history.iter_mut().skip(n_flushed) {
            changes.retain(|_| !gaps || rng.random::<bool>());
        }
        let n = state.history.len();
        let first = if state.rng.random_range(0..8) == 0 { 0 } else { state.n_flushed.min(n) };
        let cut = state.rng.random_range(first..=n);
        state.history.truncate(cut);
        state.n_flushed = cut;
        state.current = MemoryIndex::default();
        for (changes, summary) in &state.history {
            state.current.apply(changes, summary).unwrap();
        }
    }
}

impl Index for LaggingIndex {
    fn get(&self, key: &Key) -> Result<Option<Entry>, IndexError> {
        self.0.lock().unwrap().current.get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Entry)>, IndexError> {
        self.0.lock().unwrap().current.scan(prefix, after, limit)
    }

    fn apply(&self, changes: &[Change], summary: &Summary) -> Result<(), IndexError> {
        let mut state = self.0.lock().unwrap();
        state.history.push((changes.to_vec(), *summary));
        state.current.apply(changes, summary)
    }

    fn summary(&self) -> Result<Option<Summary>, IndexError> {
        self.0.lock().unwrap().current.summary()
    }

    fn flush(&self) -> Result<(), IndexError> {
        let mut state = self.0.lock().unwrap();
        state.n_flushed = state.history.len();
        Ok(())
    }

    fn reset(&self) -> Result<(), IndexError> {
        let mut state = self.0.lock().unwrap();
        state.history.clear();
        state.n_flushed = 0;
        state.current.reset()
    }
}
