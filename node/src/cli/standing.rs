//! Who answers for which shards now and next, proven, and how far the epoch has come.

use protocol::{
    Epoch, NodeIndex, PeerId,
    codec::{self, DecodeError},
    committee::Member,
    ledger::{
        parameters::Parameters,
        state::{
            entry::{Head, Stage},
            key,
        },
    },
};
use swarm::Network;

use super::shown_seconds;
use crate::client::{Client, LedgerError};

/// Members in one answer: the largest have 5 KB, so they fit with room for their proofs.
const BATCH: usize = 16;
/// How often reading begins anew when a stage ends meanwhile. A stage lasts far longer than reading does.
const ATTEMPTS: usize = 3;
/// Limit for decoding an entry: one with every text at its longest takes a few times its 5 KB in memory.
const ENTRY_LIMIT: usize = 64 << 10;

/// The committees that the ledger knows.
#[derive(Clone, Debug)]
pub struct Committees {
    /// Where the ledger is.
    pub head: Head,
    /// Its rules.
    pub parameters: Parameters,
    /// The members of the current epoch, by index.
    pub current: Vec<Member>,
    /// Those of the next epoch, once they are selected.
    pub next: Option<Vec<Member>>,
}

impl Committees {
    /// Reads them. All of it is proven, and of one epoch.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn read<N: Network>(client: &Client<N>) -> Result<Self, LedgerError> {
        for _ in 0..ATTEMPTS {
            let values = client.ledger_entries(&[key::head(), key::parameters()]).await?.value;
            let value = |index: usize| values.get(index).and_then(Option::as_deref);
            let head: Head = required("the head", value(0))?;
            let parameters = required("the parameters", value(1))?;
            let Some(current) = members(client, &head, head.epoch).await? else { continue };
            let next = match head.stage {
                Stage::Selected { .. } => {
                    let Some(next) = members(client, &head, Epoch(head.epoch.0.saturating_add(1))).await?
                    else {
                        continue;
                    };
                    Some(next)
                }
                Stage::Steady | Stage::Handover { .. } => None,
            };
            return Ok(Self { head, parameters, current, next });
        }
        Err(LedgerError::Changing)
    }

    /// The shards of a node in the current epoch.
    #[must_use]
    pub fn shards_now(&self, node: &PeerId) -> Vec<u16> {
        shards(&self.current, node)
    }

    /// The shards of a node in the next epoch, once its committee is selected.
    #[must_use]
    pub fn shards_next(&self, node: &PeerId) -> Option<Vec<u16>> {
        self.next.as_deref().map(|next| shards(next, node))
    }

    /// True if a node that will not be selected again may stop: nobody asks it any more for what it once answered for.
    ///
    /// It is neither on this committee nor on the next, and the next is selected: so members worth a quorum hold what
    /// they took over, and whoever was slow has had half of an epoch for it.
    #[must_use]
    pub fn may_stop(&self, node: &PeerId) -> bool {
        self.shards_now(node).is_empty() && self.shards_next(node).is_some_and(|shards| shards.is_empty())
    }
}

fn shards(members: &[Member], node: &PeerId) -> Vec<u16> {
    let member = members.iter().find(|member| member.peer == *node);
    member.map(|member| member.shards.iter().map(|shard| shard.0).collect()).unwrap_or_default()
}

/// The members of an epoch; `None` if the stage of `head` ended meanwhile.
async fn members<N: Network>(
    client: &Client<N>,
    head: &Head,
    epoch: Epoch,
) -> Result<Option<Vec<Member>>, LedgerError> {
    let mut members = Vec::new();
    // There are as many members as there are shards, at most.
    for first in (0..head.n_shards).step_by(BATCH) {
        let indices = (first..head.n_shards).take(BATCH).map(NodeIndex);
        let keys: Vec<Vec<u8>> =
            std::iter::once(key::head()).chain(indices.map(|index| key::member(epoch, index))).collect();
        let values = client.ledger_entries(&keys).await?.value;
        let now: Head = required("the head", values.first().and_then(Option::as_deref))?;
        if now.epoch != head.epoch || !is_same_stage(now.stage, head.stage) {
            return Ok(None);
        }
        let found: Vec<Member> = values
            .iter()
            .skip(1)
            .flatten()
            .map(|value| decode(value).map_err(|source| LedgerError::Form { what: "a member", source }))
            .collect::<Result<_, _>>()?;
        let is_last = found.len() + 1 < values.len();
        members.extend(found);
        if is_last {
            break;
        }
    }
    Ok(Some(members))
}

const fn is_same_stage(a: Stage, b: Stage) -> bool {
    matches!(
        (a, b),
        (Stage::Steady, Stage::Steady)
            | (Stage::Selected { .. }, Stage::Selected { .. })
            | (Stage::Handover { .. }, Stage::Handover { .. })
    )
}

/// Reads an entry's value.
pub(super) fn decode<T: bincode::Decode<()>>(value: &[u8]) -> Result<T, DecodeError> {
    codec::decode_exact::<T, ENTRY_LIMIT>(value)
}

/// Reads an entry that every ledger has.
pub(super) fn required<T: bincode::Decode<()>>(
    what: &'static str,
    value: Option<&[u8]>,
) -> Result<T, LedgerError> {
    decode(value.ok_or(LedgerError::Missing { what })?).map_err(|source| LedgerError::Form { what, source })
}

/// The block time at which the next stage begins, if time is what ends this one.
#[must_use]
pub fn due_ms(head: &Head, parameters: &Parameters) -> Option<u64> {
    match head.stage {
        Stage::Steady => {
            let (before, _) = parameters.epoch_parts_ms()?;
            // Before the first block, nobody knows when that is.
            (head.height > 0).then(|| head.epoch_started_ms.saturating_add(before))
        }
        Stage::Selected { ends_ms } => Some(ends_ms),
        Stage::Handover { .. } => None,
    }
}

/// How far the epoch has come, in a line.
#[must_use]
pub fn stage_text(head: &Head, parameters: &Parameters, now_ms: u64) -> String {
    let next = head.epoch.0.saturating_add(1);
    let due = due_ms(head, parameters).map(|at| time_text(at, now_ms));
    match (head.stage, due) {
        (Stage::Steady, None) if parameters.epoch_ms == 0 => "steady; the first committee stays".to_owned(),
        (Stage::Steady, None) => "steady; the first epoch begins with the first block".to_owned(),
        (Stage::Steady, Some(due)) => format!("steady; the committee of epoch {next} is selected {due}"),
        (Stage::Selected { .. }, due) => {
            format!("selected; the committee of epoch {next} takes over {}", due.unwrap_or_default())
        }
        (Stage::Handover { ready_shards }, _) => {
            let required = head.n_shards - protocol::quorum::max_faulty(head.n_shards);
            format!("handover; {ready_shards} shards are ready, of the {required} needed")
        }
    }
}

/// A moment, as a time of day and from now on.
#[must_use]
pub fn time_text(at_ms: u64, now_ms: u64) -> String {
    let since = |ms| std::time::Duration::from_millis(ms);
    let at = std::time::UNIX_EPOCH + since(at_ms.min(TIME_MS_MAX));
    let at = humantime_serde::re::humantime::format_rfc3339_seconds(at);
    match at_ms.checked_sub(now_ms) {
        Some(ms) => format!("at {at}, in {}", shown_seconds(since(ms))),
        None => format!("at {at}, {} ago: with the next block", shown_seconds(since(now_ms - at_ms))),
    }
}

/// The last moment of the year 9999: later ones have no text.
const TIME_MS_MAX: u64 = 253_402_300_799_000;

#[cfg(test)]
pub(super) mod tests {
    use protocol::{NetworkId, ShardIndex, bls::SecretKey};

    use super::*;

    pub(in crate::cli) const NODE: PeerId = PeerId([7; 32]);

    pub(in crate::cli) fn head(stage: Stage) -> Head {
        let (network, epoch) = (NetworkId([0; 32]), Epoch(4));
        let (time_ms, epoch_started_ms) = (110_000, 100_000);
        Head { network, n_shards: 10, height: 9, time_ms, epoch, epoch_started_ms, stage, n_available: 0 }
    }

    fn member(peer: PeerId, shards: &[u16]) -> Member {
        let key = SecretKey::from_seed(&[1; 32]);
        Member {
            name: "a".to_owned(),
            peer,
            public_key: key.public_key(),
            proof_of_possession: key.prove_possession(&peer),
            addresses: Vec::new(),
            shards: shards.iter().copied().map(ShardIndex).collect(),
        }
    }

    /// Committees in which `NODE` has these shards.
    pub(in crate::cli) fn committees(now: &[u16], next: Option<&[u16]>) -> Committees {
        let of = |shards: &[u16]| {
            let all = [(NODE, shards), (PeerId([8; 32]), &[9][..])];
            let has_some = all.into_iter().filter(|(_, shards)| !shards.is_empty());
            has_some.map(|(peer, shards)| member(peer, shards)).collect()
        };
        let stage = next.map_or(Stage::Steady, |_| Stage::Selected { ends_ms: 130_000 });
        let parameters = Parameters { epoch_ms: 30_000, min_stake: 100, ..Parameters::default() };
        Committees { head: head(stage), parameters, current: of(now), next: next.map(of) }
    }

    #[test]
    fn a_node_may_stop_once_it_is_on_neither_committee_and_the_next_is_selected() {
        for (now, next, expected) in [
            (&[1, 2][..], None, false),
            (&[], None, false),
            (&[1], Some(&[][..]), false),
            (&[], Some(&[1][..]), false),
            (&[], Some(&[]), true),
        ] {
            assert_eq!(committees(now, next).may_stop(&NODE), expected, "{now:?} {next:?}");
        }
        let committees = committees(&[1, 2], Some(&[2]));
        assert_eq!(
            (committees.shards_now(&NODE), committees.shards_next(&NODE)),
            (vec![1, 2], Some(vec![2]))
        );
        assert_eq!(committees.shards_now(&PeerId([9; 32])), [0; 0]);
    }

    #[test]
    fn a_stage_is_told_with_what_ends_it() {
        let timed = Parameters { epoch_ms: 30_000, ..Parameters::default() };
        let still = Parameters::default();
        for (stage, parameters, words) in [
            (Stage::Steady, timed, "epoch 5 is selected at 1970-01-01T00:01:55Z, in 5s"),
            (Stage::Steady, still, "the first committee stays"),
            (Stage::Selected { ends_ms: 130_000 }, timed, "takes over at 1970-01-01T00:02:10Z, in 20s"),
            (Stage::Selected { ends_ms: 109_000 }, timed, "1s ago: with the next block"),
            (Stage::Handover { ready_shards: 3 }, timed, "3 shards are ready, of the 7 needed"),
        ] {
            let text = stage_text(&head(stage), &parameters, 110_000);
            assert!(text.contains(words), "{text}");
        }
        let genesis = Head { height: 0, ..head(Stage::Steady) };
        assert!(stage_text(&genesis, &timed, 1).contains("with the first block"));
        assert!(time_text(u64::MAX, 0).contains("9999-12-31"));
    }
}
