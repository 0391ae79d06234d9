//! `floe node register`: makes the node of a directory one that can be staked on and selected.
//!
//! The node signs with its own key, so that nobody takes its name on the network; the wallet's account becomes its
//! operator, who decides for it from then on.

use std::path::{Path, PathBuf};

use clap::value_parser;
use protocol::{
    AccountId, PeerId,
    ledger::{
        parameters::{BASIS_POINTS, CREDITS_MAX, Parameters},
        signature::SigningKey,
        state::{
            entry::{Account, Node, NodeStatus},
            key,
        },
        transaction::{Action, NodeDescription},
    },
};
use serde::Serialize;
use swarm::Network;

use super::{super::standing, stake_warning};
use crate::{
    cli::{Connection, Exit, Failure, Output, output::note, shown, wallet::Wallet},
    client::{Client, LedgerError, Submitted},
    config::NodeConfig,
    keys::{AccountKey, NodeKeys},
};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The node's directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    wallet: Wallet,
    /// Bytes of encoded size that the node stores; 0 says nothing [default: what was said before, or nothing]
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u64).range(..=CREDITS_MAX))]
    capacity: Option<u64>,
    /// Basis points of the node's rewards that are the operator's before stakes share the rest [default: as before, or 0]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(..=i64::from(BASIS_POINTS)))]
    commission_bp: Option<u16>,
}

/// What is to be true of a node.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The node.
    pub node: PeerId,
    /// What it says of itself. Its operator is who decides for it from then on.
    pub description: NodeDescription,
    /// As in the description; `None` keeps what the ledger has.
    pub capacity_bytes: Option<u64>,
    /// As in the description; `None` keeps what the ledger has.
    pub commission_bp: Option<u16>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is registered now, or again after it had left.
    Registered,
    /// It was registered, and is described differently now.
    Updated,
    /// It was registered, and is described so.
    Unchanged,
}

/// A node that is registered.
#[derive(Clone, Debug)]
pub struct Registered {
    /// What was done.
    pub outcome: Outcome,
    /// The transaction, if there was anything to do.
    pub submitted: Option<Submitted>,
    /// Credits behind the node.
    pub stake: u64,
    /// The rules.
    pub parameters: Parameters,
}

#[derive(Debug, Serialize)]
struct Document {
    outcome: Outcome,
    name: String,
    node: PeerId,
    operator: AccountId,
    /// A block behind which it is proven to be executed; null if there was nothing to do.
    height: Option<u64>,
    stake: u64,
    /// Stake with which it can be selected.
    min_stake: u64,
}

/// What the ledger says, as far as it matters here.
#[derive(Clone, Debug)]
struct Facts {
    known: Option<Node>,
    /// Who has the name, and the BLS key.
    named: Option<PeerId>,
    keyed: Option<PeerId>,
    parameters: Parameters,
    /// The account of the node's own key.
    account: Account,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// By the node.
    Register(Box<NodeDescription>),
    /// By the operator it has, which is the node itself if it is of the genesis.
    Update {
        by_node: bool,
        description: Box<NodeDescription>,
    },
}

pub(super) async fn execute(network: Option<&Path>, args: Args, output: Output) -> Result<(), Failure> {
    let Args { dir, wallet, capacity, commission_bp } = args;
    let config = NodeConfig::load(&dir)?;
    let keys = NodeKeys::load(&dir)?;
    let (wallet, _) = wallet.load(network)?;
    let mut wanted = wanted(&config, &keys, wallet.account());
    (wanted.capacity_bytes, wanted.commission_bp) = (capacity, commission_bp);
    if wanted.description.addresses.is_empty() {
        let what = format!("no address is known under which others can reach {}", config.name);
        return Err(Failure::new(Exit::Usage, what)
            .hint(format!("say network.external in {}", shown(&dir.join(crate::config::CONFIG_FILE)))));
    }
    let connection = Connection::of_node(&config).await?;
    let result = register_node(connection.client(), &wanted, (&keys, &wallet)).await;
    connection.close().await;
    let Registered { outcome, submitted, stake, parameters } = result?;
    let Wanted { node, description, .. } = wanted;
    let document = Document {
        outcome,
        name: description.name,
        node,
        operator: description.operator,
        height: submitted.map(|submitted| submitted.height),
        stake,
        min_stake: parameters.min_stake,
    };
    output.data(&document, text(&document))?;
    if let Some(warning) = stake_warning(&node, stake, &parameters) {
        note(format_args!("warning: {warning}"));
    }
    Ok(())
}

fn text(document: &Document) -> String {
    let Document { outcome, name, node, operator, height, .. } = document;
    let did = match outcome {
        Outcome::Registered => "is registered",
        Outcome::Updated => "is described anew, from the next committee on",
        Outcome::Unchanged => "was registered already, and nothing about it has changed",
    };
    let at = height.map_or_else(String::new, |height| format!(" (done at height {height})"));
    format!("{name} {did}{at}\nnode      {node}\noperator  {operator}")
}

/// What a node's files say of it.
#[must_use]
pub fn wanted(config: &NodeConfig, keys: &NodeKeys, operator: AccountId) -> Wanted {
    let node = keys.peer();
    let description = NodeDescription {
        name: config.name.clone(),
        public_key: keys.bls().public_key(),
        proof_of_possession: keys.bls().prove_possession(&node),
        addresses: config.network.announced().iter().map(ToString::to_string).collect(),
        operator,
        commission_bp: 0,
        capacity_bytes: 0,
    };
    Wanted { node, description, capacity_bytes: None, commission_bp: None }
}

/// Registers a node, or updates what is said about it, if there is anything to do. What the node's own account has to pay
/// is sent to it from the wallet.
///
/// Cancel safe: what was sent may be executed.
///
/// # Errors
///
/// If the node cannot be registered so, or is not known to be.
pub async fn register_node<N: Network>(
    client: &Client<N>,
    wanted: &Wanted,
    (keys, wallet): (&NodeKeys, &AccountKey),
) -> Result<Registered, Failure> {
    let what = || format!("cannot register {}", wanted.description.name);
    let facts = Facts::read(client, wanted).await.map_err(|error| Failure::ledger(what(), &error))?;
    let stake = facts.known.as_ref().map_or(0, |node| node.stake.credits);
    let parameters = facts.parameters;
    let done = |outcome, submitted| Registered { outcome, submitted, stake, parameters };
    let step = decide(&facts, wanted)?;
    let (outcome, by_node, action) = match step {
        Step::Nothing => return Ok(done(Outcome::Unchanged, None)),
        Step::Register(description) => (Outcome::Registered, true, Action::RegisterNode { description }),
        Step::Update { by_node, description } => {
            (Outcome::Updated, by_node, Action::UpdateNode { node: wanted.node, description })
        }
    };
    let failed = |error| Failure::submit(what(), &error);
    let key = if by_node {
        let missing = facts.parameters.transaction_fee.saturating_sub(facts.account.balance);
        if missing > 0 {
            note(format_args!("sending {missing} credits to the node's own account, for the fee"));
            let action = Action::Transfer { to: wanted.node.into(), amount: missing };
            client.submit(action, wallet.signing()).await.map_err(failed)?;
        }
        &SigningKey::from_secret(keys.peer_key().secret_bytes())
    } else {
        wallet.signing()
    };
    let submitted = client.submit(action, key).await.map_err(failed)?;
    Ok(done(outcome, Some(submitted)))
}

impl Facts {
    async fn read<N: Network>(client: &Client<N>, wanted: &Wanted) -> Result<Self, LedgerError> {
        let Wanted { node, description, .. } = wanted;
        let keys = [
            key::parameters(),
            key::node(node),
            key::node_named(&description.name),
            key::node_with_key(&description.public_key),
            key::account(&(*node).into()),
        ];
        let values = client.ledger_entries(&keys).await?.value;
        let [parameters, known, named, keyed, account] =
            [0, 1, 2, 3, 4].map(|index: usize| values.get(index).and_then(Option::as_deref));
        Ok(Self {
            parameters: standing::required("the parameters", parameters)?,
            known: optional("a node", known)?,
            named: optional("a name", named)?,
            keyed: optional("a key", keyed)?,
            account: optional("an account", account)?.unwrap_or_default(),
        })
    }
}

fn optional<T: bincode::Decode<()>>(
    what: &'static str,
    value: Option<&[u8]>,
) -> Result<Option<T>, LedgerError> {
    value.map(standing::decode).transpose().map_err(|source| LedgerError::Form { what, source })
}

/// What there is to do, or why it cannot be.
fn decide(facts: &Facts, wanted: &Wanted) -> Result<Step, Failure> {
    let Wanted { node, description, capacity_bytes, commission_bp } = wanted;
    let refuse =
        |exit, why: String| Failure::new(exit, format!("cannot register {}: {why}", description.name));
    if let Some(other) = facts.named.filter(|other| other != node) {
        return Err(refuse(Exit::Usage, format!("node {other} has this name"))
            .hint("names are taken once and for all: say another in config.toml"));
    }
    if let Some(other) = facts.keyed.filter(|other| other != node) {
        return Err(refuse(Exit::Usage, format!("node {other} has its BLS key"))
            .hint("keys are of one node each: make another directory with `node init`"));
    }
    let mut description = Box::new(description.clone());
    let said = facts.known.as_ref().map(|known| &known.description);
    description.capacity_bytes = capacity_bytes.or(said.map(|said| said.capacity_bytes)).unwrap_or(0);
    description.commission_bp = commission_bp.or(said.map(|said| said.commission_bp)).unwrap_or(0);
    let Some(known) = &facts.known else { return Ok(Step::Register(description)) };
    let operator = known.description.operator;
    // Nodes of the genesis decide for themselves, until they name somebody.
    let by_node = operator == AccountId::from(*node);
    if known.status == NodeStatus::Ejected {
        return Err(refuse(Exit::Other, "it was ejected for equivocation, for good".to_owned())
            .hint("make another directory with `node init`, and find out why two nodes had its keys"));
    }
    if operator != description.operator && !by_node {
        let account = description.operator;
        return Err(refuse(Exit::Usage, format!("its operator is {operator}, the wallet is {account}'s"))
            .hint("name the operator's wallet with --wallet"));
    }
    match known.status {
        // Whoever registers it again is not its operator by that.
        NodeStatus::Leaving => Ok(Step::Register(Box::new(NodeDescription { operator, ..*description }))),
        _ if known.description == *description => Ok(Step::Nothing),
        _ => Ok(Step::Update { by_node, description }),
    }
}

#[cfg(test)]
mod tests {
    use protocol::ledger::state::entry::Pool;

    use super::*;

    const OPERATOR: AccountId = AccountId([9; 32]);

    fn wanted() -> Wanted {
        let keys = NodeKeys::generate().unwrap();
        let config = NodeConfig { name: "alpha".to_owned(), ..NodeConfig::default() };
        super::wanted(&config, &keys, OPERATOR)
    }

    fn facts(wanted: &Wanted, known: Option<NodeStatus>) -> Facts {
        let known = known.map(|status| Node {
            description: wanted.description.clone(),
            status,
            stake: Pool::default(),
            ballot: None,
            commission_bp: 0,
        });
        let owner = known.as_ref().map(|_| wanted.node);
        let (parameters, account) = (Parameters::default(), Account::default());
        Facts { known, named: owner, keyed: owner, parameters, account }
    }

    fn refusal(facts: &Facts, wanted: &Wanted) -> String {
        decide(facts, wanted).unwrap_err().to_string()
    }

    #[test]
    fn a_stranger_is_registered_once() {
        let wanted = wanted();
        let step = decide(&facts(&wanted, None), &wanted).unwrap();
        assert_eq!(step, Step::Register(Box::new(wanted.description.clone())));
        let again = decide(&facts(&wanted, Some(NodeStatus::Active)), &wanted).unwrap();
        assert_eq!(again, Step::Nothing);
        let back = decide(&facts(&wanted, Some(NodeStatus::Leaving)), &wanted).unwrap();
        assert_eq!(back, Step::Register(Box::new(wanted.description)));
    }

    #[test]
    fn what_changed_is_updated_and_what_is_not_said_stays() {
        let mut wanted = wanted();
        let mut facts = facts(&wanted, Some(NodeStatus::Active));
        let known = facts.known.as_mut().unwrap();
        (known.description.capacity_bytes, known.description.commission_bp) = (5, 6);
        assert_eq!(decide(&facts, &wanted).unwrap(), Step::Nothing);
        wanted.commission_bp = Some(7);
        let Step::Update { by_node, description } = decide(&facts, &wanted).unwrap() else {
            panic!("no update")
        };
        assert_eq!((by_node, description.capacity_bytes, description.commission_bp), (false, 5, 7));
        wanted.commission_bp = None;
        wanted.description.addresses = vec!["/ip4/127.0.0.1/tcp/9".to_owned()];
        assert!(matches!(decide(&facts, &wanted).unwrap(), Step::Update { by_node: false, .. }));
    }

    #[test]
    fn a_node_of_the_genesis_names_its_operator_itself() {
        let wanted = wanted();
        let mut facts = facts(&wanted, Some(NodeStatus::Active));
        facts.known.as_mut().unwrap().description.operator = wanted.node.into();
        let Step::Update { by_node, description } = decide(&facts, &wanted).unwrap() else {
            panic!("no update")
        };
        assert_eq!((by_node, description.operator), (true, OPERATOR));
        // To come back, it first has to be what it was.
        facts.known.as_mut().unwrap().status = NodeStatus::Leaving;
        let Step::Register(description) = decide(&facts, &wanted).unwrap() else { panic!("not registered") };
        assert_eq!(description.operator, AccountId::from(wanted.node));
    }

    #[test]
    fn what_cannot_be_is_refused_with_whose_fault_it_is() {
        let wanted = wanted();
        let other = PeerId([3; 32]);
        let taken = Facts { named: Some(other), ..facts(&wanted, None) };
        assert!(
            refusal(&taken, &wanted).contains(&format!("cannot register alpha: node {other} has this name"))
        );
        let taken = Facts { keyed: Some(other), ..facts(&wanted, None) };
        assert!(refusal(&taken, &wanted).contains("has its BLS key"));
        assert!(refusal(&facts(&wanted, Some(NodeStatus::Ejected)), &wanted).contains("ejected"));
        for status in [NodeStatus::Active, NodeStatus::Leaving] {
            let mut facts = facts(&wanted, Some(status));
            facts.known.as_mut().unwrap().description.operator = AccountId([4; 32]);
            let refusal = refusal(&facts, &wanted);
            assert!(refusal.contains("its operator is 0404") && refusal.contains("--wallet"), "{refusal}");
            assert!(!refusal.contains('\n'));
        }
    }
}
