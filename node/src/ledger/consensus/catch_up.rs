//! Whom to ask for blocks that others have decided, and when; no I/O.
//!
//! Peers say how far their ledger reaches. Whoever says more than we have is asked, one peer at a time, members
//! first, and of them in turn, the one that claims most before others. Claims cost nothing, so one that leads to nothing is
//! forgotten and its author not listened to for a while; and whoever claims most and answers slowly is one of many.
//!
//! What is asked is decided elsewhere: blocks, or a snapshot by whoever is far behind. A peer may have one and lack the
//! other, since nobody keeps blocks for ever and not everyone has a snapshot; only who has neither has claimed in vain.

use std::{collections::BTreeMap, time::Duration};

use protocol::PeerId;

use super::rates::PACE;

/// Claims kept of peers that are no members: members are always heard, whoever else connects.
const STRANGERS_MAX: usize = 64;
/// How long a peer is not listened to after it sent what does not verify.
const LIAR_PAUSE: Duration = Duration::from_secs(60);
/// After it sent nothing although it claimed more: it may have meant well.
const EMPTY_PAUSE: Duration = Duration::from_secs(2);
/// Attempts with one peer before its claim is forgotten.
const TRIES_MAX: u32 = 6;

/// What a peer says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimed {
    pub(super) peer: PeerId,
    pub(super) height: u64,
    /// When to ask it, if we have not got there by then.
    pub(super) patience: Duration,
    pub(super) is_member: bool,
}

/// What is remembered of it.
#[derive(Clone, Copy, Debug)]
struct Claim {
    height: u64,
    /// When to ask.
    act_at: Duration,
    /// Times that it did not answer.
    failures: u32,
    /// Its place in the queue: how many requests there had been when it was last asked, or came.
    asked: u64,
    is_member: bool,
    /// It gave no block when it was asked for the next.
    lacks_blocks: bool,
    /// It does not have the snapshot that is being fetched, or none at all.
    lacks_snapshot: bool,
}

/// A request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) id: u64,
    pub(super) peer: PeerId,
    pub(super) is_member: bool,
    /// How far its ledger reaches, it says.
    pub(super) height: u64,
    pub(super) lacks_blocks: bool,
    pub(super) lacks_snapshot: bool,
    deadline: Duration,
}

/// Who may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// Whoever has more than we have.
    Anyone,
    /// Whoever may have the snapshot of this height, or of any height if it is 0. What `prefer` is giving in parts must come
    /// from one peer; unless that one fails to answer.
    Snapshot { height: u64, prefer: Option<PeerId> },
}

impl Whom {
    fn admits(self, claim: &Claim) -> bool {
        match self {
            Self::Anyone => true,
            Self::Snapshot { height, .. } => !claim.lacks_snapshot && claim.height >= height,
        }
    }

    fn prefers(self, peer: PeerId) -> bool {
        matches!(self, Self::Snapshot { prefer: Some(preferred), .. } if preferred == peer)
    }
}

/// How an answer turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Blocks or a part of a snapshot, that fit.
    Progress,
    /// No block, although more was claimed.
    NoBlocks,
    /// Not the snapshot, or part of one, that it was asked for.
    NoSnapshot,
    /// Nothing at all, although it said that it had it.
    Nothing,
    /// Something that does not verify.
    Lie,
    /// No answer.
    Silence,
}

#[derive(Debug)]
pub(super) struct CatchUp {
    claims: BTreeMap<PeerId, Claim>,
    /// Until when peers are not listened to. INV: at most [`STRANGERS_MAX`] and one for each member.
    ignored: BTreeMap<PeerId, Duration>,
    in_flight: Option<InFlight>,
    answer_max: Duration,
    /// Requests so far.
    n_asked: u64,
    /// Our height.
    height: u64,
}

impl CatchUp {
    pub(super) const fn new(answer_max: Duration, height: u64) -> Self {
        Self {
            claims: BTreeMap::new(),
            ignored: BTreeMap::new(),
            in_flight: None,
            answer_max,
            n_asked: 0,
            height,
        }
    }

    /// A peer says how far its ledger reaches.
    pub(super) fn claim(&mut self, now: Duration, claimed: Claimed) {
        let Claimed { peer, height, patience, is_member } = claimed;
        let act_at = now + patience;
        self.ignored.retain(|_, until| *until > now);
        if height <= self.height || self.ignored.contains_key(&peer) {
            return;
        }
        let n_strangers = self.claims.values().filter(|claim| !claim.is_member).count();
        let new = Claim {
            height,
            act_at,
            failures: 0,
            asked: self.n_asked,
            is_member,
            lacks_blocks: false,
            lacks_snapshot: false,
        };
        match self.claims.get_mut(&peer) {
            Some(claim) => {
                // A claim that is acted on already is not put off by being repeated.
                claim.height = claim.height.max(height);
                claim.act_at = claim.act_at.min(act_at);
                claim.is_member = is_member;
            }
            None if is_member || n_strangers < STRANGERS_MAX => {
                self.claims.insert(peer, new);
            }
            None => self.replace_silent(peer, new),
        }
    }

    /// Gives a stranger the place of one that did not answer: those who only claim must not keep out those who would
    /// answer. After a long absence, all who are members by now are strangers.
    fn replace_silent(&mut self, peer: PeerId, claim: Claim) {
        let strangers = self.claims.iter().filter(|(_, other)| !other.is_member && other.failures > 0);
        if let Some(silent) = strangers.max_by_key(|(_, other)| other.failures).map(|(peer, _)| *peer) {
            self.claims.remove(&silent);
            self.claims.insert(peer, claim);
        }
    }

    /// Our ledger reaches this far now.
    pub(super) fn reached(&mut self, height: u64) {
        self.height = height;
        self.claims.retain(|_, claim| claim.height > height);
    }

    /// Those who say that their ledger reaches this far.
    pub(super) fn claimers(&self, height: u64) -> impl Iterator<Item = &PeerId> {
        self.claims.iter().filter(move |(_, claim)| claim.height >= height).map(|(peer, _)| peer)
    }

    /// Whether anyone may be asked, now or later.
    pub(super) fn has_any(&self, whom: Whom) -> bool {
        self.claims.values().any(|claim| whom.admits(claim))
    }

    /// The snapshot that peers were asked for is of no use any more: they may have another.
    pub(super) fn forget_snapshot(&mut self) {
        for claim in self.claims.values_mut() {
            claim.lacks_snapshot = false;
        }
    }

    /// The peer to ask now, if there is one; `id` names the request.
    pub(super) fn next(&mut self, now: Duration, id: u64, whom: Whom) -> Option<InFlight> {
        if self.in_flight.is_some() {
            return None;
        }
        let due = self.claims.iter_mut().filter(|(_, claim)| claim.act_at <= now && whom.admits(claim));
        // Members first: there are only so many of them. Then the fewest failures: a peer that does not answer must not be
        // asked again while others would. Then who has waited longest: one that claims everything and answers each time
        // with a block or with none, as late as it may, must not be the only one.
        let rank = |peer: PeerId, claim: &Claim| {
            let is_other = claim.failures > 0 || !whom.prefers(peer);
            (is_other, !claim.is_member, claim.failures, claim.asked, u64::MAX - claim.height)
        };
        let (peer, claim) = due.min_by_key(|(peer, claim)| rank(**peer, claim))?;
        self.n_asked += 1;
        claim.asked = self.n_asked;
        let Claim { height, is_member, lacks_blocks, lacks_snapshot, .. } = *claim;
        let deadline = now + self.answer_max;
        let request = InFlight { id, peer: *peer, is_member, height, lacks_blocks, lacks_snapshot, deadline };
        self.in_flight = Some(request);
        Some(request)
    }

    /// Until when to wait for blocks that are being fetched from a member before a height is begun that they may hold: for
    /// `patience` from the request. Longer waiting would let a member that never answers slow down every height.
    pub(super) fn wait_until(&self, patience: Duration) -> Option<Duration> {
        let request = self.in_flight.filter(|request| request.is_member)?;
        Some((request.deadline + patience).saturating_sub(self.answer_max))
    }

    /// Takes the request with this ID to this peer, if it is still under way.
    pub(super) fn take(&mut self, id: u64, peer: PeerId) -> Option<InFlight> {
        self.in_flight.take_if(|request| (request.id, request.peer) == (id, peer))
    }

    /// Takes the request that has waited too long, if one has.
    pub(super) fn take_overdue(&mut self, now: Duration) -> Option<InFlight> {
        self.in_flight.take_if(|request| request.deadline <= now)
    }

    /// Draws the consequences of how a request ended.
    pub(super) fn ended(&mut self, now: Duration, request: InFlight, outcome: Outcome) {
        let pause = match outcome {
            Outcome::Progress => {
                if let Some(claim) = self.claims.get_mut(&request.peer) {
                    claim.failures = 0;
                    claim.act_at = claim.act_at.max(now + PACE);
                }
                return;
            }
            Outcome::Silence => {
                let Some(claim) = self.claims.get_mut(&request.peer) else { return };
                claim.failures += 1;
                claim.act_at = now + self.answer_max * claim.failures;
                if claim.failures >= TRIES_MAX {
                    self.claims.remove(&request.peer);
                }
                return;
            }
            Outcome::NoBlocks | Outcome::NoSnapshot => {
                let Some(claim) = self.claims.get_mut(&request.peer) else { return };
                claim.lacks_blocks |= outcome == Outcome::NoBlocks;
                claim.lacks_snapshot |= outcome == Outcome::NoSnapshot;
                if !(claim.lacks_blocks && claim.lacks_snapshot) {
                    return;
                }
                EMPTY_PAUSE
            }
            Outcome::Nothing => EMPTY_PAUSE,
            Outcome::Lie => LIAR_PAUSE,
        };
        self.claims.remove(&request.peer);
        let n_strangers = self.ignored.len();
        if request.is_member || n_strangers < STRANGERS_MAX {
            self.ignored.insert(request.peer, now + pause);
        }
    }

    /// When to look again; none if there is nothing to fetch.
    pub(super) fn next_deadline(&self, whom: Whom) -> Option<Duration> {
        match self.in_flight {
            Some(request) => Some(request.deadline),
            None => self.claims.values().filter(|claim| whom.admits(claim)).map(|claim| claim.act_at).min(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER_MAX: Duration = Duration::from_secs(2);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn peer(byte: u8) -> PeerId {
        PeerId([byte; 32])
    }

    fn claimed(byte: u8, height: u64) -> Claimed {
        Claimed { peer: peer(byte), height, patience: Duration::ZERO, is_member: true }
    }

    fn catch_up(claims: &[Claimed]) -> CatchUp {
        let mut it = CatchUp::new(ANSWER_MAX, 5);
        for claim in claims {
            it.claim(at(0), *claim);
        }
        it
    }

    #[test]
    fn only_who_has_more_is_asked_and_one_at_a_time() {
        let mut it = catch_up(&[claimed(1, 4), claimed(2, 5)]);
        assert_eq!((it.next(at(0), 0, Whom::Anyone), it.next_deadline(Whom::Anyone)), (None, None));
        it.claim(at(0), claimed(3, 6));
        it.claim(at(0), claimed(4, 9));
        let request = it.next(at(0), 7, Whom::Anyone).unwrap();
        assert_eq!((request.peer, request.id), (peer(4), 7));
        assert_eq!(it.next(at(0), 8, Whom::Anyone), None);
        assert_eq!(it.wait_until(at(1)), Some(at(1)));
        assert_eq!(it.take(8, peer(4)), None);
        assert_eq!(it.take(7, peer(3)), None);
        assert_eq!(it.take(7, peer(4)), Some(request));
        it.reached(9);
        it.ended(at(1), request, Outcome::Progress);
        assert_eq!((it.next(at(1), 9, Whom::Anyone), it.next_deadline(Whom::Anyone)), (None, None));
    }

    #[test]
    fn patience_is_kept_and_not_renewed() {
        let mut it = catch_up(&[]);
        let patient = Claimed { patience: at(3), ..claimed(1, 6) };
        it.claim(at(0), patient);
        it.claim(at(2), patient);
        assert_eq!((it.next(at(2), 0, Whom::Anyone), it.next_deadline(Whom::Anyone)), (None, Some(at(3))));
        assert!(it.next(at(3), 0, Whom::Anyone).is_some());
    }

    #[test]
    fn who_is_silent_is_asked_last_and_in_the_end_not_at_all() {
        let mut it = catch_up(&[claimed(1, 9), claimed(2, 6)]);
        let mut now = at(0);
        let mut asked = Vec::new();
        while let Some(deadline) = it.next_deadline(Whom::Anyone) {
            now = deadline;
            if let Some(request) = it.take_overdue(now) {
                it.ended(now, request, Outcome::Silence);
            }
            asked.extend(it.next(now, 0, Whom::Anyone).map(|request| request.peer));
        }
        assert_eq!(asked[..2], [peer(1), peer(2)]);
        let tries = usize::try_from(TRIES_MAX).unwrap();
        assert_eq!(asked.iter().filter(|it| **it == peer(1)).count(), tries);
        assert_eq!(asked.len(), 2 * tries);
        assert!(now < at(120), "{now:?}");
    }

    #[test]
    fn who_lies_is_not_listened_to_for_a_while() {
        let mut it = catch_up(&[claimed(1, u64::MAX)]);
        let request = it.next(at(0), 0, Whom::Anyone).unwrap();
        it.take(0, peer(1));
        it.ended(at(1), request, Outcome::Lie);
        it.claim(at(60), claimed(1, u64::MAX));
        assert_eq!(it.next_deadline(Whom::Anyone), None);
        it.claim(at(62), claimed(1, u64::MAX));
        assert!(it.next(at(62), 1, Whom::Anyone).is_some());
    }

    #[test]
    fn who_claims_everything_and_answers_slowly_is_asked_in_turn() {
        let mut it = catch_up(&[claimed(1, u64::MAX), claimed(2, 900), claimed(3, 900)]);
        let asked = (0..6).map(|n| {
            let request = it.next(at(n), n, Whom::Anyone).unwrap();
            it.take(n, request.peer);
            it.reached(6 + n);
            it.ended(at(n), request, Outcome::Progress);
            request.peer
        });
        let asked: Vec<PeerId> = asked.collect();
        assert_eq!(asked, [1, 2, 3, 1, 2, 3].map(peer));
    }

    #[test]
    fn who_has_neither_blocks_nor_a_snapshot_has_claimed_in_vain() {
        let mut it = catch_up(&[claimed(1, 900), claimed(2, 900)]);
        let snapshot = Whom::Snapshot { height: 0, prefer: None };
        let end = |it: &mut CatchUp, whom, outcome| {
            let request = it.next(at(0), 0, whom)?;
            it.take(0, request.peer);
            it.ended(at(0), request, outcome);
            Some((request.peer, request.lacks_blocks, request.lacks_snapshot))
        };
        assert_eq!(end(&mut it, Whom::Anyone, Outcome::NoBlocks), Some((peer(1), false, false)));
        assert_eq!(end(&mut it, snapshot, Outcome::NoSnapshot), Some((peer(2), false, false)));
        assert_eq!(end(&mut it, snapshot, Outcome::Silence), Some((peer(1), true, false)));
        assert!(it.has_any(snapshot), "it may have one");
        assert_eq!(end(&mut it, Whom::Anyone, Outcome::NoBlocks), Some((peer(2), false, true)));
        assert_eq!(it.claimers(900).collect::<Vec<_>>(), [&peer(1)]);
        it.claim(at(1), claimed(2, 900));
        assert!(!it.claims.contains_key(&peer(2)), "it is not listened to for a while");
        it.claim(at(3), claimed(2, 900));
        assert!(it.claims.contains_key(&peer(2)));
    }

    #[test]
    fn who_gives_in_parts_is_asked_on_unless_it_falls_silent() {
        let mut it = catch_up(&[claimed(1, 900), claimed(2, 900)]);
        let whom = Whom::Snapshot { height: 900, prefer: Some(peer(2)) };
        for n in 0..3 {
            let request = it.next(at(n), n, whom).unwrap();
            assert_eq!(request.peer, peer(2));
            it.take(n, peer(2));
            it.ended(at(n), request, Outcome::Progress);
        }
        let request = it.next(at(3), 3, whom).unwrap();
        it.take(3, peer(2));
        it.ended(at(3), request, Outcome::Silence);
        assert_eq!(it.next(at(9), 4, whom).unwrap().peer, peer(1));
        assert!(!it.has_any(Whom::Snapshot { height: 901, prefer: None }));
    }

    #[test]
    fn who_has_nothing_and_claims_again_waits_behind_the_others() {
        let mut it = catch_up(&[claimed(1, u64::MAX), claimed(2, u64::MAX), claimed(3, 900)]);
        let mut n_good = 0;
        for n in 0..30 {
            let request = it.next(at(3 * n), n, Whom::Anyone).unwrap();
            it.take(n, request.peer);
            if request.peer == peer(3) {
                n_good += 1;
                it.ended(at(3 * n), request, Outcome::Progress);
            } else {
                it.ended(at(3 * n), request, Outcome::Nothing);
                it.claim(at(3 * n + 3), Claimed { peer: request.peer, ..claimed(1, u64::MAX) });
            }
        }
        assert_eq!(n_good, 10);
    }

    #[test]
    fn strangers_that_do_not_answer_make_room_for_others() {
        let mut it = catch_up(&[]);
        let stranger = |n| Claimed { is_member: false, ..claimed(n, 100) };
        for n in 0..64 {
            it.claim(at(0), stranger(n));
        }
        it.claim(at(0), stranger(200));
        assert!(!it.claims.contains_key(&peer(200)), "nobody has been silent yet");
        let silent = it.next(at(0), 0, Whom::Anyone).unwrap();
        let overdue = it.take_overdue(at(2)).unwrap();
        it.ended(at(2), overdue, Outcome::Silence);
        it.claim(at(2), stranger(200));
        assert!(it.claims.contains_key(&peer(200)));
        assert!(!it.claims.contains_key(&silent.peer));
        assert_eq!(it.claims.len(), STRANGERS_MAX);
    }

    #[test]
    fn strangers_never_keep_out_members() {
        let mut it = catch_up(&[]);
        for n in 0..200 {
            let stranger = Claimed { is_member: false, ..claimed(n, 100) };
            it.claim(at(0), stranger);
        }
        assert_eq!(it.claims.len(), STRANGERS_MAX);
        it.claim(at(0), claimed(250, 6));
        assert_eq!(it.next(at(0), 0, Whom::Anyone).unwrap().peer, peer(250));
    }
}
