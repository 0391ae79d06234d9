//! Epochs: one committee hands over to the next.

use std::sync::Arc;

use super::{
    AdvanceError, ApplyError, Corrupt, Event, Rejected, State,
    entry::{Head, Node, NodeStatus, Stage},
    slot::{HeadSlot, MemberSlot, NodeSlot, ParametersSlot, ReadySlot},
};
use crate::{
    committee::{Committee, Member},
    ids::{AccountId, Epoch, PeerId},
    ledger::parameters::{Ballot, CREDITS_MAX},
    selection::{Assignment, Candidate, select},
};

/// What a member votes for, and its shards.
#[derive(Clone, Copy, Debug)]
struct Weighted {
    ballot: Ballot,
    shards: u16,
}

/// The lowest value that members worth a quorum find high enough: `f` of weight move it neither way beyond what an honest
/// member said. Source: Walrus paper (2025), section 5: the 66.67th percentile by stake.
fn lowest_for_quorum(committee: &Committee, votes: &[Weighted], value: fn(&Ballot) -> u64) -> Option<u64> {
    let mut values: Vec<(u64, u16)> = votes.iter().map(|vote| (value(&vote.ballot), vote.shards)).collect();
    values.sort_unstable();
    first_with_quorum(committee, &values)
}

/// The highest value that members worth a quorum say they can bear.
fn highest_for_quorum(committee: &Committee, votes: &[Weighted], value: fn(&Ballot) -> u64) -> Option<u64> {
    let mut values: Vec<(u64, u16)> = votes.iter().map(|vote| (value(&vote.ballot), vote.shards)).collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    first_with_quorum(committee, &values)
}

fn first_with_quorum(committee: &Committee, values: &[(u64, u16)]) -> Option<u64> {
    let mut weight = 0;
    let first = values.iter().find(|(_, shards)| {
        weight += shards;
        committee.is_quorum(weight)
    });
    first.map(|(value, _)| *value)
}

fn shards_of(committee: &Committee) -> Assignment {
    let shards = |node| committee.shards(node).to_vec();
    committee.nodes().zip(committee.members()).map(|(node, member)| (member.peer, shards(node))).collect()
}

/// What a network can hold if `shards` of its `n` hold `bytes`.
fn scale(bytes: u64, shards: u16, n: u16) -> u64 {
    let scaled = u128::from(bytes) * u128::from(n) / u128::from(shards.max(1));
    u64::try_from(scaled).unwrap_or(CREDITS_MAX).min(CREDITS_MAX)
}

impl State {
    /// Hands over to the next committee: pays for the epoch that ends, ends registrations, releases stake, counts votes.
    ///
    /// Who is on the committee is decided elsewhere. Work is in proportion to what ends with the epoch.
    ///
    /// # Errors
    ///
    /// If the committee is not of the next epoch, the current one has not taken over yet, a member is not
    /// registered, or the state contradicts itself. Nothing changed then.
    pub fn advance_epoch(&mut self, committee: Arc<Committee>) -> Result<Vec<Event>, AdvanceError> {
        let mut next = self.clone();
        let events = next.hand_over(committee)?;
        *self = next;
        Ok(events)
    }

    fn check_next(&self, head: &Head, committee: &Committee) -> Result<(), AdvanceError> {
        let required = Epoch(head.epoch.0.checked_add(1).ok_or(Corrupt::Sum { what: "epochs" })?);
        if committee.epoch() != required {
            return Err(AdvanceError::Epoch { got: committee.epoch(), required });
        }
        if committee.n_shards() != head.n_shards {
            return Err(AdvanceError::Shards { got: committee.n_shards(), required: head.n_shards });
        }
        if let Stage::Handover { ready_shards: ready } = head.stage {
            return Err(AdvanceError::HandoverRunning { epoch: head.epoch, ready });
        }
        for member in committee.members() {
            // One that was ejected after it was selected does not hold up the others: it gets no reward.
            if !self.store.has(&NodeSlot { node: member.peer }) {
                return Err(AdvanceError::UnknownNode { node: member.peer });
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, committee: Arc<Committee>) -> Result<Vec<Event>, AdvanceError> {
        let head = self.head()?;
        self.check_next(&head, &committee)?;
        let epoch = committee.epoch();
        let old = std::mem::replace(&mut self.committee, Arc::clone(&committee));
        let mut events = self.settle(&old)?;
        self.forget_ready(head.epoch)?;
        let stage = Stage::Handover { ready_shards: 0 };
        events.extend(self.expire(epoch)?);
        events.extend(self.release(epoch)?);
        // Blobs were counted in it meanwhile.
        let head = self.head()?;
        let epoch_started_ms = head.time_ms;
        self.store.set(&HeadSlot {}, &Head { epoch, epoch_started_ms, stage, ..head });
        self.write_members(&committee);
        self.fix_commissions(&committee)?;
        self.count_votes(&committee)?;
        (self.previous, self.next) = (Some(old), None);
        events.push(Event::EpochChanged { epoch });
        Ok(events)
    }

    /// Does what is due at the time of the block that has begun: fixes the next committee, or has it take over.
    pub(super) fn begin_stage(&mut self) -> Result<Vec<Event>, AdvanceError> {
        let head = self.head()?;
        if self.due_ms()?.is_none_or(|due_ms| head.time_ms < due_ms) {
            return Ok(Vec::new());
        }
        match (head.stage, self.next.clone()) {
            (Stage::Selected { .. }, Some(next)) => {
                self.begins_epoch = true;
                self.hand_over(next)
            }
            _ => Ok(vec![self.fix_next(head)?]),
        }
    }

    /// Fixes the committee of the next epoch. If none can be formed, the members of this one go on.
    fn fix_next(&mut self, head: Head) -> Result<Event, AdvanceError> {
        let parameters = self.parameters()?;
        let epoch = Epoch(head.epoch.0.checked_add(1).ok_or(Corrupt::Sum { what: "epochs" })?);
        let mut candidates = Vec::new();
        for entry in self.nodes() {
            let (node, Node { status, stake, .. }) = entry?;
            if status == NodeStatus::Active && stake.credits >= parameters.min_stake {
                candidates.push(Candidate { node, stake: stake.credits });
            }
        }
        let current = shards_of(&self.committee);
        let selected = select(&candidates, &current, parameters.selection_rules(head.n_shards));
        let (members, kept) = match selected {
            Ok(assignment) => (self.members_of(assignment)?, None),
            Err(error) => (self.committee.members().to_vec(), Some(error)),
        };
        let next = Committee::of_known(epoch, head.n_shards, members).map_err(Corrupt::from)?;
        // A selection that a long handover held up leaves half of the time for copying that one in time does.
        let (_, after) = parameters.epoch_parts_ms().unwrap_or_default();
        let in_time_ms = head.epoch_started_ms.saturating_add(parameters.epoch_ms);
        let ends_ms = in_time_ms.max(head.time_ms.saturating_add(after / 2));
        self.write_members(&next);
        self.next = Some(Arc::new(next));
        self.store.set(&HeadSlot {}, &Head { stage: Stage::Selected { ends_ms }, ..head });
        Ok(Event::NextSelected { epoch, ends_ms, kept })
    }

    /// Members as they describe themselves now, with their shards.
    fn members_of(&self, assignment: Assignment) -> Result<Vec<Member>, Corrupt> {
        let member = |(node, shards)| {
            let Node { description, .. } = self.store.require(&NodeSlot { node })?;
            Ok(description.to_member(node, shards))
        };
        assignment.into_iter().map(member).collect()
    }

    pub(super) fn write_members(&mut self, committee: &Committee) {
        for (member, index) in committee.members().iter().zip(committee.nodes()) {
            self.store.set(&MemberSlot { epoch: committee.epoch(), member: index }, member);
        }
    }

    /// Keeps what members ask of their stakes' rewards to the end of the epoch.
    fn fix_commissions(&mut self, committee: &Committee) -> Result<(), Corrupt> {
        for member in committee.members() {
            let slot = NodeSlot { node: member.peer };
            let node: Node = self.store.require(&slot)?;
            let commission_bp = node.description.commission_bp;
            self.store.set(&slot, &Node { commission_bp, ..node });
        }
        Ok(())
    }

    fn forget_ready(&mut self, epoch: Epoch) -> Result<(), Corrupt> {
        let ready: Vec<_> = self.store.scan::<ReadySlot>(&[&epoch]).collect::<Result<_, _>>()?;
        ready.into_iter().try_for_each(|(slot, ())| self.store.remove(&slot))
    }

    /// What a member votes for; where it says nothing, for what is.
    fn vote_of(&self, peer: PeerId, shards: u16, n_shards: u16) -> Result<Weighted, Corrupt> {
        let current = self.parameters()?.market();
        let Node { description, ballot, .. } = self.store.require(&NodeSlot { node: peer })?;
        let said = match (ballot, description.capacity_bytes) {
            (Some(ballot), _) => Some(ballot.capacity_bytes),
            (None, 0) => None,
            (None, bytes) => Some(bytes),
        };
        let capacity_bytes = said.map_or(current.capacity_bytes, |bytes| scale(bytes, shards, n_shards));
        Ok(Weighted { ballot: Ballot { capacity_bytes, ..ballot.unwrap_or(current) }, shards })
    }

    fn count_votes(&mut self, committee: &Committee) -> Result<(), Corrupt> {
        let votes: Vec<Weighted> = committee
            .nodes()
            .zip(committee.members())
            .map(|(index, member)| self.vote_of(member.peer, committee.weight(index), committee.n_shards()))
            .collect::<Result<_, _>>()?;
        let parameters = self.parameters()?;
        let current = parameters.market();
        // All members together are a quorum, so there is always a value.
        let lowest = |value| lowest_for_quorum(committee, &votes, value);
        let market = Ballot {
            storage_price: lowest(|ballot| ballot.storage_price).unwrap_or(current.storage_price),
            write_price: lowest(|ballot| ballot.write_price).unwrap_or(current.write_price),
            capacity_bytes: highest_for_quorum(committee, &votes, |ballot| ballot.capacity_bytes)
                .unwrap_or(current.capacity_bytes),
        };
        self.store.set(&ParametersSlot {}, &parameters.with_market(market));
        Ok(())
    }

    pub(super) fn shards_ready(&mut self, sender: AccountId, got: Epoch) -> Result<Vec<Event>, ApplyError> {
        let head = self.head()?;
        let epoch = head.epoch;
        if got != epoch {
            return Err(Rejected::WrongEpoch { got, current: epoch }.into());
        }
        let committee = Arc::clone(&self.committee);
        let member = committee.index_of(&PeerId(sender.0)).ok_or(Rejected::NotMember { sender, epoch })?;
        if self.begins_epoch {
            return Err(Rejected::ReadyTooEarly { epoch }.into());
        }
        let slot = ReadySlot { epoch, member };
        if self.store.has(&slot) {
            return Err(Rejected::AlreadyReady { sender, epoch }.into());
        }
        self.store.set(&slot, &());
        let mut events = vec![Event::ShardsReady { epoch, member }];
        let Stage::Handover { ready_shards } = head.stage else { return Ok(events) };
        let ready_shards = ready_shards + committee.weight(member);
        let stage = if committee.is_quorum(ready_shards) {
            self.relieve()?;
            events.push(Event::HandoverDone { epoch });
            Stage::Steady
        } else {
            Stage::Handover { ready_shards }
        };
        self.store.set(&HeadSlot {}, &Head { stage, ..head });
        Ok(events)
    }

    /// Forgets the committee before: nobody needs its word any more.
    fn relieve(&mut self) -> Result<(), Corrupt> {
        let Some(previous) = self.previous.take() else { return Ok(()) };
        for member in previous.nodes() {
            self.store.remove(&MemberSlot { epoch: previous.epoch(), member })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::state::tests::world::World;

    #[test]
    fn the_price_is_one_that_a_quorum_finds_high_enough() {
        let world = World::new(7, 7);
        let committee = world.state.committee();
        let vote = |price, capacity_bytes| Weighted {
            ballot: Ballot { storage_price: price, write_price: 0, capacity_bytes },
            shards: 1,
        };
        let price = |prices: [u64; 7]| {
            let votes = prices.map(|price| vote(price, 0));
            lowest_for_quorum(committee, &votes, |ballot| ballot.storage_price)
        };
        // Five of seven are a quorum; two may be Byzantine.
        assert_eq!(price([10, 11, 12, 13, 14, 15, 16]), Some(14));
        assert_eq!(price([10, 11, 12, 13, 14, u64::MAX, u64::MAX]), Some(14));
        assert_eq!(price([0, 0, 12, 13, 14, 15, 16]), Some(14));
        let capacity = |bytes: [u64; 7]| {
            let votes = bytes.map(|bytes| vote(0, bytes));
            highest_for_quorum(committee, &votes, |ballot| ballot.capacity_bytes)
        };
        assert_eq!(capacity([10, 11, 12, 13, 14, 15, 16]), Some(12));
        assert_eq!(capacity([10, 11, 12, 13, 14, u64::MAX, u64::MAX]), Some(12));
        assert_eq!(lowest_for_quorum(committee, &[vote(1, 1)], |ballot| ballot.storage_price), None);
    }

    #[test]
    fn capacity_is_scaled_to_the_network() {
        assert_eq!(scale(100, 2, 10), 500);
        assert_eq!(scale(CREDITS_MAX, 1, 1000), CREDITS_MAX);
        assert_eq!(scale(u64::MAX, 1, 1), CREDITS_MAX);
    }
}
