//! Following the changes of the committee, from the last that is known to the newest that a peer can show.
//!
//! ```text
//! trusted chain --Change{after}--> header, certificate --verify--> Committee{height}, in parts --hash--> next chain
//! ```
//!
//! What a peer says of a change is believed once the last known committee is proven to have signed it: a step forward
//! cannot be forged, whoever shows it. So all operations of a client share it from then on.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    PeerId, codec,
    codec::DecodeError,
    committee::{CertifiedCommittee, Committee},
    hash::Hash,
    ids::Epoch,
    ledger::{
        block::{Header, committee_form_hash},
        chain::AdvanceError,
        commit::CommitCertificate,
        wire::{self, COMMITTEE_BYTES_MAX, COMMITTEE_PART_BYTES},
    },
    message::{Request, Response},
};
use swarm::{Network, Offence, PeerRole};

use super::Trusted;
use crate::{
    client::{
        Client,
        exchange::{AskError, Pulse},
        retry::Patience,
    },
    config::PeerAddress,
    exchange::decode_announcement,
};

/// Steps that one peer is asked for at a time. Each is shared once it is taken, so what is left is gone on with.
const STEPS_MAX: usize = 64;
/// Limit for decoding a committee, whose hash is certified: texts take a few times their bytes in memory.
const COMMITTEE_LIMIT: usize = 4 * COMMITTEE_BYTES_MAX;

/// After this long without word from the committee that is known, the nodes are asked that the user named: members that are
/// up have answered by then.
const BOOTSTRAP_AFTER: Duration = Duration::from_secs(1);

/// Why a peer did not show how the committee changed.
#[derive(Debug, thiserror::Error)]
pub(in crate::client) enum FollowError {
    /// There is no usable answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It knows of no change after the last one known here, or not of the committee. Nobody is at fault.
    #[error("it does not show how the committee changed")]
    Lacking,
    /// What it shows does not verify; it is at fault and was reported.
    #[error("the change of the committee that it shows does not verify")]
    Unverifiable(#[source] AdvanceError),
    /// What it shows changes nothing, or is of another committee than was certified; it is at fault and was reported.
    #[error("the change of the committee that it shows is none")]
    NoChange,
    /// What was certified cannot be read. Nobody here is at fault: update.
    #[error("the next committee cannot be read by this version of the program")]
    Form(#[source] DecodeError),
    /// This client is stopping.
    #[error("the client has stopped")]
    Stopped,
}

impl FollowError {
    /// True if only a liar gives such an answer.
    pub(super) const fn is_lie(&self) -> bool {
        match self {
            Self::Ask(error) => error.is_lie(),
            Self::Unverifiable(error) => !matches!(error, AdvanceError::Version { .. }),
            Self::NoChange => true,
            Self::Lacking | Self::Form(_) | Self::Stopped => false,
        }
    }
}

impl<N: Network> Client<N> {
    /// Takes note of what a member announced on [`Topic::Epoch`](swarm::Topic::Epoch): the block with which a stage of an epoch began. It is a hint, and
    /// believed no further than that there may be something to learn: a later committee is proven like any other. False if it is
    /// of no use to anyone, since no member says it or it is no announcement.
    ///
    /// Cancel safe: yes; what was proven by then stays known.
    pub async fn hear(&self, from: PeerId, announcement: &[u8]) -> bool {
        let trusted = self.ledger.trusted();
        let is_member = trusted.committees().any(|committee| committee.index_of(&from).is_some());
        let Ok((header, _)) = decode_announcement(announcement) else { return false };
        let epoch = Epoch(header.epoch.0.saturating_add(u32::from(header.next_committee.is_some())));
        if epoch > trusted.epoch()
            && let Err(error) = self.follow(from, epoch).await
        {
            tracing::debug!(%from, %error, "a committee that was announced cannot be followed");
        }
        is_member
    }

    /// Follows the changes of the committee that a peer shows, up to that of `wanted`. Fails only if there was no step at
    /// all.
    ///
    /// Cancel safe: yes; what was proven by then stays known.
    pub(in crate::client) async fn follow(&self, peer: PeerId, wanted: Epoch) -> Result<(), FollowError> {
        let first = self.ledger.trusted().epoch();
        for _ in 0..STEPS_MAX {
            let trusted = self.ledger.trusted();
            if trusted.epoch() >= wanted {
                break;
            }
            match self.step(peer, &trusted).await {
                Ok(next) => self.install(next),
                Err(error) => {
                    tracing::debug!(%peer, %error, "cannot follow the committee");
                    // A lie is worth telling, also behind what is true.
                    let has_moved = self.ledger.trusted().epoch() > first;
                    return if has_moved && !error.is_lie() { Ok(()) } else { Err(error) };
                }
            }
        }
        Ok(())
    }

    /// The next change of the committee.
    async fn step(&self, peer: PeerId, trusted: &Trusted) -> Result<Trusted, FollowError> {
        let after = trusted.chain().height();
        let (header, certificate) = self.change_after(peer, after).await?.ok_or(FollowError::Lacking)?;
        let refused = |error: AdvanceError| {
            if !matches!(error, AdvanceError::Version { .. }) {
                self.exchange.report_peer(peer, Offence::Unverifiable);
            }
            FollowError::Unverifiable(error)
        };
        // Before anything long is fetched.
        trusted.chain().verify(&header, &certificate).map_err(refused)?;
        let Some(required) = header.next_committee else {
            self.exchange.report_peer(peer, Offence::Unhelpful);
            return Err(FollowError::NoChange);
        };
        let committee = self.committee_at(peer, header.height, required).await?;
        let mut chain = trusted.chain().clone();
        chain.advance(&header, &certificate, Some(&committee)).map_err(refused)?;
        Ok(trusted.followed_by(chain))
    }

    async fn change_after(
        &self,
        peer: PeerId,
        after: u64,
    ) -> Result<Option<(Header, CommitCertificate)>, AskError> {
        match self.ask_ledger(peer, wire::Request::Change { after }).await? {
            wire::Response::Change(change) => Ok(change.map(|change| *change)),
            _ => Err(self.exchange.report_peer(peer, Offence::Unhelpful)),
        }
    }

    /// The committee of this hash, which the block of this height put in place.
    async fn committee_at(
        &self,
        peer: PeerId,
        height: u64,
        required: Hash,
    ) -> Result<Committee, FollowError> {
        let mut form = Vec::new();
        loop {
            let offset = u32::try_from(form.len()).expect("a committee has at most 8 MiB");
            let request = wire::Request::Committee { height, offset };
            let wire::Response::Committee(part) = self.ask_ledger(peer, request).await? else {
                return Err(self.exchange.report_peer(peer, Offence::Unhelpful).into());
            };
            if part.is_empty() && form.is_empty() {
                return Err(FollowError::Lacking);
            }
            let is_end = part.len() < COMMITTEE_PART_BYTES;
            form.extend(part);
            if committee_form_hash(&form) == required {
                break;
            }
            if is_end || form.len() >= COMMITTEE_BYTES_MAX {
                self.exchange.report_peer(peer, Offence::Unverifiable);
                return Err(FollowError::NoChange);
            }
        }
        // Keys are points of a curve, and looked at as such: some time for a thousand of them.
        let decode = move |_: &mut _| codec::decode_exact::<CertifiedCommittee, COMMITTEE_LIMIT>(&form);
        let decoded = self.encoder.run(decode).await.map_err(|_| FollowError::Stopped)?;
        Ok(decoded.map_err(FollowError::Form)?.0)
    }

    async fn ask_ledger(&self, peer: PeerId, request: wire::Request) -> Result<wire::Response, AskError> {
        let (patience, pulse) = (Patience::control(self.exchange.request_timeout()), Pulse::new());
        let question = (&Request::Ledger(request), Bytes::new());
        let (Response::Ledger, payload) =
            self.exchange.ask_peer_patiently(peer, question, patience, &pulse).await?
        else {
            return Err(self.exchange.report_peer(peer, Offence::Unhelpful));
        };
        wire::Response::decode(&payload).map_err(|_| self.exchange.report_peer(peer, Offence::Malformed))
    }

    /// Trusts a later committee: the whole client does, and knows where its members are.
    fn install(&self, next: Trusted) {
        let (epoch, next) = (next.epoch(), next);
        let known = next.clone();
        let Some(before) = self.ledger.install(next) else { return };
        tracing::info!(%epoch, members = known.current().n_members(), "another committee took over");
        self.exchange.introduce(known.current().members());
        let peers = |trusted: &Trusted| -> BTreeSet<PeerId> {
            trusted.committees().flat_map(|committee| committee.members()).map(|member| member.peer).collect()
        };
        for left in peers(&before).difference(&peers(&known)) {
            let is_named = self.config.bootstrap.iter().any(|named| named.peer == *left);
            self.exchange.dismiss(*left, if is_named { PeerRole::Bootstrap } else { PeerRole::Other });
        }
    }

    /// Returns once a later committee than this one is known, by what the nodes show that the user named; else never.
    ///
    /// Cancel safe: yes; what was proven by then stays known.
    pub(super) async fn shown_the_way(&self, trusted: &Trusted) {
        tokio::time::sleep(BOOTSTRAP_AFTER).await;
        let ask = |named: &PeerAddress| {
            let peer = named.peer;
            async move { (peer, self.follow(peer, Epoch(u32::MAX)).await) }
        };
        let mut asked: FuturesUnordered<_> = self.config.bootstrap.iter().map(ask).collect();
        while let Some((peer, result)) = asked.next().await {
            if let Err(error) = result {
                tracing::debug!(%peer, %error, "does not show the way");
            }
            if self.ledger.trusted().epoch() > trusted.epoch() {
                return;
            }
        }
        std::future::pending().await
    }
}
