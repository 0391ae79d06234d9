//! How a node that is far behind gets the state from others, instead of executing every block; no I/O.
//!
//! ```text
//! own head --link, link (each with its committee, in parts), ...--> head of the snapshot --> its block --> page, page, ...
//!            checked by TrustedChain                                 ID is certified         root is certified
//! ```
//!
//! Whom to ask is decided in `catch_up.rs`, what to ask here. Every answer is checked before anything of it is kept, against
//! what a committee signed that is known already. So each may come from another peer, and one that does not verify is the
//! fault of who sent it. Only a committee that takes several answers must come from one peer: it is checked as a whole.
//!
//! # Invariants
//!
//! - What is handed out at the end is the block that a quorum signed, and a state whose root that block names.
//! - One answer is awaited at a time; an answer to anything else changes nothing.

use std::sync::Arc;

use protocol::{
    PeerId, codec,
    committee::{CertifiedCommittee, Committee},
    ledger::{
        block::{Block, Decided, Header, committee_form_hash},
        chain::{AdvanceError, TrustedChain},
        commit::CommitCertificate,
        tree::{Restore, Tree},
        wire::{COMMITTEE_BYTES_MAX, COMMITTEE_PART_BYTES, Link, Request, Response},
    },
};

use super::{block_store::Change, catch_up::Whom, output::Offence};

/// Limit for decoding a committee, whose hash is certified: texts take a few times their bytes in memory.
const COMMITTEE_LIMIT: usize = 4 * COMMITTEE_BYTES_MAX;

/// A state that others had, and what belongs to it. All of it is verified.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The block that the state is after.
    pub(super) decided: Decided,
    /// The committee that signed it.
    pub(super) signed_by: Arc<Committee>,
    /// The committee that signs the next height.
    pub(super) committee: Arc<Committee>,
    /// The state.
    pub(super) tree: Tree,
}

/// What an answer led to.
#[derive(Debug)]
pub(super) enum Taken {
    /// It fits; go on.
    Progress,
    /// The committee changes here. It must be remembered for those who will ask.
    Change(Box<Change>),
    /// The state is whole.
    Whole(Box<Fetched>),
    /// The peer does not have what it was asked for.
    Lacking,
    /// The peer does not have what it said it had.
    Nothing,
    /// The peer sent what no honest one sends.
    Lie(Offence),
    /// It answers nothing that is still asked.
    Stale,
}

/// The block that the snapshot is after.
#[derive(Debug)]
struct Head {
    header: Header,
    certificate: CommitCertificate,
    signed_by: Arc<Committee>,
    /// Who said that it has the state.
    source: PeerId,
}

#[derive(Debug)]
enum Stage {
    /// Looking for the next header at which the committee changes, or the snapshot's.
    Links,
    /// A header is proven; the committee that it puts in place is being fetched.
    Committee { link: Box<Link>, source: PeerId, form: Vec<u8>, from: Option<PeerId> },
    /// The snapshot's header is proven; its block is missing.
    Block(Box<Head>),
    /// The state is being fetched.
    Pages { head: Box<Head>, block: Arc<Block>, restore: Box<Restore> },
}

#[derive(Debug)]
struct Running {
    chain: TrustedChain,
    stage: Stage,
    /// What is awaited, and from whom.
    asked: Option<PeerId>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct SnapshotSync {
    running: Option<Running>,
}

impl SnapshotSync {
    /// Begins, from what is trusted already.
    pub(super) fn start(&mut self, chain: TrustedChain) {
        self.running = Some(Running { chain, stage: Stage::Links, asked: None });
    }

    /// Gives up what there is. True if a snapshot had been chosen, so that peers who lack it may have another.
    pub(super) fn stop(&mut self) -> bool {
        let was_chosen = self.is_chosen();
        self.running = None;
        was_chosen
    }

    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it is known which snapshot is fetched.
    fn is_chosen(&self) -> bool {
        self.running.as_ref().is_some_and(|it| matches!(it.stage, Stage::Block(_) | Stage::Pages { .. }))
    }

    /// The highest height of which a quorum's certificate was seen.
    pub(super) fn proven_height(&self) -> Option<u64> {
        self.running.as_ref().map(|it| match &it.stage {
            Stage::Committee { link, .. } => link.header.height,
            Stage::Links | Stage::Block(_) | Stage::Pages { .. } => it.chain.height(),
        })
    }

    /// Who may be asked next.
    pub(super) fn whom(&self) -> Whom {
        match &self.running {
            None => Whom::Anyone,
            Some(Running { stage: Stage::Links, .. }) => Whom::Snapshot { height: 0, prefer: None },
            Some(Running { stage: Stage::Committee { link, from, .. }, .. }) => {
                Whom::Snapshot { height: link.header.height, prefer: *from }
            }
            Some(Running { chain, .. }) => Whom::Snapshot { height: chain.height(), prefer: None },
        }
    }

    /// What to ask this peer now; nothing, if nothing is being fetched.
    pub(super) fn ask(&mut self, peer: PeerId) -> Option<Request> {
        let running = self.running.as_mut()?;
        running.asked = Some(peer);
        Some(match &mut running.stage {
            Stage::Links => Request::Link { after: running.chain.height() },
            Stage::Committee { link, form, from, .. } => {
                // Parts of two peers could not be told apart if the whole turned out wrong.
                if *from != Some(peer) {
                    form.clear();
                    *from = Some(peer);
                }
                let offset = u32::try_from(form.len()).expect("a committee has at most 8 MiB");
                Request::Committee { height: link.header.height, offset }
            }
            Stage::Block(head) => Request::Blocks { from: head.header.height, n_max: 1 },
            Stage::Pages { head, restore, .. } => {
                Request::Page { height: head.header.height, after: restore.last_key().map(<[u8]>::to_vec) }
            }
        })
    }

    /// Takes what a peer answered.
    pub(super) fn take(&mut self, from: PeerId, response: Response) -> Taken {
        let Some(mut running) = self.running.take_if(|it| it.asked == Some(from)) else {
            return Taken::Stale;
        };
        running.asked = None;
        let (stage, taken) = running.stage.take(&mut running.chain, from, response);
        if let Some(stage) = stage {
            running.stage = stage;
            self.running = Some(running);
        }
        taken
    }
}

/// Why a header was not accepted, as to whose fault it is.
fn refused(error: AdvanceError) -> Taken {
    match error {
        // This program is too old: nobody is at fault, and nobody will have anything else.
        AdvanceError::Version { .. } => Taken::Nothing,
        error => Taken::Lie(Offence::Link(Box::new(error))),
    }
}

impl Stage {
    /// What follows from an answer: the next stage, none at the end, and what to make of the answer.
    fn take(self, chain: &mut TrustedChain, from: PeerId, response: Response) -> (Option<Self>, Taken) {
        match (self, response) {
            (Self::Links, Response::Link(None)) => (Some(Self::Links), Taken::Lacking),
            (Self::Links, Response::Link(Some(link))) => take_link(chain, from, link),
            (Self::Committee { link, source, form, .. }, Response::Committee(part)) => {
                take_committee(chain, (link, source), form, (from, part))
            }
            (Self::Block(head), Response::Blocks(blocks)) => take_block(head, from, blocks),
            (Self::Pages { head, block, restore }, Response::Page(page)) => {
                let Some(page) = page else {
                    let taken = if head.source == from { Taken::Nothing } else { Taken::Lacking };
                    return (Some(Self::Pages { head, block, restore }), taken);
                };
                take_page(chain, (head, block, restore), page)
            }
            // Another answer than what was asked for.
            (stage, _) => (Some(stage), Taken::Lie(Offence::OtherAnswer)),
        }
    }
}

fn take_link(chain: &mut TrustedChain, from: PeerId, link: Box<Link>) -> (Option<Stage>, Taken) {
    let (header, certificate) = (&link.header, &link.certificate);
    if header.next_committee.is_some() {
        return match chain.verify(header, certificate) {
            Ok(()) => {
                let stage = Stage::Committee { link, source: from, form: Vec::new(), from: None };
                (Some(stage), Taken::Progress)
            }
            Err(error) => (Some(Stage::Links), refused(error)),
        };
    }
    if !link.has_state {
        // It leads nowhere: nobody needs to know of it.
        return (Some(Stage::Links), Taken::Lie(Offence::NeedlessLink { height: header.height }));
    }
    let signed_by = Arc::new(chain.committee().clone());
    match chain.advance(header, certificate, None) {
        Ok(()) => {
            let Link { header, certificate, .. } = *link;
            let head = Head { header, certificate, signed_by, source: from };
            (Some(Stage::Block(Box::new(head))), Taken::Progress)
        }
        Err(error) => (Some(Stage::Links), refused(error)),
    }
}

fn take_committee(
    chain: &mut TrustedChain,
    (link, source): (Box<Link>, PeerId),
    mut form: Vec<u8>,
    (from, part): (PeerId, Vec<u8>),
) -> (Option<Stage>, Taken) {
    let height = link.header.height;
    let again = |link| Some(Stage::Committee { link, source, form: Vec::new(), from: None });
    if part.is_empty() {
        // Who gave the header may have forgotten the committee, if its disk did.
        return (again(link), if source == from { Taken::Nothing } else { Taken::Lacking });
    }
    let is_end = part.len() < COMMITTEE_PART_BYTES;
    form.extend(part);
    if link.header.next_committee != Some(committee_form_hash(&form)) {
        if is_end || form.len() >= COMMITTEE_BYTES_MAX {
            return (again(link), Taken::Lie(Offence::OtherCommittee { height }));
        }
        return (Some(Stage::Committee { link, source, form, from: Some(from) }), Taken::Progress);
    }
    // A quorum signed its hash: what does not decode now is nobody's fault who is here.
    let Ok(CertifiedCommittee(next)) = codec::decode_exact::<_, COMMITTEE_LIMIT>(&form) else {
        return (again(link), Taken::Nothing);
    };
    let signed_by = Arc::new(chain.committee().clone());
    if let Err(error) = chain.advance(&link.header, &link.certificate, Some(&next)) {
        return (Some(Stage::Links), refused(error));
    }
    let Link { header, certificate, has_state } = *link;
    let change = Change { header: header.clone(), certificate: certificate.clone(), committee: form };
    let stage = match has_state {
        true => Stage::Block(Box::new(Head { header, certificate, signed_by, source })),
        false => Stage::Links,
    };
    (Some(stage), Taken::Change(Box::new(change)))
}

fn take_block(head: Box<Head>, from: PeerId, blocks: Vec<Decided>) -> (Option<Stage>, Taken) {
    let Some(Decided { block, .. }) = blocks.into_iter().next() else {
        let taken = if head.source == from { Taken::Nothing } else { Taken::Lacking };
        return (Some(Stage::Block(head)), taken);
    };
    let (got, required) = (block.header().height, head.header.height);
    if got != required {
        return (Some(Stage::Block(head)), Taken::Lie(Offence::NotAsked { got, required }));
    }
    if block.id() != head.certificate.block_id() {
        return (Some(Stage::Block(head)), Taken::Lie(Offence::NotDecided { height: got, source: None }));
    }
    let restore = Box::new(Restore::new(head.header.state_root));
    (Some(Stage::Pages { head, block, restore }), Taken::Progress)
}

fn take_page(
    chain: &TrustedChain,
    (head, block, mut restore): (Box<Head>, Arc<Block>, Box<Restore>),
    page: protocol::ledger::tree::Page,
) -> (Option<Stage>, Taken) {
    if let Err(error) = restore.accept(page) {
        let offence = Offence::Page { height: head.header.height, source: error };
        return (Some(Stage::Pages { head, block, restore }), Taken::Lie(offence));
    }
    if !restore.is_complete() {
        return (Some(Stage::Pages { head, block, restore }), Taken::Progress);
    }
    match restore.finish() {
        Ok(tree) => {
            let Head { certificate, signed_by, .. } = *head;
            let committee = Arc::new(chain.committee().clone());
            let decided = Decided { block, certificate };
            (None, Taken::Whole(Box::new(Fetched { decided, signed_by, committee, tree })))
        }
        // Pages of a certified root rule this out. Should it happen all the same, begin again with nothing of it.
        Err(_) => (None, Taken::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use std::mem::discriminant;

    use protocol::{
        NetworkId, NodeIndex, bls,
        committee::{Member, spread},
        hash::Hash,
        ids::Epoch,
        ledger::{
            block::{Draft, Tip, committee_hash},
            signature::SigningKey,
            vote::{Vote, VoteKind},
        },
    };

    use super::*;

    const NETWORK: NetworkId = NetworkId([5; 32]);
    const A: PeerId = PeerId([1; 32]);
    const B: PeerId = PeerId([2; 32]);

    fn key() -> SigningKey {
        SigningKey::from_secret(&[7; 32])
    }

    /// A committee of one.
    fn committee(epoch: u32) -> Arc<Committee> {
        let secret = bls::SecretKey::from_seed(&[7; 32]);
        let peer = key().peer();
        let member = Member {
            name: format!("epoch-{epoch}"),
            peer,
            public_key: secret.public_key(),
            proof_of_possession: secret.prove_possession(&peer),
            addresses: Vec::new(),
            shards: spread(4, 1).remove(0),
        };
        Arc::new(Committee::new(Epoch(epoch), 4, vec![member]).unwrap())
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        for i in 0..40_u8 {
            tree.insert(&[i], &[i; 100]);
        }
        tree
    }

    /// Two blocks, of which the first changes the committee, with the certificates of both.
    fn chain() -> [Decided; 2] {
        let next = committee(1);
        let first = decide(Tip::genesis(NETWORK, committee(0)), Some(committee_hash(&next)), None);
        let tip = Tip::of(first.block.header(), committee(0), next);
        let second = decide(tip, None, Some(first.certificate.clone()));
        [first, second]
    }

    fn decide(tip: Tip, next_committee: Option<Hash>, last_commit: Option<CommitCertificate>) -> Decided {
        let (height, time_ms) = (tip.height + 1, tip.time_ms + 1);
        let state_root = tree().root();
        let draft = Draft { tip, time_ms, last_commit, transactions: Vec::new(), state_root, next_committee };
        let block = Arc::new(Block::build(draft).unwrap());
        let vote = Vote {
            height,
            round: 0,
            kind: VoteKind::Precommit,
            block: Some(block.id()),
            voter: key().peer(),
        };
        let signature = vote.sign(&NETWORK, &key()).signature;
        let certificate = CommitCertificate::new(height, 0, block.id(), [(NodeIndex(0), signature)]).unwrap();
        Decided { block, certificate }
    }

    fn link(decided: &Decided, has_state: bool) -> Response {
        let Decided { block, certificate } = decided.clone();
        Response::Link(Some(Box::new(Link { header: block.header().clone(), certificate, has_state })))
    }

    fn begun() -> SnapshotSync {
        let mut sync = SnapshotSync::default();
        sync.start(TrustedChain::from_genesis(NETWORK, (*committee(0)).clone()));
        sync
    }

    fn page(after: Option<&[u8]>) -> Response {
        Response::Page(tree().page(after, 1_000))
    }

    /// The right answers up to the state, in order.
    fn answers() -> Vec<Response> {
        let [first, second] = chain();
        let form = codec::encode(&*committee(1));
        vec![
            link(&first, false),
            Response::Committee(form),
            link(&second, true),
            Response::Blocks(vec![second]),
        ]
    }

    fn give(sync: &mut SnapshotSync, from: PeerId, response: Response) -> Taken {
        assert!(sync.ask(from).is_some());
        sync.take(from, response)
    }

    #[test]
    fn a_state_is_fetched_from_whoever_answers() {
        let mut sync = begun();
        let heights = [0, 1, 1, 2, 2];
        for (n, answer) in answers().into_iter().enumerate() {
            assert_eq!(sync.proven_height(), Some(heights[n]), "answer {n}");
            let taken = give(&mut sync, if n % 2 == 0 { A } else { B }, answer);
            let is_change = matches!(&taken, Taken::Change(change) if change.header.height == 1);
            assert!(
                if n == 1 { is_change } else { matches!(taken, Taken::Progress) },
                "answer {n}: {taken:?}"
            );
        }
        let mut n_pages = 0;
        let fetched = loop {
            let from = if n_pages % 2 == 0 { A } else { B };
            let Some(Request::Page { height: 2, after }) = sync.ask(from) else {
                panic!("pages are asked for")
            };
            match sync.take(from, page(after.as_deref())) {
                Taken::Progress => n_pages += 1,
                Taken::Whole(fetched) => break fetched,
                taken => panic!("{taken:?}"),
            }
        };
        assert!(n_pages > 2);
        assert!(!sync.is_running());
        assert_eq!(fetched.tree.root(), tree().root());
        assert_eq!(fetched.decided, chain()[1]);
        assert_eq!((fetched.signed_by.epoch(), fetched.committee.epoch()), (Epoch(1), Epoch(1)));
    }

    #[test]
    fn what_does_not_verify_is_its_senders_fault_and_changes_nothing() {
        let [first, second] = chain();
        let forged = |change: fn(&mut Header)| {
            let Response::Link(Some(mut it)) = link(&first, false) else { unreachable!() };
            change(&mut it.header);
            Response::Link(Some(it))
        };
        let lies = [
            vec![
                forged(|header| header.network.0[0] ^= 1),
                forged(|header| header.state_root.0[0] ^= 1),
                forged(|header| header.next_committee = None),
                link(&second, true),
                page(None),
            ],
            vec![
                Response::Committee(codec::encode(&*committee(2))),
                Response::Committee(vec![1]),
                Response::Link(None),
            ],
            vec![link(&first, false), Response::Status { height: 9 }],
            vec![Response::Blocks(vec![first.clone()]), Response::Page(None)],
            vec![
                page(Some(&[20])),
                Response::Page(Tree::default().page(None, 1)),
                Response::Blocks(Vec::new()),
            ],
        ];
        for (n, lies) in lies.into_iter().enumerate() {
            for (m, lie) in lies.into_iter().enumerate() {
                let mut sync = begun();
                for answer in answers().into_iter().take(n) {
                    give(&mut sync, A, answer);
                }
                let before = sync.proven_height();
                let taken = give(&mut sync, B, lie);
                assert!(matches!(taken, Taken::Lie(_)), "stage {n}, lie {m}: {taken:?}");
                assert_eq!(sync.proven_height(), before);
                // Whoever is honest goes on where it was.
                for answer in answers().into_iter().skip(n) {
                    let taken = give(&mut sync, A, answer);
                    assert!(matches!(taken, Taken::Progress | Taken::Change(_)), "stage {n}: {taken:?}");
                }
                assert!(matches!(give(&mut sync, A, page(None)), Taken::Progress));
            }
        }
    }

    #[test]
    fn who_lacks_what_another_has_is_not_blamed() {
        let none = [
            Response::Link(None),
            Response::Committee(Vec::new()),
            Response::Link(None),
            Response::Blocks(Vec::new()),
            Response::Page(None),
        ];
        for (n, none) in none.into_iter().enumerate() {
            for from in [A, B] {
                let mut sync = begun();
                for answer in answers().into_iter().take(n) {
                    give(&mut sync, A, answer);
                }
                let taken = give(&mut sync, from, none.clone());
                // Who said that it has the state must have it.
                let is_broken_promise = from == A && matches!(n, 1 | 3 | 4);
                let expected = if is_broken_promise { Taken::Nothing } else { Taken::Lacking };
                assert_eq!(discriminant(&taken), discriminant(&expected), "stage {n}: {taken:?}");
            }
        }
    }

    #[test]
    fn a_committee_in_parts_comes_from_one_peer() {
        let [first, _] = chain();
        let mut sync = begun();
        give(&mut sync, A, link(&first, true));
        let junk = Response::Committee(vec![7; COMMITTEE_PART_BYTES]);
        assert!(matches!(give(&mut sync, A, junk.clone()), Taken::Progress), "there may be more to come");
        assert_eq!(sync.whom(), Whom::Snapshot { height: 1, prefer: Some(A) });
        let offset = u32::try_from(COMMITTEE_PART_BYTES).unwrap();
        assert_eq!(sync.ask(A), Some(Request::Committee { height: 1, offset }));
        assert!(
            matches!(sync.take(A, Response::Committee(vec![7])), Taken::Lie(_)),
            "the end, and it is another"
        );
        // Another begins anew, whatever the first has sent.
        assert!(matches!(give(&mut sync, A, junk), Taken::Progress));
        assert_eq!(sync.ask(B), Some(Request::Committee { height: 1, offset: 0 }));
        let form = codec::encode(&*committee(1));
        assert!(matches!(sync.take(B, Response::Committee(form)), Taken::Change(_)));
        assert_eq!(sync.ask(A), Some(Request::Blocks { from: 1, n_max: 1 }));
    }

    #[test]
    fn answers_that_nobody_waits_for_change_nothing() {
        let mut sync = begun();
        let [first, _] = chain();
        assert!(matches!(sync.take(A, link(&first, false)), Taken::Stale));
        sync.ask(A);
        assert!(matches!(sync.take(B, link(&first, false)), Taken::Stale));
        assert!(!sync.stop());
        assert!(matches!(sync.take(A, link(&first, false)), Taken::Stale));
        assert_eq!(sync.whom(), Whom::Anyone);
    }
}
