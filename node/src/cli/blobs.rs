//! `floe list`, `floe extend`, `floe delete`: what one has stored, and what becomes of it.

use std::path::Path;

use clap::{Args as ClapArgs, value_parser};
use protocol::{
    AccountId, BlobId, Epoch, certificate::Persistence, ledger::state::entry::Registration,
    ledger::transaction::Action,
};
use serde::Serialize;

use super::{Connection, Failure, Output, network_file, output::Table, wallet};

/// Arguments of `floe list`.
#[derive(Debug, ClapArgs)]
pub(super) struct List {
    #[command(flatten)]
    wallet: wallet::Wallet,
    /// The account [default: that of the wallet]
    #[arg(long, value_name = "ACCOUNT", conflicts_with = "wallet")]
    account: Option<AccountId>,
    /// The most blobs to list
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    limit: usize,
}

/// Arguments of `floe extend`.
#[derive(Debug, ClapArgs)]
pub(super) struct Extend {
    #[command(flatten)]
    wallet: wallet::Wallet,
    /// The blob
    #[arg(value_name = "BLOB_ID", allow_hyphen_values = true)]
    blob_id: BlobId,
    /// For how many epochs from now, the current one included
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    epochs: u32,
}

/// Arguments of `floe delete`.
#[derive(Debug, ClapArgs)]
pub(super) struct Delete {
    #[command(flatten)]
    wallet: wallet::Wallet,
    /// The blob
    #[arg(value_name = "BLOB_ID", allow_hyphen_values = true)]
    blob_id: BlobId,
}

/// What is printed of the blobs of an account.
#[derive(Debug, Serialize)]
struct Listing {
    account: AccountId,
    /// Height of the ledger behind which it is so.
    height: u64,
    blobs: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    blob_id: String,
    persistence: Persistence,
    /// The epoch in which it was registered.
    registered: u32,
    /// The first epoch in which it is no longer stored.
    end_epoch: u32,
    /// Height of the block that certified it; none if that has not happened yet.
    certified_at: Option<u64>,
}

impl From<(BlobId, Registration)> for Line {
    fn from((blob_id, registration): (BlobId, Registration)) -> Self {
        let Registration { persistence, registered, end, certified, .. } = registration;
        Self {
            blob_id: blob_id.to_string(),
            persistence,
            registered: registered.0,
            end_epoch: end.0,
            certified_at: certified,
        }
    }
}

pub(super) async fn list(network: Option<&Path>, args: List, output: Output) -> Result<(), Failure> {
    let account = match args.account {
        Some(account) => account,
        None => args.wallet.load_or_create(network)?.account(),
    };
    let connection = Connection::open(&network_file(network)?).await?;
    let listed = connection.client().ledger_registrations(&account, args.limit).await;
    connection.close().await;
    let listed =
        listed.map_err(|error| Failure::ledger(format!("the blobs of {account} are not known"), &error))?;
    let blobs: Vec<Line> = listed.value.into_iter().map(Line::from).collect();
    let mut table = Table::new(&["BLOB", "PERSISTENCE", "REGISTERED", "END", "CERTIFIED AT"]);
    for line in &blobs {
        let certified = line.certified_at.map_or_else(|| "not yet".to_owned(), |height| height.to_string());
        table.row([
            line.blob_id.clone(),
            line.persistence.to_string(),
            line.registered.to_string(),
            line.end_epoch.to_string(),
            certified,
        ]);
    }
    output.data(&Listing { account, height: listed.height, blobs }, table)
}

pub(super) async fn extend(network: Option<&Path>, args: Extend, output: Output) -> Result<(), Failure> {
    let Extend { wallet, blob_id, epochs } = args;
    let what = format!("cannot extend {blob_id}");
    let connection = Connection::open(&network_file(network)?).await?;
    let head = connection.client().ledger_head().await;
    connection.close().await;
    let head = head.map_err(|error| Failure::ledger(&what, &error))?.value;
    let end_epoch = Epoch(head.epoch.0.saturating_add(epochs));
    wallet::act(network, &wallet, (&what, Action::ExtendBlob { blob_id, end_epoch }), output).await
}

pub(super) async fn delete(network: Option<&Path>, args: Delete, output: Output) -> Result<(), Failure> {
    let Delete { wallet, blob_id } = args;
    let what = format!("cannot delete {blob_id}");
    wallet::act(network, &wallet, (&what, Action::DeleteBlob { blob_id }), output).await
}
