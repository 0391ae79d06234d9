//! A random workload, what must be true of a store after it, and a crash anywhere in between.
#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod index;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use storage::{
    Config, Key, OpenReport, Store, Write, WriteError,
    disk::SimulatedDisk,
    index::{Index, MemoryIndex},
};

use self::index::LaggingIndex;

/// What a store holds.
pub(crate) type Contents = BTreeMap<Key, Bytes>;

/// Small log files, so that a short workload fills several.
pub(crate) const CONFIG: Config =
    Config { log_bytes: 96 << 10, reserve_bytes: 0, checkpoint_bytes: 64 << 10, compact_below_percent: 60 };

/// One step of a workload.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(Vec<Write>),
    /// The same, but the disk runs full in the middle of it.
    WriteOnFullDisk(Vec<Write>),
    Compact(u64),
    Checkpoint,
    /// Close the store in order and open it again.
    Reopen,
}

pub(crate) fn key(i: usize) -> Key {
    Key::new(format!("key/{i:03}").into_bytes()).unwrap()
}

/// A payload that differs from all others with high probability.
pub(crate) fn payload(rng: &mut ChaCha8Rng) -> Bytes {
    let len = match rng.random_range(0..10) {
        0 => 0,
        1..6 => rng.random_range(1..700),
        6..9 => rng.random_range(700..12_000),
        _ => rng.random_range(33_000..80_000),
    };
    let mut bytes = vec![0; len];
    rng.fill(bytes.as_mut_slice());
    bytes.into()
}

pub(crate) fn write(rng: &mut ChaCha8Rng, n_keys: usize) -> Write {
    let key = key(rng.random_range(0..n_keys));
    if rng.random_range(0..3) == 0 {
        Write::Delete { key }
    } else {
        Write::Put { key, payload: payload(rng) }
    }
}

/// A workload of puts, deletes, overwrites, log rotation, compaction and reopening.
pub(crate) fn workload(seed: u64, n_steps: usize) -> Vec<Step> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let step = |_| match rng.random_range(0..14) {
        0 => Step::Compact(if rng.random() { u64::MAX } else { rng.random_range(0..100_000) }),
        1 => Step::Checkpoint,
        2 => Step::Reopen,
        3 => Step::WriteOnFullDisk((0..rng.random_range(1..5)).map(|_| write(&mut rng, 12)).collect()),
        _ => Step::Write((0..rng.random_range(1..5)).map(|_| write(&mut rng, 12)).collect()),
    };
    (0..n_steps).map(step).collect()
}

pub(crate) fn apply(contents: &mut Contents, write: &Write) {
    match write {
        Write::Put { key, payload } => contents.insert(key.clone(), payload.clone()),
        Write::Delete { key } => contents.remove(key),
    };
}

/// A machine that crashes: its disk, and its index if that is not kept in memory.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) disk: SimulatedDisk,
    pub(crate) index: Option<LaggingIndex>,
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        let index = seed.is_multiple_of(2).then(|| LaggingIndex::new(seed));
        Self { disk: SimulatedDisk::new(seed), index }
    }

    pub(crate) fn crash(&self) -> Self {
        self.index.iter().for_each(LaggingIndex::crash);
        Self { disk: self.disk.crash(), index: self.index.clone() }
    }

    pub(crate) fn kill(&self) -> Self {
        self.index.iter().for_each(LaggingIndex::crash);
        Self { disk: self.disk.kill(), index: self.index.clone() }
    }
}

pub(crate) fn open(machine: &Machine) -> Result<(Store, OpenReport), String> {
    let index: Box<dyn Index> = match &machine.index {
        Some(index) => Box::new(index.clone()),
        None => Box::new(MemoryIndex::default()),
    };
    let opened = Store::open(Arc::new(machine.disk.clone()), index, CONFIG);
    opened.map_err(|error| format!("does not open: {error:?}"))
}

/// Everything the store holds, read back.
pub(crate) fn contents(store: &Store) -> Result<Contents, String> {
    let listed = store.scan(b"", None, usize::MAX).map_err(|error| error.to_string())?;
    let read = |(key, len): (Key, u64)| {
        let bytes = store.read_all(&key).map_err(|error| format!("{key:?} is listed, but: {error}"))?;
        let same = u64::try_from(bytes.len()).unwrap() == len;
        same.then_some(()).ok_or_else(|| format!("{key:?} has another length than listed"))?;
        Ok((key, bytes))
    };
    listed.into_iter().map(read).collect()
}

/// Runs steps until one fails, keeping `model` at what was acknowledged. Returns the number of steps done and the
/// writes that were neither acknowledged nor refused.
pub(crate) fn run(
    machine: &Machine,
    steps: &[Step],
    model: &mut Contents,
) -> Result<(usize, Vec<Write>), String> {
    let Ok((mut store, _)) = open(machine) else { return Ok((0, Vec::new())) };
    for (i, step) in steps.iter().enumerate() {
        let (result, in_flight) = match step {
            Step::Write(batch) => (store.write(batch.clone()), batch.clone()),
            Step::WriteOnFullDisk(batch) => {
                machine.disk.fill_during_next_write(true);
                let result = store.write(batch.clone());
                machine.disk.fill_during_next_write(false);
                match result {
                    Err(WriteError::Full { .. }) if !machine.disk.is_dead() => continue,
                    result => (result, batch.clone()),
                }
            }
            Step::Compact(budget) => (store.compact(*budget).map(|_| ()), Vec::new()),
            Step::Checkpoint => (store.checkpoint(), Vec::new()),
            Step::Reopen => {
                drop(store);
                match open(machine) {
                    Ok((reopened, _)) => store = reopened,
                    Err(_) => return Ok((i, Vec::new())),
                }
                (Ok(()), Vec::new())
            }
        };
        if let Err(error) = result {
            return if machine.disk.is_dead() {
                Ok((i, in_flight))
            } else {
                Err(format!("step {i}: {error}"))
            };
        }
        in_flight.iter().for_each(|write| apply(model, write));
    }
    if machine.disk.is_dead() {
        Ok((steps.len(), Vec::new()))
    } else {
        check(&store, model).map(|()| (steps.len(), Vec::new()))
    }
}

/// Whether the store holds exactly this.
pub(crate) fn check(store: &Store, model: &Contents) -> Result<(), String> {
    let found = contents(store)?;
    if found == *model { Ok(()) } else { Err(difference(&found, model)) }
}

fn difference(found: &Contents, expected: &Contents) -> String {
    let keys = found.keys().chain(expected.keys());
    let tell = |contents: &Contents, key| contents.get(key).map(|bytes| bytes.len());
    let differing = keys.filter(|key| found.get(key) != expected.get(key));
    differing
        .map(|key| format!("{key:?}: found {:?}, expected {:?}; ", tell(found, key), tell(expected, key)))
        .collect()
}

/// Opens after a crash and checks that the store holds what was acknowledged, and of the writes in flight the first
/// few or all. `model` becomes what was found.
pub(crate) fn recover(machine: &Machine, model: &mut Contents, in_flight: &[Write]) -> Result<Store, String> {
    let (store, report) = open(machine)?;
    if !report.damage.is_empty() {
        return Err(format!("a crash was taken for damage: {:?}", report.damage));
    }
    let found = contents(&store)?;
    let expected = model.clone();
    for i in 0..=in_flight.len() {
        if i > 0 {
            apply(model, &in_flight[i - 1]);
        }
        if found == *model {
            return Ok(store);
        }
    }
    Err(difference(&found, &expected))
}

/// Runs the workload with a crash after `point` operations, crashes again during recovery, and then carries on.
/// Returns whether the workload got as far as the crash.
pub(crate) fn crash_at(seed: u64, steps: &[Step], point: u64, lying_sync: bool) -> Result<bool, String> {
    let mut machine = Machine::new(seed.wrapping_mul(1_000_003).wrapping_add(point));
    let mut model = Contents::new();
    machine.disk.set_lying_sync(lying_sync);
    machine.disk.fail_after(point);
    let (done, in_flight) = run(&machine, steps, &mut model)?;
    if !machine.disk.is_dead() {
        return Ok(false);
    }
    machine = if point % 5 == 1 { machine.kill() } else { machine.crash() };
    for again in 0..point % 3 {
        machine.disk.fail_after((point / 3 + again) % 7);
        drop(open(&machine));
        machine = machine.crash();
    }
    drop(recover(&machine, &mut model, &in_flight)?);
    // What recovery showed once must stay, whatever happens next.
    machine = if point.is_multiple_of(4) { machine.kill() } else { machine.crash() };
    drop(recover(&machine, &mut model, &[])?);
    let rest = steps.get(done + 1..).unwrap_or_default();
    run(&machine, rest, &mut model)?;
    machine = machine.crash();
    drop(recover(&machine, &mut model, &[])?);
    Ok(true)
}
