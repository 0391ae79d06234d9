//! `floe node leave`: takes a node out of the next selection.

use std::path::Path;

use protocol::{
    AccountId, PeerId,
    ledger::{
        signature::SigningKey,
        state::entry::{Node, NodeStatus},
        transaction::Action,
    },
};
use serde::Serialize;
use swarm::Network;

use super::which::{Opened, Which};
use crate::{
    cli::{Exit, Failure, Output, standing::Committees, wallet::Wallet},
    client::Client,
};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    wallet: Wallet,
}

#[derive(Debug, Serialize)]
struct Document {
    node: PeerId,
    /// A block behind which it is proven to be executed.
    height: u64,
    /// The current epoch, and the node's shards in it and, once that is selected, in the next.
    epoch: u32,
    shards: Vec<u16>,
    shards_next: Option<Vec<u16>>,
    /// The epoch in which others answer for its shards; null if none begins.
    released_epoch: Option<u32>,
}

pub(super) async fn execute(network: Option<&Path>, args: Args, output: Output) -> Result<(), Failure> {
    let Args { which, wallet } = args;
    let Opened { connection, node, key } = which.open(network).await?;
    let result = async {
        let client = connection.client();
        let operator = operator(client, &node).await?;
        let key = match key {
            Some(key) if key.account() == operator => key,
            _ => wallet.load(network)?.0.signing().clone(),
        };
        leave_node(client, (&node, operator), &key).await
    }
    .await;
    connection.close().await;
    let document = result?;
    output.data(&document, text(&document))
}

/// Who decides for a node that can leave.
async fn operator<N: Network>(client: &Client<N>, node: &PeerId) -> Result<AccountId, Failure> {
    let known = client.ledger_node(node).await;
    let known = known.map_err(|error| Failure::ledger(format!("node {node} is not known"), &error))?.value;
    check(node, known.as_ref())
}

fn check(node: &PeerId, known: Option<&Node>) -> Result<AccountId, Failure> {
    let refuse = |exit, why: &str| Failure::new(exit, format!("node {node} cannot leave: {why}"));
    let Some(known) = known else {
        return Err(refuse(Exit::NotFound, "no such node is registered").hint("see `floe info --committee`"));
    };
    match known.status {
        NodeStatus::Active => Ok(known.description.operator),
        NodeStatus::Leaving => {
            Err(refuse(Exit::Usage, "it is leaving already")
                .hint("see with `floe node status` when it may stop"))
        }
        NodeStatus::Ejected => Err(refuse(Exit::Usage, "it was ejected, and is never selected again")),
    }
}

/// Has a node leave, for the operator whose key this is.
async fn leave_node<N: Network>(
    client: &Client<N>,
    (node, operator): (&PeerId, AccountId),
    key: &SigningKey,
) -> Result<Document, Failure> {
    let what = format!("node {node} cannot leave");
    if key.account() != operator {
        let what = format!("{what}: its operator is {operator}, the wallet is {}'s", key.account());
        return Err(Failure::new(Exit::Usage, what).hint("name the operator's wallet with --wallet"));
    }
    let submitted = client.submit(Action::LeaveNode { node: *node }, key).await;
    let height = submitted.map_err(|error| Failure::submit(what, &error))?.height;
    // It is done; what follows only says what that means.
    let committees = Committees::read(client).await;
    let committees = committees.map_err(|error| {
        Failure::ledger("the node is leaving, but it is not known when it may stop", &error)
    })?;
    Ok(Document::new(*node, height, &committees))
}

impl Document {
    fn new(node: PeerId, height: u64, committees: &Committees) -> Self {
        let epoch = committees.head.epoch.0;
        let (shards, shards_next) = (committees.shards_now(&node), committees.shards_next(&node));
        let stays_next = shards_next.as_ref().is_some_and(|shards| !shards.is_empty());
        let released = epoch.saturating_add(if stays_next { 2 } else { 1 });
        let released_epoch = (committees.parameters.epoch_ms > 0).then_some(released);
        Self { node, height, epoch, shards, shards_next, released_epoch }
    }
}

fn text(document: &Document) -> String {
    let Document { node, height, epoch, shards, shards_next, released_epoch } = document;
    let has_none = shards.is_empty() && shards_next.as_ref().is_none_or(Vec::is_empty);
    let meaning = match released_epoch {
        None => "the epochs of this network do not end: it keeps its shards".to_owned(),
        Some(_) if has_none => {
            format!("it has no shards in epoch {epoch}; `floe node status` says when it may stop")
        }
        Some(released) => format!(
            "others take over its {} shards with epoch {released}; let it run until `floe node status` says that it may \
             stop, half an epoch after that",
            shards.len().max(shards_next.as_ref().map_or(0, Vec::len))
        ),
    };
    format!("node {node} is leaving (done at height {height}); {meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::standing::tests::{NODE, committees};

    #[test]
    fn it_is_said_when_others_take_over() {
        let text_of = |committees: &Committees| text(&Document::new(NODE, 9, committees));
        assert!(text_of(&committees(&[1, 2], None)).contains("its 2 shards with epoch 5"));
        assert!(text_of(&committees(&[1, 2], Some(&[]))).contains("its 2 shards with epoch 5"));
        assert!(text_of(&committees(&[1, 2], Some(&[1, 2, 3]))).contains("its 3 shards with epoch 6"));
        assert!(text_of(&committees(&[], None)).contains("it has no shards"));
        let mut still = committees(&[1], None);
        still.parameters.epoch_ms = 0;
        assert!(text_of(&still).contains("it keeps its shards"));
    }

    #[test]
    fn a_node_that_nobody_knows_cannot_leave() {
        let failure = check(&NODE, None).unwrap_err();
        assert_eq!(failure.exit(), Exit::NotFound);
        assert!(failure.to_string().contains("no such node is registered"), "{failure}");
    }
}
