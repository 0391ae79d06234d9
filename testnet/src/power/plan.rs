//! What is written: a function of a seed and a number.

use bytes::Bytes;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use storage::{Key, Write};

use super::judge::{At, Found};

/// Keys that are written again and again.
const KEYS: u16 = 160;
/// Writes of a batch, at most.
const BATCH_MAX: u16 = 4;
/// Bytes of a payload before those that are random: the batch and the write that it is of.
const HEAD_BYTES: usize = 10;

/// What all batches hold.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    seed: u64,
}

/// A write: which key, and how long its payload is; `None` if it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The write.
    pub at: At,
    /// The key.
    pub key: u16,
    /// Bytes of the payload.
    pub payload_bytes: Option<usize>,
}

impl Plan {
    /// The batches of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The writes of a batch, in their order.
    #[must_use]
    pub fn steps(&self, batch: u64) -> Vec<Step> {
        let mut rng = self.rng(batch, u16::MAX);
        (0..rng.random_range(1..=BATCH_MAX))
            .map(|write| {
                let bytes = match rng.random_range(0..12) {
                    0..2 => None,
                    2..9 => Some(rng.random_range(0..2_000)),
                    9..11 => Some(rng.random_range(2_000..20_000)),
                    _ => Some(rng.random_range(60_000..140_000)),
                };
                let payload_bytes = bytes.map(|bytes| HEAD_BYTES + bytes);
                Step { at: At { batch, write }, key: rng.random_range(0..KEYS), payload_bytes }
            })
            .collect()
    }

    /// The batch as the store takes it.
    #[must_use]
    pub fn batch(&self, batch: u64) -> Vec<Write> {
        let write = |step: Step| match step.payload_bytes {
            Some(bytes) => Write::Put { key: key(step.key), payload: self.payload(step.at, bytes).into() },
            None => Write::Delete { key: key(step.key) },
        };
        self.steps(batch).into_iter().map(write).collect()
    }

    fn payload(&self, at: At, bytes: usize) -> Vec<u8> {
        let mut payload = [&at.batch.to_le_bytes()[..], &at.write.to_le_bytes()].concat();
        payload.resize(bytes.max(HEAD_BYTES), 0);
        self.rng(at.batch, at.write).fill_bytes(&mut payload[HEAD_BYTES..]);
        payload
    }

    /// Says which write a payload is of.
    #[must_use]
    pub fn recognise(&self, key: &Key, payload: &Bytes) -> Found {
        let Some((batch, rest)) = payload.split_first_chunk() else { return Found::Unreadable };
        let Some((write, _)) = rest.split_first_chunk() else { return Found::Unreadable };
        let at = At { batch: u64::from_le_bytes(*batch), write: u16::from_le_bytes(*write) };
        let step = self.steps(at.batch).into_iter().find(|step| step.at == at && step.key == key_number(key));
        let is_whole = step
            .and_then(|step| step.payload_bytes)
            .is_some_and(|bytes| bytes == payload.len() && self.payload(at, bytes) == payload[..]);
        if is_whole { Found::Written(at) } else { Found::Unreadable }
    }

    fn rng(&self, batch: u64, write: u16) -> ChaCha8Rng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&batch.to_le_bytes());
        seed[16..18].copy_from_slice(&write.to_le_bytes());
        ChaCha8Rng::from_seed(seed)
    }
}

/// The key with this number.
///
/// # Panics
///
/// Never: its name is short.
#[must_use]
pub fn key(number: u16) -> Key {
    Key::new(format!("key/{number:05}").into_bytes()).expect("nine bytes are a key")
}

/// The number of a key; that of none if nobody here made it.
#[must_use]
pub fn key_number(key: &Key) -> u16 {
    let digits = str::from_utf8(key.as_bytes()).ok().and_then(|name| name.strip_prefix("key/"));
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_recognised_and_nothing_else() {
        let plan = Plan::new(7);
        for batch in 1..50 {
            for (step, write) in plan.steps(batch).into_iter().zip(plan.batch(batch)) {
                let Write::Put { key, payload } = write else {
                    assert_eq!(step.payload_bytes, None);
                    continue;
                };
                assert_eq!(key_number(&key), step.key);
                assert_eq!(plan.recognise(&key, &payload), Found::Written(step.at));
                let mut changed = payload.to_vec();
                *changed.last_mut().unwrap() ^= 1;
                let others = [
                    (key.clone(), Bytes::from(changed)),
                    (key.clone(), payload.slice(..payload.len() - 1)),
                    (super::key((step.key + 1) % KEYS), payload.clone()),
                ];
                for (key, payload) in others {
                    assert_eq!(plan.recognise(&key, &payload), Found::Unreadable);
                }
                assert_eq!(Plan::new(8).recognise(&key, &payload), Found::Unreadable, "another seed");
            }
        }
    }
}
