//! The genesis file: what a network starts from, and what a joiner trusts.
//!
//! It names the first committee and its shards, who has credits, and what storage costs. Its hash is the [`NetworkId`], which every signature and every
//! protocol name carries, so two networks never understand each other by mistake, and a changed file is another
//! network.
//!
//! ```toml
//! version = 1
//! name = "example"
//! n_shards = 10
//!
//! [[members]]
//! name = "node-0"
//! peer = "<64 hexadecimal digits>"
//! public_key = "<96 hexadecimal digits>"
//! proof_of_possession = "<192 hexadecimal digits>"
//! addresses = ["/dns/node-0.example/tcp/7000"]
//! shards = [0, 1, 2]
//!
//! # All that follows may be left out: then nothing has a price and nobody needs credits.
//! [[accounts]]
//! account = "<64 hexadecimal digits>"
//! balance = 1000000
//!
//! [[stakes]]
//! account = "<64 hexadecimal digits>"
//! node = "<peer of a member>"
//! amount = 1000
//!
//! [parameters]
//! storage_price = 10
//! ```
//!
//! The keys of `[parameters]` are the fields of [`Parameters`]. Stakes are on top of balances.
//!
//! The ID is a hash of what the text means, not of the text: white space, comments and the order of members, of their
//! shards, of accounts and of stakes do not matter, nor whether a default is spelt out; everything else does, the order of
//! addresses included.

use bincode::Encode;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::{
    codec,
    committee::{self, Committee, CommitteeError, Member, NameError},
    ids::{AccountId, Epoch, NetworkId, PeerId},
    ledger::parameters::{CREDITS_MAX, ParameterError, Parameters},
};

/// Version of the format, in the file and in the hash.
pub const GENESIS_VERSION: u32 = 1;
/// Most bytes of a genesis file: a thousand members with every text at its longest take 5 MB.
pub const GENESIS_BYTES_MAX: usize = 8 << 20;

/// Key derivation context of the network ID: sets this hash apart from every other.
const NETWORK_ID_CONTEXT: &str = "floe/v1/genesis";

/// Why a text is not a genesis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// The text is longer than any genesis.
    #[error("genesis of {got} bytes, at most {GENESIS_BYTES_MAX} allowed")]
    TooLong {
        /// Bytes given.
        got: usize,
    },
    /// The file is of a version that this program does not know.
    #[error("genesis of version {got}, this program reads version {GENESIS_VERSION}")]
    Version {
        /// Version of the file.
        got: u32,
    },
    /// The text is not TOML, or a key is missing, unknown or of the wrong type. The text quotes the line.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// The network's name is unusable.
    #[error("the network's name cannot be used")]
    Name(#[from] NameError),
    /// The members are not a committee.
    #[error("the genesis describes no committee{}", at(.line))]
    Committee {
        /// Line on which the member at fault begins, from 1, if a single one is.
        line: Option<usize>,
        /// What is wrong with it.
        #[source]
        source: CommitteeError,
    },
    /// A parameter is out of bounds.
    #[error("the parameters cannot be used")]
    Parameters(#[from] ParameterError),
    /// An account is listed twice.
    #[error("account {account} is listed twice")]
    DuplicateAccount {
        /// The account.
        account: AccountId,
    },
    /// A stake is listed twice.
    #[error("the stake of account {account} on node {node} is listed twice")]
    DuplicateStake {
        /// The account.
        account: AccountId,
        /// The node.
        node: PeerId,
    },
    /// A stake is on a node that is no member.
    #[error("account {account} has a stake on {node}, which is no member")]
    UnknownNode {
        /// The account.
        account: AccountId,
        /// The node.
        node: PeerId,
    },
    /// A balance or a stake is zero.
    #[error("account {account} is listed with zero credits")]
    NoCredits {
        /// The account.
        account: AccountId,
    },
    /// There are more credits than can be counted.
    #[error("accounts and stakes hold {got} credits, at most {CREDITS_MAX} allowed")]
    TooManyCredits {
        /// Their sum.
        got: u128,
    },
}

fn at(line: &Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(": see the member at line {line}"))
}

/// The verified content of a genesis file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// INV: passes [`committee::check_name`].
    name: String,
    /// INV: of epoch 0.
    committee: Committee,
    /// INV: passes [`Endowment::check`].
    endowment: Endowment,
}

/// An account with credits from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisAccount {
    /// The account.
    pub account: AccountId,
    /// Its credits: at least one.
    pub balance: u64,
}

/// A stake from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisStake {
    /// The member behind which it is.
    pub node: PeerId,
    /// Whose it is.
    pub account: AccountId,
    /// Its credits: at least one.
    pub amount: u64,
}

/// Who has what from the beginning, and what storage costs. The default is nobody, and nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endowment {
    /// Accounts, each at most once.
    pub accounts: Vec<GenesisAccount>,
    /// Stakes on members, at most one of an account on each.
    pub stakes: Vec<GenesisStake>,
    /// Prices and rules.
    pub parameters: Parameters,
}

impl Endowment {
    /// Sorts accounts and stakes, and checks all against each other and the committee.
    fn check(mut self, committee: &Committee) -> Result<Self, GenesisError> {
        self.parameters.check()?;
        self.accounts.sort_unstable();
        self.stakes.sort_unstable();
        let mut pairs = self.accounts.iter().zip(self.accounts.iter().skip(1));
        if let Some((twice, _)) = pairs.find(|(a, b)| a.account == b.account) {
            return Err(GenesisError::DuplicateAccount { account: twice.account });
        }
        let mut pairs = self.stakes.iter().zip(self.stakes.iter().skip(1));
        if let Some((twice, _)) = pairs.find(|(a, b)| (a.node, a.account) == (b.node, b.account)) {
            return Err(GenesisError::DuplicateStake { account: twice.account, node: twice.node });
        }
        if let Some(stake) = self.stakes.iter().find(|stake| committee.index_of(&stake.node).is_none()) {
            return Err(GenesisError::UnknownNode { account: stake.account, node: stake.node });
        }
        let balances = self.accounts.iter().map(|account| (account.account, account.balance));
        let stakes = self.stakes.iter().map(|stake| (stake.account, stake.amount));
        let mut got = 0;
        for (account, credits) in balances.chain(stakes) {
            if credits == 0 {
                return Err(GenesisError::NoCredits { account });
            }
            got += u128::from(credits);
        }
        if got > u128::from(CREDITS_MAX) {
            return Err(GenesisError::TooManyCredits { got });
        }
        Ok(self)
    }
}

/// All that is read to tell the version: a later one may have any other keys.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// The file as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadFile {
    #[serde(rename = "version")]
    _version: u32,
    name: String,
    n_shards: u16,
    members: Vec<Spanned<Member>>,
    #[serde(default)]
    accounts: Vec<GenesisAccount>,
    #[serde(default)]
    stakes: Vec<GenesisStake>,
    #[serde(default)]
    parameters: Parameters,
}

/// The file as it is written and hashed.
#[derive(Serialize, Encode)]
struct File<'a> {
    version: u32,
    name: &'a str,
    n_shards: u16,
    members: &'a [Member],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    accounts: &'a [GenesisAccount],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stakes: &'a [GenesisStake],
    #[serde(skip_serializing_if = "is_default")]
    parameters: Parameters,
}

fn is_default(parameters: &Parameters) -> bool {
    *parameters == Parameters::default()
}

impl Genesis {
    /// Describes a network by its name and its first committee; members may come in any order. Nobody has credits and
    /// nothing has a price, until [`with_endowment`](Self::with_endowment) says otherwise.
    ///
    /// # Errors
    ///
    /// If the name is not printable or the members are not a committee of epoch 0.
    pub fn new(name: String, n_shards: u16, members: Vec<Member>) -> Result<Self, GenesisError> {
        committee::check_name(&name)?;
        let committee = Committee::new(Epoch(0), n_shards, members)
            .map_err(|source| GenesisError::Committee { line: None, source })?;
        Ok(Self { name, committee, endowment: Endowment::default() })
    }

    /// This network with other accounts, stakes and parameters, in any order.
    ///
    /// # Errors
    ///
    /// If a parameter is out of bounds, something is listed twice or with zero credits, a stake is on no member, or there
    /// are more credits than can be counted.
    pub fn with_endowment(self, endowment: Endowment) -> Result<Self, GenesisError> {
        let endowment = endowment.check(&self.committee)?;
        Ok(Self { endowment, ..self })
    }

    /// Reads and verifies the text of a genesis file.
    ///
    /// # Errors
    ///
    /// If the text is too long, of another version, not TOML of the expected keys, or does not describe a network.
    /// The error says on which line, where one line is at fault.
    pub fn parse(text: &str) -> Result<Self, GenesisError> {
        if text.len() > GENESIS_BYTES_MAX {
            return Err(GenesisError::TooLong { got: text.len() });
        }
        let VersionOnly { version } = toml::from_str(text)?;
        if version != GENESIS_VERSION {
            return Err(GenesisError::Version { got: version });
        }
        let file: ReadFile = toml::from_str(text)?;
        let starts: Vec<(String, usize)> =
            file.members.iter().map(|member| (member.get_ref().name.clone(), member.span().start)).collect();
        let members = file.members.into_iter().map(Spanned::into_inner).collect();
        let genesis = Self::new(file.name, file.n_shards, members).map_err(|error| match error {
            GenesisError::Committee { source, .. } => {
                // Of two members with one name, the later one is at fault.
                let start = starts.iter().rfind(|(name, _)| source.member() == Some(name));
                let line = start.map(|(_, start)| 1 + text[..*start].matches('\n').count());
                GenesisError::Committee { line, source }
            }
            other => other,
        })?;
        let ReadFile { accounts, stakes, parameters, .. } = file;
        genesis.with_endowment(Endowment { accounts, stakes, parameters })
    }

    /// The text of a file that parses to this genesis.
    ///
    /// # Panics
    ///
    /// Never: names, numbers that TOML holds and lists of them are TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.file()).expect("names, numbers and lists of them are TOML")
    }

    /// The network's ID: a hash of everything that this genesis says.
    #[must_use]
    pub fn network_id(&self) -> NetworkId {
        NetworkId(blake3::derive_key(NETWORK_ID_CONTEXT, &codec::encode(&self.file())))
    }

    /// What people call the network.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of shards.
    #[must_use]
    pub const fn n_shards(&self) -> u16 {
        self.committee.n_shards()
    }

    /// The committee of epoch 0.
    #[must_use]
    pub const fn committee(&self) -> &Committee {
        &self.committee
    }

    /// Who has what from the beginning, and what storage costs; accounts and stakes ascend.
    #[must_use]
    pub const fn endowment(&self) -> &Endowment {
        &self.endowment
    }

    fn file(&self) -> File<'_> {
        File {
            version: GENESIS_VERSION,
            name: &self.name,
            n_shards: self.n_shards(),
            members: self.committee.members(),
            accounts: &self.endowment.accounts,
            stakes: &self.endowment.stakes,
            parameters: self.endowment.parameters,
        }
    }
}
