//! `floe info`.

use std::{path::Path, time::Duration};

use protocol::{
    AccountId, PeerId,
    ledger::{
        parameters::{CAPACITY_UNLIMITED, Parameters},
        state::entry::{NodeStatus, Stage},
    },
};
use serde::Serialize;

use super::{
    Connection, Failure, Output, network_file,
    output::{Bytes, Table},
    shown_seconds, stage_text,
};
use crate::{
    client::{LedgerMember, LedgerOverview},
    ledger::Clock,
};

/// What is printed of the network. All of it is proven but the name, which is the genesis file's.
#[derive(Debug, Serialize)]
struct Document {
    network_id: String,
    name: String,
    n_shards: u16,
    epoch: u32,
    height: u64,
    /// Credits for a mebibyte of encoded size in one epoch, and for writing it once.
    storage_price: u64,
    write_price: u64,
    /// Encoded size that can be sold of an epoch; null if there is no limit.
    capacity_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<Ledger>,
    #[serde(skip_serializing_if = "Option::is_none")]
    committee: Option<Vec<Member>>,
}

/// What `--ledger` adds.
#[derive(Debug, Serialize)]
struct Ledger {
    /// Time of the last block, in milliseconds since 1970.
    time_ms: u64,
    /// `steady`, `selected` or `handover`.
    stage: &'static str,
    /// Time of the block with which the epoch began, in milliseconds since 1970.
    epoch_started_ms: u64,
    /// Once the next committee is fixed, the block time at which it takes over.
    epoch_ends_ms: Option<u64>,
    /// In a handover, shards of the members that are ready.
    ready_shards: Option<u16>,
    /// Credits to be paid to nodes when the epoch is over.
    epoch_credits: u64,
    /// Encoded size sold of the epoch.
    epoch_reserved_bytes: u128,
    transaction_fee: u64,
    unbonding_epochs: u32,
    epochs_ahead_max: u32,
    equivocation_slash_bp: u16,
    /// Milliseconds that an epoch takes; 0 if the first does not end.
    epoch_ms: u64,
    members_max: u16,
    min_stake: u64,
}

/// What `--committee` adds, for each member.
#[derive(Debug, Serialize)]
struct Member {
    name: String,
    peer: PeerId,
    /// Where it is reached, preferred first.
    addresses: Vec<String>,
    shards: Vec<u16>,
    stake: u64,
    /// `active`, `leaving` or `ejected`.
    status: &'static str,
    operator: AccountId,
    commission_bp: u16,
}

/// What is to be printed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Args {
    /// Also the committee: each member with its shards and its stake
    #[arg(long)]
    committee: bool,
    /// Also the state and the rules of the ledger
    #[arg(long)]
    ledger: bool,
}

pub(super) async fn execute(network: Option<&Path>, args: Args, output: Output) -> Result<(), Failure> {
    let connection = Connection::open(&network_file(network)?).await?;
    let overview = connection.client().ledger_overview(args.committee).await;
    let name = connection.client().genesis().name().to_owned();
    connection.close().await;
    let overview =
        overview.map_err(|error| Failure::ledger("the state of the network is not known", &error))?;
    let document = Document::new(name, &overview, args);
    let stage = stage_text(&overview.head, &overview.parameters, Clock::System.unix_ms());
    output.data(&document, text(&document, &stage))
}

impl Document {
    fn new(name: String, overview: &LedgerOverview, args: Args) -> Self {
        let LedgerOverview { head, parameters, committee, .. } = overview;
        let Parameters { storage_price, write_price, capacity_bytes, .. } = *parameters;
        let members = committee.as_ref().map(|members| members.iter().map(Member::new).collect());
        Self {
            network_id: head.network.to_string(),
            name,
            n_shards: head.n_shards,
            epoch: head.epoch.0,
            height: head.height,
            storage_price,
            write_price,
            capacity_bytes: (capacity_bytes < CAPACITY_UNLIMITED).then_some(capacity_bytes),
            ledger: args.ledger.then(|| Ledger::new(overview)),
            committee: members,
        }
    }
}

impl Ledger {
    const fn new(LedgerOverview { head, parameters, bucket, .. }: &LedgerOverview) -> Self {
        let (epoch_ends_ms, ready_shards) = match head.stage {
            Stage::Steady => (None, None),
            Stage::Selected { ends_ms } => (Some(ends_ms), None),
            Stage::Handover { ready_shards } => (None, Some(ready_shards)),
        };
        Self {
            time_ms: head.time_ms,
            stage: stage_name(head.stage),
            epoch_started_ms: head.epoch_started_ms,
            epoch_ends_ms,
            ready_shards,
            epoch_credits: bucket.credits,
            epoch_reserved_bytes: bucket.reserved_bytes,
            transaction_fee: parameters.transaction_fee,
            unbonding_epochs: parameters.unbonding_epochs,
            epochs_ahead_max: parameters.epochs_ahead_max,
            equivocation_slash_bp: parameters.equivocation_slash_bp,
            epoch_ms: parameters.epoch_ms,
            members_max: parameters.members_max,
            min_stake: parameters.min_stake,
        }
    }
}

/// What scripts call a stage.
pub(super) const fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Steady => "steady",
        Stage::Selected { .. } => "selected",
        Stage::Handover { .. } => "handover",
    }
}

impl Member {
    fn new(LedgerMember { member, node }: &LedgerMember) -> Self {
        Self {
            name: member.name.clone(),
            peer: member.peer,
            addresses: member.addresses.clone(),
            shards: member.shards.iter().map(|shard| shard.0).collect(),
            stake: node.stake.credits,
            status: match node.status {
                NodeStatus::Active => "active",
                NodeStatus::Leaving => "leaving",
                NodeStatus::Ejected => "ejected",
            },
            operator: node.description.operator,
            commission_bp: node.description.commission_bp,
        }
    }
}

fn text(document: &Document, stage: &str) -> String {
    let Document { name, network_id, n_shards, epoch, height, storage_price, write_price, .. } = document;
    let capacity = document.capacity_bytes.map_or_else(|| "no limit".to_owned(), |it| Bytes(it).to_string());
    let mut lines = vec![
        format!("network   {name}, {network_id}, {n_shards} shards"),
        format!("ledger    epoch {epoch}, height {height}"),
        format!("stage     {stage}"),
        format!("prices    {storage_price} credits a MiB and epoch, {write_price} for writing a MiB"),
        format!("capacity  {capacity}"),
    ];
    if let Some(ledger) = &document.ledger {
        let reserved = u64::try_from(ledger.epoch_reserved_bytes).unwrap_or(u64::MAX);
        lines.push(format!(
            "fund      {} credits for this epoch, {} reserved in it",
            ledger.epoch_credits,
            Bytes(reserved)
        ));
        lines.push(format!(
            "rules     {} credits a transaction, stake locked for {} epochs, storage up to {} epochs ahead",
            ledger.transaction_fee, ledger.unbonding_epochs, ledger.epochs_ahead_max
        ));
        if ledger.epoch_ms > 0 {
            lines.push(format!(
                "epochs    of {}, up to {} members with at least {} credits of stake each",
                shown_seconds(Duration::from_millis(ledger.epoch_ms)),
                ledger.members_max,
                ledger.min_stake
            ));
        }
    }
    if let Some(committee) = &document.committee {
        let mut table = Table::new(&["NODE", "SHARDS", "STAKE", "STATUS", "ADDRESS", "PEER"]);
        for Member { name, peer, addresses, shards, stake, status, .. } in committee {
            let cells = [
                name.clone(),
                shards.len().to_string(),
                stake.to_string(),
                (*status).to_owned(),
                addresses.first().cloned().unwrap_or_default(),
                peer.to_string(),
            ];
            table.row(cells);
        }
        lines.push(table.to_string());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use protocol::{
        Epoch, NetworkId,
        ledger::state::entry::{Bucket, Head},
    };

    use super::*;

    fn overview() -> LedgerOverview {
        let stage = Stage::Handover { ready_shards: 3 };
        let (network, epoch) = (NetworkId([0; 32]), Epoch(2));
        LedgerOverview {
            head: Head {
                network,
                n_shards: 7,
                height: 9,
                time_ms: 1000,
                epoch,
                epoch_started_ms: 900,
                stage,
                n_available: 5,
            },
            parameters: Parameters { storage_price: 5, ..Parameters::default() },
            bucket: Bucket { credits: 4, reserved_bytes: 6 },
            committee: None,
        }
    }

    #[test]
    fn the_document_has_the_keys_that_scripts_read() {
        let args = Args { committee: false, ledger: true };
        let document = Document::new("a".to_owned(), &overview(), args);
        let expected = serde_json::json!({
            "network_id": "0".repeat(64), "name": "a", "n_shards": 7, "epoch": 2, "height": 9, "storage_price": 5,
            "write_price": 0, "capacity_bytes": null,
            "ledger": {
                "time_ms": 1000, "stage": "handover", "epoch_started_ms": 900, "epoch_ends_ms": null, "ready_shards": 3, "epoch_credits": 4,
                "epoch_reserved_bytes": 6, "transaction_fee": 0, "unbonding_epochs": 2, "epochs_ahead_max": 53,
                "equivocation_slash_bp": 1000, "epoch_ms": 0, "members_max": 100, "min_stake": 0,
            },
        });
        assert_eq!(serde_json::to_value(&document).unwrap(), expected);
        let text = text(&document, "a stage");
        assert!(text.contains("epoch 2, height 9") && text.contains("stage     a stage"), "{text}");
        assert!(text.contains("no limit"), "{text}");
    }

    #[test]
    fn a_capacity_is_shown() {
        let mut overview = overview();
        overview.parameters.capacity_bytes = 5 << 30;
        let args = Args { committee: false, ledger: false };
        let document = Document::new("a".to_owned(), &overview, args);
        assert_eq!(document.capacity_bytes, Some(5 << 30));
        assert!(document.ledger.is_none());
        assert!(text(&document, "").contains("5.00 GiB"), "{}", text(&document, ""));
    }
}
