//! What a new network is made of, before any of its nodes runs.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use node::{
    cli::{Exit, Failure},
    config::{
        ClientFile, EncoderConfig, MetricsConfig, NetworkConfig, NodeConfig, StorageConfig, create_new,
    },
    keys::AccountKey,
};
use protocol::{
    committee::Member,
    genesis::{Endowment, Genesis, GenesisAccount, GenesisStake},
    quorum::{N_SHARDS_MAX, N_SHARDS_MIN},
};
use swarm::{Address, address::Transport};

use super::{
    ClusterConfig, FAUCET_CREDITS, Manifest, NodeEntry, Terms, client_file, faucet_file, genesis_file,
    layout, ports, wallet_file,
};

/// Room to leave on the disk: enough not to break the machine, little enough for a small one.
pub(crate) const RESERVE_BYTES: u64 = 64 << 20;
/// How often everything that is stored is looked at where disks are made to rot: in production once a day, here while somebody
/// watches.
pub(crate) const SCRUB_INTERVAL: Duration = Duration::from_secs(5);
/// How fast.
pub(crate) const SCRUB_BYTES_PER_SECOND: u64 = 256 << 20;

/// Writes what a new network needs beside its nodes into a directory: the keys of the faucet and of the wallet, `genesis.toml`
/// and `client.toml`.
///
/// # Errors
///
/// If members and terms make no network, or a file is there already or cannot be written.
pub(crate) fn found(
    dir: &Path,
    (n_shards, members): (u16, Vec<Member>),
    terms: Terms,
) -> Result<Genesis, Failure> {
    let Terms { mut accounts, parameters, node_stake, .. } = terms;
    let faucet = AccountKey::create(&faucet_file(dir))?;
    let wallet = AccountKey::create(&wallet_file(dir))?;
    for account in [faucet.account(), wallet.account()] {
        accounts.push(GenesisAccount { account, balance: FAUCET_CREDITS });
    }
    let stake = |node| GenesisStake { node, account: faucet.account(), amount: node_stake };
    let staked = members.iter().filter(|_| node_stake > 0);
    let stakes = staked.map(|member| stake(member.peer)).collect();
    let genesis = Genesis::new("testnet".to_owned(), n_shards, members)
        .and_then(|genesis| genesis.with_endowment(Endowment { accounts, stakes, parameters }))
        .map_err(|error| Failure::because(Exit::Usage, "cannot make a genesis", &error))?;
    create_new(&genesis_file(dir), &genesis.to_toml())?;
    let client = format!("{}\nwallet = \"wallet.key\"\n", ClientFile::EXAMPLE.trim_end());
    create_new(&client_file(dir), &client)?;
    Ok(genesis)
}

/// Fails if there is no network of so many nodes and shards.
///
/// # Errors
///
/// See above.
pub(crate) fn check_counts(n_nodes: u16, n_shards: u16) -> Result<(), Failure> {
    if !(N_SHARDS_MIN..=N_SHARDS_MAX).contains(&n_shards) {
        let what = format!("a network has {N_SHARDS_MIN} to {N_SHARDS_MAX} shards, not {n_shards}");
        return Err(Failure::new(Exit::Usage, what));
    }
    if n_nodes == 0 || n_nodes > n_shards {
        let what = format!("{n_nodes} nodes for {n_shards} shards");
        return Err(Failure::new(Exit::Usage, what).hint("each node needs at least one shard"));
    }
    Ok(())
}

/// Fails if a directory holds anything but the lock.
pub(super) fn check_empty(dir: &Path) -> Result<(), Failure> {
    let entries =
        fs::read_dir(dir).map_err(|error| Failure::io(format!("cannot read {}", dir.display()), &error))?;
    if entries.flatten().any(|entry| entry.file_name() != layout::LOCK_FILE) {
        return Err(Failure::new(Exit::Usage, format!("{} is neither empty nor a testnet", dir.display()))
            .hint("choose another directory"));
    }
    Ok(())
}

/// A testnet whose nodes have been given ports, each with one for metrics and, if others reach it that way, one for its relay.
pub(super) fn with_ports(config: &ClusterConfig, is_relayed: bool) -> Result<Manifest, Failure> {
    let ports = ports::free_ports(config.n_nodes, config.base_port)?;
    let metrics_ports = ports::free_ports(config.n_nodes, None)?;
    let ports: Vec<_> = ports.into_iter().zip(metrics_ports).collect();
    let mut manifest = Manifest::new(config.n_shards, &ports);
    if is_relayed {
        let ports = ports::free_ports(config.n_nodes, None)?;
        for (node, port) in manifest.nodes.iter_mut().zip(ports) {
            node.relay_port = Some(port);
        }
    }
    Ok(manifest)
}

/// The configuration of a node of a testnet.
pub(super) fn node_config(node: &NodeEntry) -> NodeConfig {
    let at = |port| Address::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Transport::Tcp, port);
    let (listen, external) = (vec![at(node.port)], node.relay_port.map(at).into_iter().collect());
    NodeConfig {
        name: node.name.clone(),
        genesis: PathBuf::from("../genesis.toml"),
        network: NetworkConfig { listen, external, ..NetworkConfig::default() },
        storage: StorageConfig { reserve_bytes: RESERVE_BYTES, ..StorageConfig::default() },
        // All nodes share one machine.
        encoder: EncoderConfig { threads: 2 },
        metrics: MetricsConfig { listen: node.metrics() },
        ..NodeConfig::default()
    }
}
