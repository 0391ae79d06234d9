//! Wires the actors of one node, bottom up.

use std::path::Path;

use protocol::genesis::Genesis;
use swarm::{Address, Network, PeerRole};

/// Tells the network who the members are and where to find them.
pub fn introduce_members<N: Network>(network: &N, genesis: &Genesis) {
    for member in genesis.committee().members() {
        let addresses = member.addresses.iter().filter_map(|text| text.parse::<Address>().ok()).collect();
        network.add_peer(member.peer, addresses, PeerRole::Member);
    }
}

/// Runs the storage node of a directory until it is told to stop (SIGINT or SIGTERM) or fails.
///
/// # Errors
///
/// If the directory, its configuration, its keys or its store cannot be used, a port is taken, or an actor fails.
pub async fn run(_dir: &Path) -> anyhow::Result<()> {
    todo!()
}
