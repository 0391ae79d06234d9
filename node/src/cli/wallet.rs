//! `floe wallet`, `floe stake`, `floe unstake`: an account, and what its key signs.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use clap::{Args as ClapArgs, Subcommand, value_parser};
use protocol::{
    AccountId, PeerId,
    ledger::{
        parameters::CREDITS_MAX,
        state::entry::Account,
        transaction::{Action, TransactionId},
    },
};
use serde::Serialize;

use super::{Connection, Exit, Failure, Output, network_file, output, shown};
use crate::{
    client::Submitted,
    config::ClientFile,
    keys::{AccountKey, KeyError},
};

/// Names the wallet where `--wallet` does not.
pub const WALLET_VARIABLE: &str = "FLOE_WALLET";
/// The wallet in the user's directory that is used where nothing names one.
const DEFAULT: [&str; 2] = [".floe", "wallet.key"];

/// Which wallet.
#[derive(Debug, ClapArgs)]
pub(super) struct Wallet {
    /// The wallet: a file that `floe wallet new` made [default: $FLOE_WALLET, the one in client.toml, or ~/.floe/wallet.key]
    #[arg(long, value_name = "FILE")]
    wallet: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the key of a new account, and print the account
    New {
        /// The file to write, which must not exist yet [default: $FLOE_WALLET, or ~/.floe/wallet.key]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print the account of a wallet
    Address {
        #[command(flatten)]
        wallet: Wallet,
    },
    /// Print the credits of an account
    Balance {
        #[command(flatten)]
        wallet: Wallet,
        /// The account [default: that of the wallet]
        #[arg(long, value_name = "ACCOUNT", conflicts_with = "wallet")]
        account: Option<AccountId>,
    },
    /// Give credits to another account
    Send {
        #[command(flatten)]
        wallet: Wallet,
        /// Who gets them
        #[arg(long, value_name = "ACCOUNT")]
        to: AccountId,
        /// How many
        #[arg(long, value_name = "CREDITS", value_parser = value_parser!(u64).range(1..=CREDITS_MAX))]
        amount: u64,
    },
}

/// Arguments of `floe stake`.
#[derive(Debug, ClapArgs)]
pub(super) struct Stake {
    #[command(flatten)]
    wallet: Wallet,
    /// The node, by its identity
    #[arg(long, value_name = "PEER")]
    node: PeerId,
    /// How many credits
    #[arg(long, value_name = "CREDITS", value_parser = value_parser!(u64).range(1..=CREDITS_MAX))]
    amount: u64,
}

/// Arguments of `floe unstake`.
#[derive(Debug, ClapArgs)]
pub(super) struct Unstake {
    #[command(flatten)]
    wallet: Wallet,
    /// The node, by its identity
    #[arg(long, value_name = "PEER")]
    node: PeerId,
    /// How many credits [default: all]
    #[arg(long, value_name = "CREDITS", value_parser = value_parser!(u64).range(1..=CREDITS_MAX))]
    amount: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Address {
    account: AccountId,
    file: String,
}

#[derive(Debug, Serialize)]
struct Balance {
    account: AccountId,
    balance: u64,
    /// Number of the account's transactions so far.
    nonce: u64,
    /// The last of them.
    last: Option<String>,
    /// The block behind which it is so.
    height: u64,
}

/// What is printed of a transaction that was executed.
#[derive(Debug, Serialize)]
struct Document {
    transaction: String,
    account: AccountId,
    nonce: u64,
    /// A block behind which it is proven to be executed.
    height: u64,
}

impl Wallet {
    /// Reads the wallet that is named, by whatever names it, or the one in the user's directory.
    pub(super) fn load(&self, network: Option<&Path>) -> Result<(AccountKey, PathBuf), Failure> {
        let path = match self.named(network) {
            Some(path) => path,
            None => default_file()?,
        };
        let key = load_key(&path)?;
        Ok((key, path))
    }

    /// Reads the wallet, and makes the one in the user's directory if none is named: where storage is free of charge, there
    /// is nothing else to do before storing.
    pub(super) fn load_or_create(&self, network: Option<&Path>) -> Result<AccountKey, Failure> {
        if let Some(path) = self.named(network) {
            return load_key(&path);
        }
        let path = default_file()?;
        if path.try_exists().unwrap_or(true) {
            return load_key(&path);
        }
        let key = create_default(&path)?;
        output::note(format_args!("made a wallet, {}, for account {}", shown(&path), key.account()));
        Ok(key)
    }

    fn named(&self, network: Option<&Path>) -> Option<PathBuf> {
        // What is wrong with the file is said by whoever needs the network.
        let of_network = || ClientFile::load(&network_file(network).ok()?).ok()?.wallet;
        named(self.wallet.as_deref()).or_else(of_network)
    }
}

/// Makes the wallet in the user's directory. Nobody named it, so nobody made its directory.
fn create_default(path: &Path) -> Result<AccountKey, Failure> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| Failure::io(format!("cannot create {}", shown(dir)), &error))?;
    create(path)
}

fn create(path: &Path) -> Result<AccountKey, Failure> {
    AccountKey::create(path).map_err(|error| match error {
        KeyError::Exists { .. } => Failure::from(error).hint("choose another file with --out"),
        error => error.into(),
    })
}

/// Reads the key of an account.
///
/// # Errors
///
/// If the file holds none, or others may read it.
pub fn load_key(path: &Path) -> Result<AccountKey, Failure> {
    AccountKey::load(path).map_err(|error| {
        let is_missing =
            matches!(&error, KeyError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
        let failure = Failure::from(error);
        if is_missing {
            failure.hint("make a wallet with: floe wallet new, or name one with --wallet")
        } else {
            failure
        }
    })
}

fn named(option: Option<&Path>) -> Option<PathBuf> {
    let variable = || std::env::var_os(WALLET_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    option.map(Path::to_owned).or_else(variable)
}

fn default_file() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).ok_or_else(|| {
        Failure::new(Exit::Usage, "no wallet is named, and there is no home directory")
            .hint(format!("give --wallet FILE or set {WALLET_VARIABLE}"))
    })?;
    Ok(PathBuf::from(home).join(DEFAULT[0]).join(DEFAULT[1]))
}

/// Runs a command that needs no network.
pub(super) fn execute_offline(
    network: Option<&Path>,
    command: &Command,
    output: Output,
) -> Option<Result<(), Failure>> {
    match command {
        Command::New { out } => Some(new(out.as_deref(), output)),
        Command::Address { wallet } => Some(address(network, wallet, output)),
        Command::Balance { .. } | Command::Send { .. } => None,
    }
}

pub(super) async fn execute(network: Option<&Path>, command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Balance { account: Some(account), .. } => balance(network, account, output).await,
        Command::Balance { wallet, account: None } => {
            balance(network, wallet.load(network)?.0.account(), output).await
        }
        Command::Send { wallet, to, amount } => {
            let what = format!("cannot send {amount} credits to {to}");
            act(network, &wallet, (&what, Action::Transfer { to, amount }), output).await
        }
        Command::New { .. } | Command::Address { .. } => Ok(()),
    }
}

pub(super) async fn stake(network: Option<&Path>, args: Stake, output: Output) -> Result<(), Failure> {
    let Stake { wallet, node, amount } = args;
    let what = format!("cannot stake {amount} credits on node {node}");
    act(network, &wallet, (&what, Action::Stake { node, amount }), output).await
}

pub(super) async fn unstake(network: Option<&Path>, args: Unstake, output: Output) -> Result<(), Failure> {
    let Unstake { wallet, node, amount } = args;
    let credits = amount.map_or_else(|| "the stake".to_owned(), |amount| format!("{amount} credits"));
    let what = format!("cannot take {credits} from node {node}");
    act(network, &wallet, (&what, Action::Unstake { node, amount }), output).await
}

fn new(out: Option<&Path>, output: Output) -> Result<(), Failure> {
    let (path, key) = match named(out) {
        Some(path) => (path.clone(), create(&path)?),
        None => {
            let path = default_file()?;
            (path.clone(), create_default(&path)?)
        }
    };
    let account = key.account();
    output.data(&Address { account, file: shown(&path) }, account)
}

/// As the name of a transaction is written.
fn shown_id(id: TransactionId) -> String {
    hex::encode(id.0.0)
}

fn address(network: Option<&Path>, wallet: &Wallet, output: Output) -> Result<(), Failure> {
    let (key, path) = wallet.load(network)?;
    let account = key.account();
    output.data(&Address { account, file: shown(&path) }, account)
}

async fn balance(network: Option<&Path>, account: AccountId, output: Output) -> Result<(), Failure> {
    let connection = Connection::open(&network_file(network)?).await?;
    let proven = connection.client().ledger_account(&account).await;
    connection.close().await;
    let what = format!("the balance of {account} is not known");
    let proven = proven.map_err(|error| Failure::ledger(what, &error))?;
    let Account { balance, nonce, last } = proven.value;
    let last = last.map(shown_id);
    output.data(&Balance { account, balance, nonce, last, height: proven.height }, balance)
}

/// Has an action executed for the account of a wallet.
pub(super) async fn act(
    network: Option<&Path>,
    wallet: &Wallet,
    (what, action): (&str, Action),
    output: Output,
) -> Result<(), Failure> {
    let (key, _) = wallet.load(network)?;
    let connection = Connection::open(&network_file(network)?).await?;
    let result = submit(&connection, &key, (what, action), output).await;
    connection.close().await;
    result
}

/// Has an action executed, and prints what became of it; `what` begins the failure's text.
///
/// # Errors
///
/// If it was not executed, or is not known to be.
pub async fn submit(
    connection: &Connection,
    key: &AccountKey,
    (what, action): (&str, Action),
    output: Output,
) -> Result<(), Failure> {
    let result = connection.client().submit(action, key.signing()).await;
    let Submitted { id, nonce, height } = result.map_err(|error| Failure::submit(what, &error))?;
    let document = Document { transaction: shown_id(id), account: key.account(), nonce, height };
    output.data(&document, format!("done at height {height}"))
}
