//! An operator's node: it has the genesis file and a wallet, and joins as any stranger does.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use node::{
    cli::{Connection, Exit, Failure, init_node, load_key, output::note, register_node, wanted_node},
    config::{CONFIG_FILE, MemberFile, NodeConfig, PeerAddress, create_new, load_genesis},
    keys::{AccountKey, NodeKeys},
};
use protocol::{genesis::Genesis, ledger::transaction::Action};

use super::{GENESIS_FILE, NODE_DIR, WALLET_FILE, node_config, run};
use crate::{cluster::until, compose::spec::Place};

/// The file that says that the node is registered and staked on. It is there once that is proven.
const JOINED_FILE: &str = "joined";
/// Members of the genesis by way of which the node finds the network.
const BOOTSTRAP: usize = 3;
/// How long the network may be out of reach. After that the container ends, and is started again.
const JOIN_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Options of an operator's node.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArgs {
    /// What people call it
    #[arg(long, value_name = "NAME")]
    name: String,
    #[command(flatten)]
    place: Place,
    /// Credits to put behind it
    #[arg(long, value_name = "CREDITS")]
    stake: u64,
}

/// Makes the node's directory and has it registered and staked on, unless that was done; then becomes the node.
///
/// # Errors
///
/// If the network cannot be reached in time, or does not take the node.
pub async fn join(args: &JoinArgs) -> Result<(), Failure> {
    let dir = Path::new(NODE_DIR);
    prepare(dir, args)?;
    if !dir.join(JOINED_FILE).exists() {
        let wallet = load_key(&dir.join(WALLET_FILE))?;
        until("joining the network", JOIN_LIMIT, async || match enter(dir, &wallet, args.stake).await {
            Ok(()) => Ok(Some(())),
            // Setup has ended, the nodes have only begun.
            Err(failure) if failure.exit() == Exit::Unavailable => {
                note(format_args!("not yet: {failure}"));
                Ok(None)
            }
            Err(failure) => Err(failure),
        })
        .await?;
        create_new(&dir.join(JOINED_FILE), "")?;
        note("registered and staked on");
    }
    run(dir)
}

/// Makes the node's directory, unless it is complete.
fn prepare(dir: &Path, args: &JoinArgs) -> Result<(), Failure> {
    if dir.join(CONFIG_FILE).exists() {
        return Ok(());
    }
    // The configuration is written last: without it, what else there is has told nobody of itself.
    remove(&[dir.join("keys"), dir.join(MemberFile::NAME)])?;
    let genesis = load_genesis(&dir.join(GENESIS_FILE))?;
    init_node(dir, &node_config(args.name.clone(), args.place.clone(), ways_in(&genesis)))?;
    Ok(())
}

fn remove(paths: &[PathBuf]) -> Result<(), Failure> {
    for path in paths {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::io(format!("cannot remove {}", path.display()), &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The first address of each of a few members.
fn ways_in(genesis: &Genesis) -> Vec<PeerAddress> {
    let members = genesis.committee().members().iter();
    let addresses = members.filter_map(|member| {
        let address = member.addresses.first()?.parse().ok()?;
        Some(PeerAddress { peer: member.peer, address })
    });
    addresses.take(BOOTSTRAP).collect()
}

/// Has the node registered and staked on, as far as that is not so yet.
async fn enter(dir: &Path, wallet: &AccountKey, stake: u64) -> Result<(), Failure> {
    let (config, keys) = (NodeConfig::load(dir)?, NodeKeys::load(dir)?);
    let connection = Connection::of_node(&config).await?;
    let client = connection.client();
    let result = async {
        let wanted = wanted_node(&config, &keys, wallet.account());
        let staked = register_node(client, &wanted, (&keys, wallet)).await?.stake;
        if let Some(amount) = stake.checked_sub(staked).filter(|amount| *amount > 0) {
            let action = Action::Stake { node: keys.peer(), amount };
            let submitted = client.submit(action, wallet.signing()).await;
            submitted.map_err(|error| Failure::submit(format!("cannot stake on {}", config.name), &error))?;
        }
        Ok(())
    }
    .await;
    connection.close().await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        crate::compose::spec::tests::spec("").unwrap().place(0)
    }

    fn args() -> JoinArgs {
        JoinArgs { name: "node-9".to_owned(), place: place(), stake: 1 }
    }

    /// A volume with nothing but a genesis file of seven members.
    fn volume() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let members = (0..7u16).map(|node| {
            let at = dir.path().join(node.to_string());
            let member = init_node(&at, &node_config(format!("n-{node}"), place(), Vec::new())).unwrap();
            member.with_shards(vec![protocol::ShardIndex(node)])
        });
        let genesis = Genesis::new("x".to_owned(), 7, members.collect()).unwrap();
        create_new(&dir.path().join(GENESIS_FILE), &genesis.to_toml()).unwrap();
        dir
    }

    #[test]
    fn a_directory_is_made_once_with_ways_in_of_the_genesis() {
        let dir = volume();
        prepare(dir.path(), &args()).unwrap();
        let (config, keys) = (NodeConfig::load(dir.path()).unwrap(), NodeKeys::load(dir.path()).unwrap());
        let genesis = config.load_genesis().unwrap();
        let peers: Vec<_> = config.network.bootstrap.iter().map(|way| way.peer).collect();
        let members: Vec<_> =
            genesis.committee().members().iter().map(|member| member.peer).take(BOOTSTRAP).collect();
        assert_eq!(peers, members);
        prepare(dir.path(), &args()).unwrap();
        assert_eq!(NodeKeys::load(dir.path()).unwrap().peer(), keys.peer());
    }

    #[test]
    fn what_a_start_that_died_has_left_is_no_obstacle() {
        let dir = volume();
        prepare(dir.path(), &args()).unwrap();
        fs::remove_file(dir.path().join(CONFIG_FILE)).unwrap();
        prepare(dir.path(), &args()).unwrap();
        NodeKeys::load(dir.path()).unwrap();
    }
}
