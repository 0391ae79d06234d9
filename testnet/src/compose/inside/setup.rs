//! The setup of a network: keys, genesis and client.toml, each into the volume it belongs to.
//!
//! ```text
//! /testnet/net      genesis.toml client.toml wallet.key faucet.key, and last of all network.json
//! /testnet/node-I   keys/ config.toml member.toml genesis.toml         nodes of the genesis
//!                   wallet.key genesis.toml                            nodes that join later, and make the rest themselves
//! ```
//!
//! # Invariants
//!
//! - A network that is complete is left as it is, however often the setup runs.
//! - What a node has stored is never removed.

use std::{
    fs, io,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use node::{
    cli::{Exit, Failure, init_node, output::note},
    config::create_new,
    keys::AccountKey,
};
use protocol::{
    committee::spread,
    genesis::{Genesis, GenesisAccount},
};

use super::{GENESIS_FILE, NET_VOLUME, SETUP_DIR, USER, WALLET_FILE, node_config};
use crate::{
    cluster::{Terms, found},
    compose::spec::{Spec, node_name},
};

/// The file that says which network the volumes hold. It is there once all else is.
const SPEC_FILE: &str = "network.json";
/// Stakes of a node that an operator's wallet has: it may try more than one thing.
const WALLET_STAKES: u64 = 100;

/// Makes the network in the volumes that are mounted under [`SETUP_DIR`], unless they hold it already. As root, gives them to the
/// nodes' user and goes on as that user.
///
/// # Errors
///
/// If they hold another network, or something cannot be written.
pub fn setup(spec: &Spec) -> Result<(), Failure> {
    if rustix::process::getuid().is_root() {
        return Err(become_user(spec));
    }
    set_up(Path::new(SETUP_DIR), spec)
}

/// Starts this program anew as the nodes' user; returns only what went wrong.
fn become_user(spec: &Spec) -> Failure {
    for dir in directories(Path::new(SETUP_DIR), spec) {
        if let Err(error) = chown(&dir, Some(USER), Some(USER)) {
            return Failure::io(format!("cannot give {} to user {USER}", dir.display()), &error);
        }
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return Failure::io("cannot find this program", &error),
    };
    let error = Command::new(program).args(std::env::args_os().skip(1)).uid(USER).gid(USER).exec();
    Failure::io(format!("cannot become user {USER}"), &error)
}

fn set_up(root: &Path, spec: &Spec) -> Result<(), Failure> {
    let net = root.join(NET_VOLUME);
    if let Some(found) = load_spec(&net)? {
        if found == *spec {
            note("the network is set up already");
            return Ok(());
        }
        let what = format!(
            "the volumes hold another network, of {} nodes and {} shards",
            found.n_all(),
            found.n_shards()
        );
        return Err(Failure::new(Exit::Usage, what)
            .hint("remove it with its volumes first (docker-compose down -v), or give this one a project name of its own"));
    }
    // Without the network's own files it never began, or they were removed since.
    let directories = directories(root, spec);
    if let Some(dir) = directories.iter().find(|dir| dir.join("data").exists()) {
        let what = format!("{} holds the data of a node whose network is gone", dir.display());
        return Err(Failure::new(Exit::Usage, what).hint("remove the volumes first (docker-compose down -v)"));
    }
    for dir in &directories {
        empty(dir).map_err(|error| Failure::io(format!("cannot empty {}", dir.display()), &error))?;
    }
    let genesis = make(root, &net, spec)?;
    for node in 0..spec.n_all() {
        create_new(&root.join(node_name(node)).join(GENESIS_FILE), &genesis.to_toml())?;
    }
    let text = serde_json::to_string(spec)
        .map_err(|error| Failure::because(Exit::Other, "cannot describe the network", &error))?;
    create_new(&net.join(SPEC_FILE), &text)?;
    note(format_args!(
        "set up {} nodes, {} of which join later",
        spec.n_all(),
        spec.n_all() - spec.n_nodes()
    ));
    Ok(())
}

fn make(root: &Path, net: &Path, spec: &Spec) -> Result<Genesis, Failure> {
    let mut members = Vec::new();
    for (node, shards) in (0..spec.n_nodes()).zip(spread(spec.n_shards(), spec.n_nodes())) {
        let name = node_name(node);
        let dir = root.join(&name);
        let config = node_config(name, spec.place(node), Vec::new());
        members.push(init_node(&dir, &config)?.with_shards(shards));
    }
    let mut accounts = Vec::new();
    for node in spec.n_nodes()..spec.n_all() {
        let account = AccountKey::create(&root.join(node_name(node)).join(WALLET_FILE))?.account();
        accounts.push(GenesisAccount { account, balance: spec.node_stake().saturating_mul(WALLET_STAKES) });
    }
    let terms =
        Terms { accounts, parameters: spec.parameters(), node_stake: spec.node_stake(), ..Terms::default() };
    found(net, (spec.n_shards(), members), terms)
}

/// All volumes.
fn directories(root: &Path, spec: &Spec) -> Vec<PathBuf> {
    let nodes = (0..spec.n_all()).map(node_name);
    std::iter::once(NET_VOLUME.to_owned()).chain(nodes).map(|name| root.join(name)).collect()
}

fn load_spec(net: &Path) -> Result<Option<Spec>, Failure> {
    let path = net.join(SPEC_FILE);
    let what = || format!("cannot read {}", path.display());
    match fs::read_to_string(&path) {
        Ok(text) => match serde_json::from_str(&text) {
            Ok(spec) => Ok(Some(spec)),
            Err(error) => Err(Failure::because(Exit::Usage, what(), &error)
                .hint("another version made it: remove the volumes (docker-compose down -v)")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(what(), &error)),
    }
}

/// Removes what a setup that died has left. The directory itself is a mount.
fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use node::{
        config::{ClientFile, NodeConfig, load_genesis},
        keys::NodeKeys,
    };

    use super::*;
    use crate::compose::spec::tests::spec;

    const LINE: &str = "--nodes 4 --shards 5 --operators 2";

    /// Volumes as an engine mounts them.
    fn volumes() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in ["net", "node-0", "node-1", "node-2", "node-3", "node-4", "node-5"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        root
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_volume_holds_what_its_node_needs_and_no_more() {
        let root = volumes();
        set_up(root.path(), &spec(LINE).unwrap()).unwrap();
        let client = ClientFile::load(&root.path().join("net/client.toml")).unwrap();
        let genesis = client.load_genesis().unwrap();
        assert_eq!(genesis.committee().n_members(), 4);
        assert_eq!(genesis.endowment().stakes.len(), 4);
        for node in 0..4 {
            let dir = root.path().join(node_name(node));
            assert_eq!(names(&dir), ["config.toml", "genesis.toml", "keys", "member.toml"]);
            let (config, keys) = (NodeConfig::load(&dir).unwrap(), NodeKeys::load(&dir).unwrap());
            let member =
                genesis.committee().members().iter().find(|member| member.peer == keys.peer()).unwrap();
            assert_eq!(
                (&member.name, &member.addresses),
                (&config.name, &vec![format!("/ip4/10.213.77.{}/tcp/4100", 16 + node)])
            );
            assert_eq!(config.load_genesis().unwrap(), genesis);
        }
        for node in 4..6 {
            let dir = root.path().join(node_name(node));
            assert_eq!(names(&dir), ["genesis.toml", "wallet.key"]);
            assert_eq!(load_genesis(&dir.join("genesis.toml")).unwrap(), genesis);
            let account = AccountKey::load(&dir.join("wallet.key")).unwrap().account();
            let endowed = genesis.endowment().accounts.iter().find(|endowed| endowed.account == account);
            assert_eq!(endowed.unwrap().balance, 100_000_000);
        }
        assert_eq!(
            names(&root.path().join("net")),
            ["client.toml", "faucet.key", "genesis.toml", "network.json", "wallet.key"]
        );
    }

    #[test]
    fn a_network_is_made_once() {
        let (root, made) = (volumes(), spec(LINE).unwrap());
        set_up(root.path(), &made).unwrap();
        let genesis = fs::read(root.path().join("net/genesis.toml")).unwrap();
        fs::create_dir(root.path().join("node-1/data")).unwrap();
        set_up(root.path(), &made).unwrap();
        assert_eq!(fs::read(root.path().join("net/genesis.toml")).unwrap(), genesis);
        assert!(root.path().join("node-1/data").exists());
        let other = set_up(root.path(), &spec("--nodes 4 --shards 4 --operators 2").unwrap()).unwrap_err();
        assert!(other.to_string().contains("another network, of 6 nodes and 5 shards"), "{other}");
    }

    #[test]
    fn a_setup_that_died_is_begun_anew_but_no_data_is_removed() {
        let (root, made) = (volumes(), spec(LINE).unwrap());
        set_up(root.path(), &made).unwrap();
        fs::remove_file(root.path().join("net/network.json")).unwrap();
        let keys = NodeKeys::load(&root.path().join("node-0")).unwrap().peer();
        set_up(root.path(), &made).unwrap();
        assert_ne!(NodeKeys::load(&root.path().join("node-0")).unwrap().peer(), keys);
        fs::remove_file(root.path().join("net/network.json")).unwrap();
        fs::create_dir(root.path().join("node-1/data")).unwrap();
        let refused = set_up(root.path(), &made).unwrap_err();
        assert!(refused.to_string().contains("node-1 holds the data"), "{refused}");
        fs::write(root.path().join("net/network.json"), "{}").unwrap();
        assert_eq!(set_up(root.path(), &made).unwrap_err().exit(), Exit::Usage);
    }
}
