//! `floe node status`: where a node stands on the ledger.

use std::path::Path;

use protocol::{
    AccountId, PeerId,
    ledger::state::entry::{Node, NodeStatus},
};
use serde::Serialize;

use super::{
    stake_warning,
    which::{Opened, Which},
};
use crate::{
    cli::{
        Failure, Output,
        standing::{Committees, due_ms, stage_text},
    },
    ledger::Clock,
};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    which: Which,
}

/// What is printed. All of it is proven.
#[derive(Debug, Serialize)]
struct Document {
    node: PeerId,
    /// `unregistered`, `active`, `leaving` or `ejected`.
    status: &'static str,
    name: Option<String>,
    operator: Option<AccountId>,
    stake: u64,
    /// Stake with which it can be selected.
    min_stake: u64,
    height: u64,
    epoch: u32,
    /// `steady`, `selected` or `handover`.
    stage: &'static str,
    /// The block time at which the next stage begins, in milliseconds since 1970; null if that is not a matter of time.
    stage_ends_ms: Option<u64>,
    /// Shards in the current epoch.
    shards: Vec<u16>,
    /// Shards in the next, once its committee is selected.
    shards_next: Option<Vec<u16>>,
    /// Nobody needs the node any more: its process may end.
    may_stop: bool,
}

pub(super) async fn execute(network: Option<&Path>, args: Args, output: Output) -> Result<(), Failure> {
    let Opened { connection, node, .. } = args.which.open(network).await?;
    let client = connection.client();
    let result =
        async { Ok((client.ledger_node(&node).await?.value, Committees::read(client).await?)) }.await;
    connection.close().await;
    let (known, committees) =
        result.map_err(|error| Failure::ledger(format!("the status of node {node} is not known"), &error))?;
    let document = Document::new(node, known.as_ref(), &committees);
    output.data(&document, text(&document, &committees, Clock::System.unix_ms()))
}

impl Document {
    fn new(node: PeerId, known: Option<&Node>, committees: &Committees) -> Self {
        let Committees { head, parameters, .. } = committees;
        let status = match known.map(|node| node.status) {
            None => "unregistered",
            Some(NodeStatus::Active) => "active",
            Some(NodeStatus::Leaving) => "leaving",
            Some(NodeStatus::Ejected) => "ejected",
        };
        let is_active = known.is_some_and(|node| node.status == NodeStatus::Active);
        Self {
            node,
            status,
            name: known.map(|node| node.description.name.clone()),
            operator: known.map(|node| node.description.operator),
            stake: known.map_or(0, |node| node.stake.credits),
            min_stake: parameters.min_stake,
            height: head.height,
            epoch: head.epoch.0,
            stage: crate::cli::info::stage_name(head.stage),
            stage_ends_ms: due_ms(head, parameters),
            shards: committees.shards_now(&node),
            shards_next: committees.shards_next(&node),
            may_stop: !is_active && committees.may_stop(&node),
        }
    }
}

fn text(document: &Document, committees: &Committees, now_ms: u64) -> String {
    let Document { node, status, name, operator, stake, min_stake, epoch, shards, .. } = document;
    let Committees { head, parameters, .. } = committees;
    let mut lines = vec![
        format!("node      {}{node}", name.as_ref().map_or_else(String::new, |name| format!("{name}, "))),
        format!("status    {status}{}", if document.may_stop { "; it may stop" } else { "" }),
    ];
    if let Some(operator) = operator {
        lines.push(format!("operator  {operator}"));
        lines.push(format!("stake     {stake} credits, {min_stake} needed to be selected"));
    }
    let next = match &document.shards_next {
        None => "the next committee is not selected yet".to_owned(),
        Some(shards) => format!("{} in epoch {}", list(shards), epoch.saturating_add(1)),
    };
    lines.push(format!("shards    {} in epoch {epoch}; {next}", list(shards)));
    lines.push(format!("stage     {}", stage_text(head, parameters, now_ms)));
    match *status {
        "unregistered" => lines.push("to do     register it with: floe node register --dir DIR".to_owned()),
        "active" => lines
            .extend(stake_warning(node, *stake, parameters).map(|warning| format!("to do     {warning}"))),
        "leaving" if !document.may_stop => lines.push("to do     let it run until it may stop".to_owned()),
        _ => {}
    }
    lines.join("\n")
}

/// `none`, or how many and which.
fn list(shards: &[u16]) -> String {
    if shards.is_empty() {
        return "none".to_owned();
    }
    let numbers: Vec<String> = shards.iter().map(ToString::to_string).collect();
    format!("{} ({})", shards.len(), numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use protocol::ledger::{state::entry::Pool, transaction::NodeDescription};

    use super::*;
    use crate::cli::standing::tests::{NODE, committees};

    fn known(status: NodeStatus, stake: u64) -> Node {
        let key = protocol::bls::SecretKey::from_seed(&[1; 32]);
        let description = NodeDescription {
            name: "alpha".to_owned(),
            public_key: key.public_key(),
            proof_of_possession: key.prove_possession(&NODE),
            addresses: Vec::new(),
            operator: AccountId([2; 32]),
            commission_bp: 0,
            capacity_bytes: 0,
        };
        let stake = Pool { credits: stake, ..Pool::default() };
        Node { description, status, stake, ballot: None, commission_bp: 0 }
    }

    #[test]
    fn a_node_on_its_way_in_is_told_what_is_missing() {
        let committees = committees(&[], None);
        let text_of = |known: Option<&Node>| text(&Document::new(NODE, known, &committees), &committees, 0);
        assert!(text_of(None).contains("unregistered") && text_of(None).contains("floe node register"));
        let poor = text_of(Some(&known(NodeStatus::Active, 40)));
        assert!(poor.contains("60 more") && poor.contains("not selected yet"), "{poor}");
        let rich = text_of(Some(&known(NodeStatus::Active, 100)));
        assert!(!rich.contains("to do"), "{rich}");
    }

    #[test]
    fn a_node_on_its_way_out_is_told_when_it_may_stop() {
        let leaving = known(NodeStatus::Leaving, 100);
        let document = |committees: &Committees| Document::new(NODE, Some(&leaving), committees);
        let (running, gone) = (committees(&[1, 2], Some(&[])), committees(&[], Some(&[])));
        assert!(!document(&running).may_stop && document(&gone).may_stop);
        let text = text(&document(&running), &running, 0);
        assert!(
            text.contains("2 (1, 2) in epoch 4; none in epoch 5") && text.contains("let it run"),
            "{text}"
        );
        // One that can be selected is waited for.
        assert!(!Document::new(NODE, Some(&known(NodeStatus::Active, 100)), &gone).may_stop);
    }

    #[test]
    fn the_document_has_the_keys_that_scripts_read() {
        let json = serde_json::to_value(Document::new(NODE, None, &committees(&[3], Some(&[4])))).unwrap();
        let expected = serde_json::json!({
            "node": "07".repeat(32), "status": "unregistered", "name": null, "operator": null, "stake": 0,
            "min_stake": 100, "height": 9, "epoch": 4, "stage": "selected", "stage_ends_ms": 130_000,
            "shards": [3], "shards_next": [4], "may_stop": false,
        });
        assert_eq!(json, expected);
    }
}
