//! What to do next about a transaction that is to be executed, and what became of it: pure; time is an argument.
//!
//! Members are tried one after the other, since any of them can get a transaction ordered, and what one of them says is
//! a claim: that it was executed is believed when the sender's account is proven to have it as its last one, and that it is not
//! allowed when members worth a validity set say so, twice: the first time, they may not have executed yet what it depends on.
//! That the nonce has moved alone says nothing: an order that the same account left with members, when a store failed, takes it too.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    NodeIndex,
    ledger::{state::entry::Account, transaction::TransactionId},
};
use tokio::time::Instant;

use super::plan::Plan;
use crate::client::Failures;

/// After this long without an answer, another member is tried too. Being ordered takes a block or two.
const HEDGE_AFTER: Duration = Duration::from_secs(3);
/// How long after all members were tried they are tried again; it doubles.
const ROUND_PAUSE: Duration = Duration::from_millis(500);
/// The longest such pause.
const ROUND_PAUSE_MAX: Duration = Duration::from_secs(4);
/// How soon the nonce is read again when a member says that it has moved, and others do not show it yet.
const READ_SOON: Duration = Duration::from_millis(200);
/// How soon otherwise.
const READ_LATER: Duration = Duration::from_secs(2);

/// What a member said of the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It was executed in the block of this height.
    Executed(u64),
    /// The rules do not allow it.
    Rejected(String),
    /// The member did not take it.
    NotTaken(String),
    /// The member may have taken it.
    Unclear(String),
}

/// What became of the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is executed in a block no later than this height.
    Executed(u64),
    /// Members worth a validity set say that it is not allowed, and the nonce has not moved.
    Rejected(String),
    /// Another transaction of the account had this nonce: this one never will be executed.
    Superseded(u64),
    /// Nobody took it.
    NotTaken,
    /// It may have been executed, or may yet be.
    Unknown,
}

/// Whose the nonce was, once it has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Used {
    /// This transaction's.
    Ours,
    /// Another's.
    Anothers,
    /// More were executed since, which only another program that uses the account can have had done: it cannot be told.
    Untold,
}

/// One transaction on its way.
#[derive(Debug)]
pub(super) struct Submission {
    nonce: u64,
    id: TransactionId,
    /// Shards of whose members one is honest.
    validity: u16,
    /// All members in the order in which they are tried.
    members: Vec<(NodeIndex, u16)>,
    /// Those still to be tried in this round.
    plan: Plan,
    rounds: u32,
    in_flight: BTreeSet<NodeIndex>,
    /// Not to be tried again: what these members had to say is said.
    spent: BTreeSet<NodeIndex>,
    /// Heights at which members say that it was executed, until they are looked at.
    claims: BTreeMap<NodeIndex, u64>,
    /// Weight of the members that reject it, and why the last of them does.
    rejected: (u16, String),
    /// Those members.
    rejecters: BTreeSet<NodeIndex>,
    /// A validity set rejected it once: perhaps since it was behind.
    is_asked_twice: bool,
    /// A member that did not say no may have the transaction.
    may_be_taken: bool,
    /// Height at which the nonce was proven to have moved, and whose it was.
    moved: Option<(u64, Used)>,
    /// A validity set rejects it, and after that the nonce was proven not to have moved.
    is_rejected: bool,
    send_at: Instant,
    read_at: Option<Instant>,
    /// The nonce is being read.
    is_reading: bool,
    deadline: Instant,
    pub(super) failures: Failures,
}

impl Submission {
    /// `plan` has the members, `weight` their shards, as the plan gives them.
    pub(super) fn new(
        (nonce, id): (u64, TransactionId),
        validity: u16,
        members: Vec<(NodeIndex, u16)>,
        (now, deadline): (Instant, Instant),
    ) -> Self {
        Self {
            nonce,
            id,
            validity,
            plan: Plan::in_order(members.iter().copied()),
            members,
            rounds: 0,
            in_flight: BTreeSet::new(),
            spent: BTreeSet::new(),
            claims: BTreeMap::new(),
            rejected: (0, String::new()),
            rejecters: BTreeSet::new(),
            is_asked_twice: false,
            may_be_taken: false,
            moved: None,
            is_rejected: false,
            send_at: now,
            read_at: None,
            is_reading: false,
            deadline,
            failures: Failures::default(),
        }
    }

    /// Another committee took over: its members are tried, of which `validity` shards have an honest one. What the members
    /// before said of it counts no longer, but that one of them may have it.
    pub(super) fn go_on_with(&mut self, validity: u16, members: Vec<(NodeIndex, u16)>, now: Instant) {
        self.may_be_taken |= !self.in_flight.is_empty() || !self.claims.is_empty();
        self.validity = validity;
        self.plan = Plan::in_order(members.iter().copied());
        self.members = members;
        self.rounds = 0;
        self.in_flight.clear();
        self.spent.clear();
        self.claims.clear();
        self.rejected = (0, String::new());
        self.rejecters.clear();
        self.is_asked_twice = false;
        self.is_rejected = false;
        self.send_at = now;
    }

    /// One of the committee before answered that it has the transaction, or may have.
    pub(super) fn answered_before(&mut self, now: Instant) {
        self.may_be_taken = true;
        self.read_by(now);
    }

    /// Members to send it to now.
    pub(super) fn due_sends(&mut self, now: Instant) -> Vec<NodeIndex> {
        if now < self.send_at || self.moved.is_some() {
            return Vec::new();
        }
        if self.plan.is_empty() {
            let is_free = |(node, _): &&(NodeIndex, u16)| {
                ![&self.spent, &self.rejecters, &self.in_flight].iter().any(|set| set.contains(node))
            };
            self.plan = Plan::in_order(self.members.iter().filter(is_free).copied());
            self.rounds += 1;
        }
        // One at a time, but where several have to say no.
        let (rejected, _) = self.rejected;
        let are_several = rejected > 0 || self.is_asked_twice;
        let weight = if are_several { self.validity.saturating_sub(rejected).max(1) } else { 1 };
        let nodes = self.plan.next(weight);
        self.in_flight.extend(&nodes);
        self.send_at = now + HEDGE_AFTER;
        nodes
    }

    /// True if the nonce is to be read now; until that is done, it is not to be read again.
    pub(super) fn due_read(&mut self, now: Instant) -> bool {
        let is_due = !self.is_reading && self.read_at.is_some_and(|at| at <= now);
        if is_due {
            self.read_at = None;
            self.is_reading = true;
        }
        is_due
    }

    /// When to look again if nothing happens.
    pub(super) fn wake(&self) -> Instant {
        let read = self.read_at.filter(|_| !self.is_reading);
        read.into_iter().fold(self.deadline.min(self.send_at), Instant::min)
    }

    /// A member, called `name` and of this weight, answered.
    pub(super) fn answered(
        &mut self,
        (node, name, weight): (NodeIndex, &str, u16),
        said: Said,
        now: Instant,
    ) {
        self.in_flight.remove(&node);
        match said {
            Said::Executed(height) => {
                self.claims.insert(node, height);
                self.may_be_taken = true;
                self.read_by(now);
                return;
            }
            Said::Rejected(reason) => {
                self.failures.failed(name, format_args!("rejects it: {reason}"));
                if self.rejecters.insert(node) {
                    self.rejected = (self.rejected.0.saturating_add(weight), reason);
                }
                if self.rejected.0 >= self.validity {
                    self.read_by(now);
                    return;
                }
            }
            Said::NotTaken(why) => self.failures.failed(name, why),
            Said::Unclear(why) => {
                self.failures.failed(name, why);
                self.may_be_taken = true;
                self.read_by(now);
            }
        }
        let pause = if self.plan.is_empty() {
            ROUND_PAUSE.saturating_mul(1 << self.rounds.min(8)).min(ROUND_PAUSE_MAX)
        } else {
            Duration::ZERO
        };
        self.send_at = self.send_at.min(now + pause);
    }

    fn read_by(&mut self, at: Instant) {
        self.read_at = Some(self.read_at.map_or(at, |old| old.min(at)));
    }

    /// At this height, the account is proven to be this. Returns the members that lied about it.
    pub(super) fn proven(&mut self, height: u64, account: &Account, now: Instant) -> Vec<NodeIndex> {
        self.is_reading = false;
        if account.nonce > self.nonce {
            let used = match account.last {
                Some(last) if last == self.id => Used::Ours,
                _ if account.nonce - 1 == self.nonce => Used::Anothers,
                _ => Used::Untold,
            };
            self.moved.get_or_insert((height, used));
            return if used == Used::Anothers { self.refuted(height) } else { Vec::new() };
        }
        if self.rejected.0 >= self.validity {
            if self.is_asked_twice {
                self.is_rejected = true;
            } else {
                self.is_asked_twice = true;
                self.rejected.0 = 0;
                self.rejecters.clear();
                self.send_at = now + ROUND_PAUSE;
            }
        }
        let liars = self.refuted(height);
        if !liars.is_empty() {
            self.send_at = now;
        }
        self.read_by(now + if self.claims.is_empty() { READ_LATER } else { READ_SOON });
        liars
    }

    /// Forgets the claims that it was executed by this height, where it is proven not to be; returns whose they were.
    fn refuted(&mut self, height: u64) -> Vec<NodeIndex> {
        let liars: Vec<NodeIndex> =
            self.claims.iter().filter(|(_, claimed)| **claimed <= height).map(|(node, _)| *node).collect();
        for liar in &liars {
            self.claims.remove(liar);
            self.spent.insert(*liar);
        }
        liars
    }

    /// The nonce could not be read.
    pub(super) fn read_failed(&mut self, now: Instant) {
        self.is_reading = false;
        self.read_by(now + READ_LATER);
    }

    /// What became of the transaction, once that is known or no longer waited for.
    pub(super) fn outcome(&self, now: Instant) -> Option<Outcome> {
        if let Some((height, used)) = self.moved {
            return Some(match used {
                Used::Ours => Outcome::Executed(height),
                Used::Anothers => Outcome::Superseded(height),
                Used::Untold => Outcome::Unknown,
            });
        }
        if self.is_rejected && self.claims.is_empty() {
            return Some(Outcome::Rejected(self.rejected.1.clone()));
        }
        (now >= self.deadline).then(|| {
            let may_be_taken = self.may_be_taken || !self.in_flight.is_empty();
            if may_be_taken { Outcome::Unknown } else { Outcome::NotTaken }
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::hash::Hash;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NONCE: u64 = 5;
    const OURS: TransactionId = TransactionId(Hash([1; 32]));
    const ANOTHERS: TransactionId = TransactionId(Hash([2; 32]));

    /// Five members with a shard each, of which two are a validity set.
    struct Table {
        submission: Submission,
        start: Instant,
    }

    impl Table {
        fn new() -> Self {
            let start = Instant::now();
            let members = (0..5).map(|i| (NodeIndex(i), 1)).collect();
            Self {
                submission: Submission::new((NONCE, OURS), 2, members, (start, start + 60 * SECOND)),
                start,
            }
        }

        fn at(&self, seconds: u32) -> Instant {
            self.start + seconds * SECOND
        }

        fn sends(&mut self, seconds: u32) -> Vec<u16> {
            let now = self.at(seconds);
            self.submission.due_sends(now).into_iter().map(|node| node.0).collect()
        }

        fn says(&mut self, node: u16, said: Said) {
            self.says_at(0, node, said);
        }

        fn says_at(&mut self, seconds: u32, node: u16, said: Said) {
            let now = self.at(seconds);
            self.submission.answered((NodeIndex(node), &format!("node-{node}"), 1), said, now);
        }

        fn reads(&mut self, seconds: u32) -> bool {
            let now = self.at(seconds);
            self.submission.due_read(now)
        }

        /// The account has had so many transactions, the last of them this one.
        fn proves(&mut self, height: u64, nonce: u64, last: TransactionId) -> Vec<u16> {
            let (now, account) = (self.start, Account { balance: 0, nonce, last: Some(last) });
            self.submission.proven(height, &account, now).into_iter().map(|node| node.0).collect()
        }

        /// It was not executed yet.
        fn proves_nothing(&mut self, height: u64) -> Vec<u16> {
            self.proves(height, NONCE, ANOTHERS)
        }

        fn outcome(&self, seconds: u32) -> Option<Outcome> {
            self.submission.outcome(self.at(seconds))
        }
    }

    fn rejected() -> Said {
        Said::Rejected("too few credits".to_owned())
    }

    #[test]
    fn what_a_member_says_was_executed_is_believed_when_it_is_proven() {
        let mut table = Table::new();
        assert_eq!(table.sends(0), [0]);
        assert_eq!(table.sends(0), [0; 0]);
        table.says(0, Said::Executed(9));
        assert_eq!(table.outcome(0), None);
        assert!(table.reads(0));
        assert!(!table.reads(0));
        // Others lag: read again.
        assert_eq!(table.proves_nothing(8), [0; 0]);
        assert_eq!(table.outcome(0), None);
        assert!(table.reads(1));
        table.proves(9, NONCE + 1, OURS);
        assert_eq!(table.outcome(0), Some(Outcome::Executed(9)));
    }

    #[test]
    fn who_claims_what_is_proven_wrong_is_named_and_another_is_tried() {
        let mut table = Table::new();
        assert_eq!(table.sends(0), [0]);
        table.says(0, Said::Executed(9));
        assert_eq!(table.proves_nothing(9), [0]);
        assert_eq!(table.outcome(0), None);
        assert_eq!(table.sends(0), [1]);
        table.says(1, Said::Executed(10));
        table.proves(11, NONCE + 1, OURS);
        assert_eq!(table.outcome(0), Some(Outcome::Executed(11)));
    }

    #[test]
    fn one_member_cannot_have_a_transaction_rejected_and_a_validity_set_can() {
        let mut table = Table::new();
        table.sends(0);
        table.says(0, rejected());
        assert_eq!(table.outcome(0), None);
        assert_eq!(table.sends(0), [1]);
        table.says(1, rejected());
        assert_eq!(table.outcome(0), None, "not before the nonce was looked at");
        assert!(table.reads(0));
        table.proves_nothing(7);
        assert_eq!(table.outcome(0), None, "they may have been behind");
        assert_eq!(table.sends(0), [0; 0]);
        assert_eq!(table.sends(1), [2, 3]);
        table.says_at(1, 2, rejected());
        assert_eq!(table.sends(1), [4], "the other may be silent");
        table.says_at(1, 3, rejected());
        assert!(table.reads(1));
        table.proves_nothing(7);
        assert_eq!(table.outcome(1), Some(Outcome::Rejected("too few credits".to_owned())));
        let mut table = Table::new();
        table.sends(0);
        table.says(0, rejected());
        table.sends(0);
        table.says(1, Said::Executed(9));
        table.proves(9, NONCE + 1, OURS);
        assert_eq!(table.outcome(0), Some(Outcome::Executed(9)));
    }

    #[test]
    fn whose_a_nonce_was_is_what_the_account_says() {
        let mut table = Table::new();
        table.sends(0);
        table.says(0, rejected());
        table.sends(0);
        table.says(1, rejected());
        table.proves(9, NONCE + 1, ANOTHERS);
        assert_eq!(table.outcome(0), Some(Outcome::Superseded(9)));
        // Somebody may have taken it and was not heard of again; what was executed is another one all the same.
        let mut table = Table::new();
        table.sends(0);
        table.says(0, Said::Unclear("gone".to_owned()));
        assert!(table.reads(0));
        table.proves(9, NONCE + 1, ANOTHERS);
        assert_eq!(table.outcome(0), Some(Outcome::Superseded(9)));
        // Nobody has to say so.
        let mut table = Table::new();
        table.sends(0);
        table.proves(9, NONCE + 1, OURS);
        assert_eq!(table.outcome(0), Some(Outcome::Executed(9)));
        // Who said that this one was executed lied.
        let mut table = Table::new();
        table.sends(0);
        table.says(0, Said::Executed(8));
        assert_eq!(table.proves(9, NONCE + 1, ANOTHERS), [0]);
        assert_eq!(table.outcome(0), Some(Outcome::Superseded(9)));
    }

    #[test]
    fn with_more_executed_since_it_is_known_only_if_it_was_the_last() {
        let mut table = Table::new();
        table.sends(0);
        table.says(0, Said::Executed(8));
        assert_eq!(table.proves(9, NONCE + 3, ANOTHERS), [0; 0], "it may have been");
        assert_eq!(table.outcome(0), Some(Outcome::Unknown));
    }

    #[test]
    fn members_that_do_not_answer_or_have_no_time_are_passed_over_and_tried_again() {
        let mut table = Table::new();
        assert_eq!(table.sends(0), [0]);
        assert_eq!(table.sends(2), [0; 0]);
        assert_eq!(table.sends(3), [1], "the first is silent");
        for node in 1..5 {
            table.says_at(3, node, Said::NotTaken("busy".to_owned()));
            let next: &[u16] = if node == 4 { &[] } else { &[node + 1] };
            assert_eq!(table.sends(3), next);
        }
        assert_eq!(table.sends(4), [1], "another round, without the one that is still asked");
        assert_eq!(table.outcome(59), None);
        assert_eq!(table.outcome(60), Some(Outcome::Unknown), "the silent one may have taken it");
        table.says_at(60, 0, Said::NotTaken("gone".to_owned()));
        table.says_at(60, 1, Said::NotTaken("gone".to_owned()));
        assert_eq!(table.outcome(60), Some(Outcome::NotTaken));
    }

    #[test]
    fn there_is_always_a_next_look() {
        let mut table = Table::new();
        table.sends(0);
        assert_eq!(table.submission.wake(), table.at(3));
        table.says(0, Said::Unclear("not ordered".to_owned()));
        assert_eq!(table.sends(0), [1]);
        assert!(table.reads(0));
        // While it is read, a word more does not make it due, or whoever waits would not wait.
        table.says(1, Said::Executed(9));
        assert!(!table.reads(0));
        assert_eq!(table.submission.wake(), table.at(3));
        let now = table.start;
        table.submission.read_failed(now);
        assert!(table.reads(0));
        table.submission.read_failed(now);
        assert!(!table.reads(1));
        assert!(table.reads(2));
        assert!(table.submission.wake() <= table.at(60));
    }

    #[test]
    fn another_committee_is_asked_anew_and_what_the_one_before_may_have_done_is_not_forgotten() {
        let mut table = Table::new();
        table.sends(0);
        table.says(0, Said::Rejected("no".into()));
        table.sends(0);
        let now = table.at(1);
        let members = (0..2).map(|i| (NodeIndex(i), 3)).collect();
        table.submission.go_on_with(2, members, now);
        assert_eq!(table.sends(1), [0], "who said no before may be another one");
        table.says_at(1, 0, Said::NotTaken("busy".into()));
        assert_eq!(table.sends(1), [1]);
        table.says_at(1, 1, Said::NotTaken("busy".into()));
        // One of the committee before was asked, and its answer is lost.
        let end = table.at(60);
        assert_eq!(table.submission.outcome(end), Some(Outcome::Unknown));
    }
}
