//! What runs inside the containers of a network, beside the nodes.
//!
//! There is no shell in the image: `floe-testnet container ...` is all that a compose file and the driver need there. It
//! is not for people.

mod crash;
mod join;
mod relay;
mod run;
mod setup;
mod volume;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use node::config::{
    EncoderConfig, MetricsConfig, NetworkConfig, NodeConfig, PeerAddress, RepairConfig, ServerConfig,
    StorageConfig,
};

pub use self::{
    crash::{Victim, crash},
    join::{JoinArgs, join},
    relay::{keep, relay},
    run::{CLOCK_FILE, run},
    setup::setup,
    volume::{VolumeFile, corrupt, files, put, wipe},
};
use super::spec::Place;
use crate::cluster::{RESERVE_BYTES, SCRUB_BYTES_PER_SECOND, SCRUB_INTERVAL};
pub(crate) use crate::filler::{empty, fill};

/// Where a node's volume is mounted: its directory.
pub const NODE_DIR: &str = "/node";
/// Where the setup has all volumes.
pub const SETUP_DIR: &str = "/testnet";
/// The volume of what clients need: `genesis.toml`, `client.toml`, the keys of accounts that have credits.
pub const NET_VOLUME: &str = "net";
/// User and group of everything in a container but the beginning of the setup, as the Dockerfile has them.
pub const USER: u32 = 65_532;
/// The port on which each node shows its metrics and its health: to its own container, and to the host, whose network it is.
const METRICS_PORT: u16 = 9464;
/// Memory for slivers that are arriving, of a node: four segments, within the memory of its container.
pub const UPLOAD_BYTES: u64 = 256 << 20;
/// The wallet in an operator's volume.
const WALLET_FILE: &str = "wallet.key";
/// The genesis file in a node's volume.
const GENESIS_FILE: &str = "genesis.toml";

/// The configuration of a node whose directory is a volume.
fn node_config(name: String, place: Place, bootstrap: Vec<PeerAddress>) -> NodeConfig {
    NodeConfig {
        name,
        genesis: PathBuf::from(GENESIS_FILE),
        network: NetworkConfig {
            listen: vec![place.listen],
            external: vec![place.external],
            bootstrap,
            ..NetworkConfig::default()
        },
        storage: StorageConfig { reserve_bytes: RESERVE_BYTES, ..StorageConfig::default() },
        // All nodes share one machine.
        encoder: EncoderConfig { threads: 2 },
        metrics: MetricsConfig { listen: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, METRICS_PORT))) },
        repair: RepairConfig {
            scrub_interval: SCRUB_INTERVAL,
            scrub_bytes_per_second: SCRUB_BYTES_PER_SECOND,
            ..RepairConfig::default()
        },
        server: ServerConfig { upload_bytes: UPLOAD_BYTES, ..ServerConfig::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_runs_as_the_user_that_owns_the_volumes() {
        let dockerfile = include_str!("../../../Dockerfile");
        assert!(dockerfile.contains(&format!("\nUSER {USER}:{USER}\n")));
        assert!(dockerfile.contains(&format!("\nWORKDIR {NODE_DIR}\n")));
    }

    #[test]
    fn a_node_is_reached_at_its_own_address() {
        let place = crate::compose::spec::tests::spec("").unwrap().place(0);
        let config = node_config("a".to_owned(), place, Vec::new());
        let announced: Vec<String> = config.network.announced().iter().map(ToString::to_string).collect();
        assert_eq!(announced, ["/ip4/10.213.77.16/tcp/4100"]);
        assert!(NodeConfig::parse(std::path::Path::new("x"), &config.to_toml()).is_ok());
    }
}
