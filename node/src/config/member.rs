//! The file by which a node applies for a committee.

use std::path::Path;

use protocol::{
    PeerId, ShardIndex, bls,
    committee::{self, Member},
};
use serde::{Deserialize, Serialize};
use swarm::Address;

use super::{ConfigError, file};
use crate::keys::NodeKeys;

/// `member.toml`: what a network's founder needs to know of a node. All of it is public.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberFile {
    /// What people call the node.
    #[serde(deserialize_with = "super::rules::name")]
    pub name: String,
    /// Its identity on the network.
    pub peer: PeerId,
    /// Key of its confirmations.
    pub public_key: bls::PublicKey,
    /// Proof that the node holds the secret half of `public_key`.
    pub proof_of_possession: bls::ProofOfPossession,
    /// Where to reach it, preferred first.
    pub addresses: Vec<Address>,
}

impl MemberFile {
    /// Name of the file in a node's directory.
    pub const NAME: &'static str = "member.toml";

    /// Describes a node by its keys.
    ///
    /// # Panics
    ///
    /// If the name is not fit to be shown: see [`committee::check_name`].
    #[must_use]
    pub fn new(name: String, keys: &NodeKeys, addresses: Vec<Address>) -> Self {
        assert_eq!(committee::check_name(&name), Ok(()), "the name of a node");
        Self {
            name,
            peer: keys.peer(),
            public_key: keys.bls().public_key(),
            proof_of_possession: keys.bls().prove_possession(&keys.peer()),
            addresses,
        }
    }

    /// Reads a file. Whether the proof holds is found when the member joins a committee.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        file::parse(path, &file::read(path)?)
    }

    /// The text of the file.
    ///
    /// # Panics
    ///
    /// Never: texts and lists of them are TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("texts and lists of them are TOML")
    }

    /// The member that answers for these shards.
    #[must_use]
    pub fn with_shards(self, shards: Vec<ShardIndex>) -> Member {
        Member {
            name: self.name,
            peer: self.peer,
            public_key: self.public_key,
            proof_of_possession: self.proof_of_possession,
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            shards,
        }
    }
}
