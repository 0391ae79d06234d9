//! Who answers for which shard in an epoch, and where each sliver pair of a blob lives.
//!
//! A [`Committee`] is a verified type: whoever holds one knows that each shard has exactly one owner and that each
//! key was proven to be its member's own, so signatures may be added up.
//!
//! ```text
//! (blob ID, segment, sliver pair) --shard_of--> shard --owner--> node index --member--> peer, key, addresses
//! ```
//!
//! # Placement
//!
//! Pair `i` of a segment lives on shard `(i + offset) mod n`, where
//! `offset = (blob ID as a 256-bit big-endian integer + segment * p) mod n` and `p = n - 2f`.
//!
//! - Rotation by the blob ID spreads the systematic rows, pairs `0..p`, which are what readers ask for, over all
//!   shards. Source: Walrus paper, 2025, on RedStuff's assignment of sliver pairs to shards.
//! - Rotation by the segment in strides of `p` puts the systematic rows of the next segment on the shards that follow
//!   those of this one. A reader of a large blob so draws on everybody, not on the same third of the committee.
//!
//! # Invariants
//!
//! Members are sorted by peer ID, a [`NodeIndex`] is the position in that order, and a member's shards ascend. So a
//! committee has one binary form, whatever order its parts were named in.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode, de::Decoder, enc::Encoder};
use serde::{Deserialize, Serialize};

use crate::{
    bls,
    encoding::{Axis, Encoding, SegmentShape},
    ids::{BlobId, Epoch, NodeIndex, PeerId, SegmentIndex, ShardIndex, SliverPairIndex},
    quorum::{self, N_SHARDS_MAX, N_SHARDS_MIN},
};

/// Most characters of a name: it fits a column on a screen.
pub const NAME_CHARS_MAX: usize = 64;
/// Most addresses of a member: TCP and QUIC over two IP versions, a name, a relay, and as much again.
pub const ADDRESSES_MAX: usize = 12;
/// Most bytes of an address: a DNS name (253 bytes at most) with its protocols around it.
pub const ADDRESS_BYTES_MAX: usize = 320;
/// Limit for decoding a committee. The largest, [`N_SHARDS_MAX`] members with one shard each and every text at its
/// longest, takes 4.4 MB.
pub const COMMITTEE_BYTES_MAX: usize = 5 << 20;

/// One storage node of a committee, as its operator and the ledger describe it. Nothing here is verified until it is
/// part of a [`Committee`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// What people call it: 1 to [`NAME_CHARS_MAX`] printable characters. Unique in the committee.
    pub name: String,
    /// Its identity on the network. Unique in the committee.
    pub peer: PeerId,
    /// Key of its confirmations. Unique in the committee.
    pub public_key: bls::PublicKey,
    /// Proof that `peer` holds the secret half of `public_key`.
    pub proof_of_possession: bls::ProofOfPossession,
    /// Where to reach it, preferred first: at most [`ADDRESSES_MAX`], each of 1 to [`ADDRESS_BYTES_MAX`] printable
    /// ASCII characters.
    pub addresses: Vec<String>,
    /// The shards it answers for: at least one.
    pub shards: Vec<ShardIndex>,
}

/// Why a name cannot be shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no name.
    #[error("the name is empty")]
    Empty,
    /// The name is too long.
    #[error("the name has {got} characters, at most {NAME_CHARS_MAX} allowed")]
    TooLong {
        /// Characters given.
        got: usize,
    },
    /// The name holds something other than letters, digits, ASCII punctuation and inner spaces: invisible or
    /// direction-changing characters would let one node look like another.
    #[error(
        "the name holds {character:?} where only letters, digits, ASCII punctuation and inner spaces are allowed"
    )]
    Character {
        /// The first character refused.
        character: char,
    },
}

/// Checks that a name is safe to print and tell apart: 1 to [`NAME_CHARS_MAX`] letters and digits of any script, ASCII
/// punctuation, and spaces that neither begin nor end it.
///
/// # Errors
///
/// If it is not.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let got = name.chars().count();
    if got == 0 {
        return Err(NameError::Empty);
    }
    if got > NAME_CHARS_MAX {
        return Err(NameError::TooLong { got });
    }
    let refused = |c: &char| !(c.is_alphanumeric() || c.is_ascii_punctuation() || *c == ' ');
    let outer_space = || (name.trim_matches(' ') != name).then_some(' ');
    match name.chars().find(refused).or_else(outer_space) {
        Some(character) => Err(NameError::Character { character }),
        None => Ok(()),
    }
}

/// Why members do not make a committee.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitteeError {
    /// The number of shards is outside what the encoding supports.
    #[error("{got} shards, required are {N_SHARDS_MIN} to {N_SHARDS_MAX}")]
    ShardCount {
        /// Shards asked for.
        got: u16,
    },
    /// There are no members, or more than shards.
    #[error("{got} members for {n_shards} shards; each member needs at least one shard")]
    MemberCount {
        /// Members given.
        got: usize,
        /// Shards to own.
        n_shards: u16,
    },
    /// A member's name is unusable.
    #[error("the member with peer ID {peer} cannot be shown by its name")]
    Name {
        /// The member; its name is not fit to be shown.
        peer: PeerId,
        /// What is wrong with the name.
        #[source]
        source: NameError,
    },
    /// Two members have the same name.
    #[error("two members are called `{member}`")]
    DuplicateName {
        /// The name.
        member: String,
    },
    /// Two members have the same peer ID.
    #[error("members `{other}` and `{member}` have the same peer ID")]
    DuplicatePeer {
        /// The later member.
        member: String,
        /// The earlier one.
        other: String,
    },
    /// Two members have the same public key.
    #[error("members `{other}` and `{member}` have the same public key")]
    DuplicateKey {
        /// The later member.
        member: String,
        /// The earlier one.
        other: String,
    },
    /// A member has too many addresses.
    #[error("member `{member}` has {got} addresses, at most {ADDRESSES_MAX} allowed")]
    TooManyAddresses {
        /// The member.
        member: String,
        /// Addresses given.
        got: usize,
    },
    /// An address is empty, too long or not printable ASCII.
    #[error(
        "address {position} of member `{member}` is not 1 to {ADDRESS_BYTES_MAX} printable ASCII characters without spaces"
    )]
    Address {
        /// The member.
        member: String,
        /// Position of the address, from 0.
        position: usize,
    },
    /// A member answers for nothing.
    #[error("member `{member}` has no shard")]
    NoShard {
        /// The member.
        member: String,
    },
    /// A member names a shard that does not exist.
    #[error("member `{member}` has shard {shard}, but there are only {n_shards}")]
    UnknownShard {
        /// The member.
        member: String,
        /// The shard.
        shard: ShardIndex,
        /// Shards that exist.
        n_shards: u16,
    },
    /// A shard is named twice.
    #[error("shard {shard} is given to `{other}` and again to `{member}`")]
    SharedShard {
        /// The later member.
        member: String,
        /// The earlier one; the same if it names the shard twice.
        other: String,
        /// The shard.
        shard: ShardIndex,
    },
    /// A shard has no owner.
    #[error("shard {shard} has no owner")]
    UnownedShard {
        /// The first such shard.
        shard: ShardIndex,
    },
    /// A member did not prove that it holds its key: it may have copied it, or made it to cancel out another's.
    #[error("proof of possession of member `{member}` does not verify")]
    Possession {
        /// The member.
        member: String,
        /// What the check said.
        #[source]
        source: bls::VerifyError,
    },
}

impl CommitteeError {
    /// Name of the member whose description is at fault, if a single one is.
    #[must_use]
    pub fn member(&self) -> Option<&str> {
        match self {
            Self::ShardCount { .. }
            | Self::MemberCount { .. }
            | Self::Name { .. }
            | Self::UnownedShard { .. } => None,
            Self::DuplicateName { member }
            | Self::DuplicatePeer { member, .. }
            | Self::DuplicateKey { member, .. }
            | Self::TooManyAddresses { member, .. }
            | Self::Address { member, .. }
            | Self::NoShard { member }
            | Self::UnknownShard { member, .. }
            | Self::SharedShard { member, .. }
            | Self::Possession { member, .. } => Some(member),
        }
    }
}

/// The storage nodes that answer for the shards in one epoch. Verified: see the module's invariants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committee {
    epoch: Epoch,
    /// INV: `N_SHARDS_MIN..=N_SHARDS_MAX`.
    n_shards: u16,
    /// INV: sorted by peer ID; at most `n_shards`; each holds at least one shard.
    members: Vec<Member>,
    /// `[n_shards]` owner of each shard.
    owners: Vec<NodeIndex>,
}

impl Committee {
    /// Verifies that `members`, in any order, are a committee of `n_shards` shards.
    ///
    /// Costs a pairing per member (0.8 s for a thousand), after everything cheaper was checked.
    ///
    /// # Errors
    ///
    /// If a bound is exceeded, a name, peer or key is not unique, a shard has not exactly one owner, or a proof of
    /// possession does not verify.
    pub fn new(epoch: Epoch, n_shards: u16, members: Vec<Member>) -> Result<Self, CommitteeError> {
        let committee = Self::of_known(epoch, n_shards, members)?;
        committee.members.iter().try_for_each(check_possession)?;
        Ok(committee)
    }

    /// The same for members whose possession of their keys was proven before: to the ledger, when they registered as nodes. Costs
    /// no pairing.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), but that no proof of possession is looked at.
    pub fn of_known(epoch: Epoch, n_shards: u16, mut members: Vec<Member>) -> Result<Self, CommitteeError> {
        check_counts(n_shards, members.len())?;
        for member in &members {
            check_texts(member)?;
        }
        check_unique(&members)?;
        members.sort_by_key(|member| member.peer);
        for member in &mut members {
            member.shards.sort_unstable();
        }
        let owners = assign_owners(n_shards, &members)?;
        Ok(Self { epoch, n_shards, members, owners })
    }

    /// The epoch in which this committee answers for the shards.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Number of shards.
    #[must_use]
    pub const fn n_shards(&self) -> u16 {
        self.n_shards
    }

    /// Number of members.
    ///
    /// # Panics
    ///
    /// Never: there are no more members than shards.
    #[must_use]
    pub fn n_members(&self) -> u16 {
        u16::try_from(self.members.len()).expect("there are no more members than shards")
    }

    /// The members by node index.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Indices of all members, ascending.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeIndex> + use<> {
        (0..self.n_members()).map(NodeIndex)
    }

    /// The member with this index, if there is one.
    #[must_use]
    pub fn member(&self, node: NodeIndex) -> Option<&Member> {
        self.members.get(node.as_usize())
    }

    /// Index of the member with this peer ID, if it is one.
    ///
    /// # Panics
    ///
    /// Never: there are no more members than shards.
    #[must_use]
    pub fn index_of(&self, peer: &PeerId) -> Option<NodeIndex> {
        let position = self.members.binary_search_by_key(peer, |member| member.peer).ok()?;
        Some(NodeIndex(u16::try_from(position).expect("there are no more members than shards")))
    }

    /// True if the shard exists. To be asked before [`owner`](Self::owner) about a shard that a peer named.
    #[must_use]
    pub const fn has_shard(&self, shard: ShardIndex) -> bool {
        shard.0 < self.n_shards
    }

    /// The member that answers for a shard.
    ///
    /// # Panics
    ///
    /// If the shard does not exist: ask [`has_shard`](Self::has_shard) first unless it comes from
    /// [`shard_of`](Self::shard_of).
    #[must_use]
    pub fn owner(&self, shard: ShardIndex) -> NodeIndex {
        self.owners[shard.as_usize()]
    }

    /// The shards a member answers for, ascending; none if there is no such member.
    #[must_use]
    pub fn shards(&self, node: NodeIndex) -> &[ShardIndex] {
        self.member(node).map_or(&[], |member| &member.shards)
    }

    /// Number of shards a member answers for; 0 if there is no such member.
    ///
    /// # Panics
    ///
    /// Never: no member has more shards than there are.
    #[must_use]
    pub fn weight(&self, node: NodeIndex) -> u16 {
        u16::try_from(self.shards(node).len()).expect("no member has more shards than there are")
    }

    /// Number of shards these members answer for together. It is a set so that nobody counts twice.
    #[must_use]
    pub fn weight_of(&self, nodes: &BTreeSet<NodeIndex>) -> u16 {
        nodes.iter().map(|node| self.weight(*node)).sum()
    }

    /// The smallest weight that is a quorum.
    #[must_use]
    pub const fn quorum(&self) -> u16 {
        quorum::quorum(self.n_shards)
    }

    /// The smallest weight with an honest shard in it.
    #[must_use]
    pub const fn validity(&self) -> u16 {
        quorum::validity(self.n_shards)
    }

    /// True if `weight` is a quorum: any two quorums share an honest shard.
    #[must_use]
    pub fn is_quorum(&self, weight: u16) -> bool {
        quorum::is_quorum(weight, self.n_shards)
    }

    /// True if `weight` has an honest shard in it.
    #[must_use]
    pub const fn is_validity(&self, weight: u16) -> bool {
        quorum::is_validity(weight, self.n_shards)
    }

    /// [`shard_of`] in this committee.
    ///
    /// # Panics
    ///
    /// If the pair does not exist.
    #[must_use]
    pub fn shard_of(&self, blob_id: &BlobId, segment: SegmentIndex, pair: SliverPairIndex) -> ShardIndex {
        shard_of(self.n_shards, blob_id, segment, pair)
    }

    /// [`pair_of`] in this committee.
    ///
    /// # Panics
    ///
    /// If the shard does not exist.
    #[must_use]
    pub fn pair_of(&self, blob_id: &BlobId, segment: SegmentIndex, shard: ShardIndex) -> SliverPairIndex {
        pair_of(self.n_shards, blob_id, segment, shard)
    }

    /// The slivers of a segment that a member is to hold: both of the pair of each of its shards. A replicated segment
    /// it holds once, as the primary sliver of its first shard.
    ///
    /// # Panics
    ///
    /// If the shape is for another number of shards.
    pub fn slivers_of(
        &self,
        node: NodeIndex,
        (blob_id, segment): (BlobId, SegmentIndex),
        shape: SegmentShape,
    ) -> impl Iterator<Item = (SliverPairIndex, Axis)> + use<'_> {
        assert_eq!(shape.n(), self.n_shards, "the blob is encoded for this number of shards");
        let (n_shards, axes): (_, &[Axis]) = match shape.encoding() {
            Encoding::RedStuff => (usize::MAX, &[Axis::Primary, Axis::Secondary]),
            Encoding::Replicated => (1, &[Axis::Primary]),
        };
        let pairs = self.shards(node).iter().take(n_shards);
        let pairs = pairs.map(move |shard| self.pair_of(&blob_id, segment, *shard));
        pairs.flat_map(|pair| axes.iter().map(move |axis| (pair, *axis)))
    }

    /// The primary slivers of a segment that somebody holds, by index.
    ///
    /// # Panics
    ///
    /// If the shape is for another number of shards.
    #[must_use]
    pub fn primary_slivers(&self, of: (BlobId, SegmentIndex), shape: SegmentShape) -> BTreeSet<u16> {
        let held = self.nodes().flat_map(|node| self.slivers_of(node, of, shape));
        held.filter(|(_, axis)| *axis == Axis::Primary).map(|(pair, _)| pair.primary()).collect()
    }
}

impl Encode for Committee {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.epoch.encode(encoder)?;
        self.n_shards.encode(encoder)?;
        self.members.encode(encoder)
    }
}

fn refuse(error: CommitteeError) -> bincode::error::DecodeError {
    bincode::error::DecodeError::OtherString(format!("not a committee: {error}"))
}

/// Decoding verifies as [`Committee::new`] does, and refuses members or shards out of order: a committee has one form.
impl<C> Decode<C> for Committee {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, bincode::error::DecodeError> {
        let CertifiedCommittee(committee) = CertifiedCommittee::decode(decoder)?;
        committee.members.iter().try_for_each(check_possession).map_err(refuse)?;
        Ok(committee)
    }
}

bincode::impl_borrow_decode!(Committee);

/// A member as it is read. To parse its key and its proof takes a hundred times as long, so it is done once all members are read:
/// bytes that are no committee are refused for little.
#[derive(Decode)]
struct UnparsedMember {
    name: String,
    peer: PeerId,
    public_key: [u8; bls::PUBLIC_KEY_BYTES],
    proof_of_possession: [u8; bls::SIGNATURE_BYTES],
    addresses: Vec<String>,
    shards: Vec<ShardIndex>,
}

impl UnparsedMember {
    fn parse(self) -> Result<Member, bincode::error::DecodeError> {
        let Self { name, peer, public_key, proof_of_possession, addresses, shards } = self;
        let refuse = |what, error: bls::ParseError| {
            bincode::error::DecodeError::OtherString(format!("the {what} of member {peer} is {error}"))
        };
        let public_key = bls::PublicKey::from_bytes(&public_key).map_err(|error| refuse("key", error))?;
        let proof_of_possession = bls::ProofOfPossession::from_bytes(&proof_of_possession)
            .map_err(|error| refuse("proof of possession", error))?;
        Ok(Member { name, peer, public_key, proof_of_possession, addresses, shards })
    }
}

/// A committee read from a canonical form of which the hash is certified: a quorum of the committee before has executed the
/// registrations at which its members proved possession of their keys, so that is not checked again. Everything else is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedCommittee(pub Committee);

impl<C> Decode<C> for CertifiedCommittee {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, bincode::error::DecodeError> {
        let epoch = Epoch::decode(decoder)?;
        let n_shards = u16::decode(decoder)?;
        let n_members = u64::decode(decoder)?;
        check_counts(n_shards, usize::try_from(n_members).unwrap_or(usize::MAX)).map_err(refuse)?;
        let members: Vec<UnparsedMember> =
            (0..n_members).map(|_| UnparsedMember::decode(decoder)).collect::<Result<_, _>>()?;
        let shards_ascend = members.iter().all(|member| member.shards.is_sorted());
        if !shards_ascend || !members.is_sorted_by_key(|member| member.peer) {
            return Err(bincode::error::DecodeError::Other("committee out of order"));
        }
        let members = members.into_iter().map(UnparsedMember::parse).collect::<Result<_, _>>()?;
        Committee::of_known(epoch, n_shards, members).map(Self).map_err(refuse)
    }
}

bincode::impl_borrow_decode!(CertifiedCommittee);

fn check_counts(n_shards: u16, n_members: usize) -> Result<(), CommitteeError> {
    if !(N_SHARDS_MIN..=N_SHARDS_MAX).contains(&n_shards) {
        return Err(CommitteeError::ShardCount { got: n_shards });
    }
    if n_members == 0 || n_members > usize::from(n_shards) {
        return Err(CommitteeError::MemberCount { got: n_members, n_shards });
    }
    Ok(())
}

pub(crate) fn check_texts(member: &Member) -> Result<(), CommitteeError> {
    check_name(&member.name).map_err(|source| CommitteeError::Name { peer: member.peer, source })?;
    let got = member.addresses.len();
    if got > ADDRESSES_MAX {
        return Err(CommitteeError::TooManyAddresses { member: member.name.clone(), got });
    }
    let refused = |address: &String| {
        address.is_empty()
            || address.len() > ADDRESS_BYTES_MAX
            || !address.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match member.addresses.iter().position(refused) {
        Some(position) => Err(CommitteeError::Address { member: member.name.clone(), position }),
        None => Ok(()),
    }
}

/// Checks that a member holds its key. Costs a pairing.
pub(crate) fn check_possession(member: &Member) -> Result<(), CommitteeError> {
    let Member { name, peer, public_key, proof_of_possession, .. } = member;
    proof_of_possession
        .verify(public_key, peer)
        .map_err(|source| CommitteeError::Possession { member: name.clone(), source })
}

fn check_unique(members: &[Member]) -> Result<(), CommitteeError> {
    let mut names = BTreeSet::new();
    let mut peers = BTreeMap::new();
    let mut keys = BTreeMap::new();
    for Member { name, peer, public_key, .. } in members {
        let member = || name.clone();
        if !names.insert(name) {
            return Err(CommitteeError::DuplicateName { member: member() });
        }
        if let Some(other) = peers.insert(peer, name) {
            return Err(CommitteeError::DuplicatePeer { member: member(), other: other.clone() });
        }
        if let Some(other) = keys.insert(public_key.to_bytes(), name) {
            return Err(CommitteeError::DuplicateKey { member: member(), other: other.clone() });
        }
    }
    Ok(())
}

/// Returns the owner of each shard of `0..n_shards`.
fn assign_owners(n_shards: u16, members: &[Member]) -> Result<Vec<NodeIndex>, CommitteeError> {
    let mut owners: Vec<Option<NodeIndex>> = vec![None; usize::from(n_shards)];
    for (node, member) in (0..).map(NodeIndex).zip(members) {
        let name = || member.name.clone();
        if member.shards.is_empty() {
            return Err(CommitteeError::NoShard { member: name() });
        }
        for &shard in &member.shards {
            let slot = owners.get_mut(shard.as_usize()).ok_or_else(|| CommitteeError::UnknownShard {
                member: name(),
                shard,
                n_shards,
            })?;
            if let Some(other) = slot.replace(node) {
                let other = members[other.as_usize()].name.clone();
                return Err(CommitteeError::SharedShard { member: name(), other, shard });
            }
        }
    }
    (0..)
        .map(ShardIndex)
        .zip(owners)
        .map(|(shard, owner)| owner.ok_or(CommitteeError::UnownedShard { shard }))
        .collect()
}

/// The shard that holds a sliver pair of a segment, with `n_shards` shards. See the module for the formula.
///
/// # Panics
///
/// If the pair does not exist.
#[must_use]
pub fn shard_of(n_shards: u16, blob_id: &BlobId, segment: SegmentIndex, pair: SliverPairIndex) -> ShardIndex {
    assert!(pair.0 < n_shards, "sliver pair {pair} of {n_shards}");
    ShardIndex(rotate(n_shards, pair.0, placement_offset(n_shards, blob_id, segment)))
}

/// The sliver pair of a segment that a shard holds, with `n_shards` shards: the inverse of [`shard_of`].
///
/// # Panics
///
/// If the shard does not exist.
#[must_use]
pub fn pair_of(n_shards: u16, blob_id: &BlobId, segment: SegmentIndex, shard: ShardIndex) -> SliverPairIndex {
    assert!(shard.0 < n_shards, "shard {shard} of {n_shards}");
    SliverPairIndex(rotate(n_shards, shard.0, n_shards - placement_offset(n_shards, blob_id, segment)))
}

/// `(index + offset) mod n`.
fn rotate(n_shards: u16, index: u16, offset: u16) -> u16 {
    let rotated = (u32::from(index) + u32::from(offset)) % u32::from(n_shards);
    u16::try_from(rotated).expect("a rest is below the number of shards")
}

/// `(blob ID + segment * p) mod n`.
fn placement_offset(n_shards: u16, blob_id: &BlobId, segment: SegmentIndex) -> u16 {
    let n = u64::from(n_shards);
    let blob = blob_id.as_bytes().iter().fold(0, |rest, byte| (rest * 256 + u64::from(*byte)) % n);
    let stride = u64::from(n_shards - 2 * quorum::max_faulty(n_shards));
    let offset = (blob + u64::from(segment.0) * stride) % n;
    u16::try_from(offset).expect("a rest is below the number of shards")
}

/// Spreads shards `0..n_shards` over `n_members` members in runs that differ by at most one, longer ones first.
///
/// A pure function of its arguments. With more members than shards the last ones get none.
///
/// # Panics
///
/// If there is no member.
#[must_use]
pub fn spread(n_shards: u16, n_members: u16) -> Vec<Vec<ShardIndex>> {
    assert!(n_members > 0, "shards are spread over at least one member");
    let (share, longer) = (n_shards / n_members, n_shards % n_members);
    let mut shards = (0..n_shards).map(ShardIndex);
    (0..n_members)
        .map(|member| shards.by_ref().take(usize::from(share + u16::from(member < longer))).collect())
        .collect()
}
