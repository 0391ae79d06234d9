//! What a network of containers is made of: how many nodes, where each is, and how its epochs go.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use clap::value_parser;
use node::cli::{EpochArgs, Exit, Failure};
use protocol::{committee::spread, ledger::parameters::Parameters};
use serde::{Deserialize, Serialize};
use swarm::{Address, address::Transport};

use crate::cluster::check_counts;

/// The port on which each node listens: each has an address of its own.
const PORT: u16 = 4100;
/// The port on which the relay is told what to do.
const CONTROL_PORT: u16 = 4100;
/// The port on which the relay stands for the first node; for the others it has those that follow.
const RELAY_PORT: u16 = 4200;
/// Least MiB of a node's disk: what it leaves free, as much for the ledger, and room for a few blobs.
const DISK_MIB_MIN: u32 = 256;
/// Where the addresses of nodes begin in the subnet. Those before are the network's own, the gateway's, and what the engine
/// gives to whoever comes without an address.
const FIRST_ADDRESS: u32 = 16;
/// Longest prefix of a subnet: room for a dozen nodes.
const PREFIX_MAX: u8 = 27;
/// Shortest prefix: no bridge carries more containers than fit.
const PREFIX_MIN: u8 = 16;
/// The prefix that is chosen where nobody says one.
const PREFIX_USUAL: u8 = 24;
/// Stake behind each node, unless more is needed to be selected.
const NODE_STAKE: u64 = 1_000_000;
/// Length of an epoch where nobody says one: who joins has shards after two, and copying has half of it.
const EPOCH_USUAL: Duration = Duration::from_secs(60);

/// The options that describe a network of containers, on the command line and in the compose file.
#[derive(Clone, Debug, clap::Args)]
pub struct SpecArgs {
    /// Number of nodes that the genesis file names
    #[arg(long, value_name = "N", default_value_t = 7)]
    nodes: u16,
    /// Number of operators who join later: each has a node, the genesis file and a wallet, and nothing else
    #[arg(long, value_name = "K", default_value_t = 1)]
    operators: u16,
    /// Number of shards, spread evenly over the nodes of the genesis
    #[arg(long, value_name = "N", default_value_t = 13)]
    shards: u16,
    /// Where the containers have their addresses, like 10.213.77.0/24 [default: that one, or one chosen by chance for --dir]
    #[arg(long, value_name = "SUBNET")]
    subnet: Option<Subnet>,
    #[command(flatten)]
    epochs: EpochArgs,
    /// For chaos: what is between nodes passes a relay, which loses as this seed says when it is told to
    #[arg(long, value_name = "SEED", hide = true)]
    relay_seed: Option<u64>,
    /// For chaos: each node has a disk of its own of so many MiB, in memory
    #[arg(long, value_name = "MIB", hide = true, value_parser = value_parser!(u32).range(i64::from(DISK_MIB_MIN)..))]
    disk_mib: Option<u32>,
}

/// A network of containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Nodes that the genesis names. They have the numbers from 0 on.
    n_nodes: u16,
    /// Operators who join later, each with a node. Their nodes have the numbers behind.
    n_operators: u16,
    n_shards: u16,
    /// INV: holds an address for each node.
    subnet: Subnet,
    parameters: Parameters,
    /// By what the relay between nodes loses things; there is none without.
    #[serde(default)]
    relay_seed: Option<u64>,
    /// MiB of the disk of each node; without, they share the machine's.
    #[serde(default)]
    disk_mib: Option<u32>,
}

impl SpecArgs {
    /// Nodes with shards that nobody joins later, and epochs of this length.
    #[must_use]
    pub const fn of((nodes, shards): (u16, u16), epoch: Duration) -> Self {
        let epochs = EpochArgs::every(epoch);
        Self { nodes, operators: 0, shards, subnet: None, epochs, relay_seed: None, disk_mib: None }
    }

    /// The same, with a relay between nodes that loses as a seed says, and with small disks, if a size is given.
    #[must_use]
    pub const fn for_chaos(self, seed: u64, disk_mib: Option<u32>) -> Self {
        Self { relay_seed: Some(seed), disk_mib, ..self }
    }

    /// The network that the options describe; `subnet` is for when they name none.
    ///
    /// # Errors
    ///
    /// If the numbers do not fit each other.
    pub fn spec(&self, subnet: impl FnOnce(u16) -> Result<Subnet, Failure>) -> Result<Spec, Failure> {
        let Self { nodes, operators, shards, subnet: named, epochs, relay_seed, disk_mib } = self;
        check_counts(*nodes, *shards)?;
        let usual = u64::try_from(EPOCH_USUAL.as_millis()).unwrap_or(u64::MAX);
        let parameters = epochs.apply(Parameters { epoch_ms: usual, ..Parameters::default() });
        let refuse = |what: String| Failure::new(Exit::Usage, what);
        if *operators > 0 && parameters.epoch_ms == 0 {
            return Err(refuse("without epochs nobody who joins is ever selected".to_owned())
                .hint("give --operators 0, or --epoch"));
        }
        let n_all = nodes.checked_add(*operators).ok_or_else(|| refuse("too many nodes".to_owned()))?;
        if relay_seed.is_some() && RELAY_PORT.checked_add(n_all).is_none() {
            return Err(refuse(format!("no relay has ports for {n_all} nodes")));
        }
        let subnet = named.map_or_else(|| subnet(n_all), Ok)?;
        if subnet.capacity() < u32::from(n_all) {
            return Err(refuse(format!(
                "{subnet} has addresses for {} nodes, not {n_all}",
                subnet.capacity()
            ))
            .hint("give a larger --subnet"));
        }
        Ok(Spec {
            n_nodes: *nodes,
            n_operators: *operators,
            n_shards: *shards,
            subnet,
            parameters,
            relay_seed: *relay_seed,
            disk_mib: *disk_mib,
        })
    }
}

impl Spec {
    /// Number of nodes that the genesis names.
    #[must_use]
    pub const fn n_nodes(&self) -> u16 {
        self.n_nodes
    }

    /// Number of all nodes, those that join later included.
    #[must_use]
    pub const fn n_all(&self) -> u16 {
        self.n_nodes.saturating_add(self.n_operators)
    }

    /// Number of shards.
    #[must_use]
    pub const fn n_shards(&self) -> u16 {
        self.n_shards
    }

    /// Shards of a node in the first epoch; who joins later has none.
    #[must_use]
    pub fn shards(&self, node: u16) -> usize {
        spread(self.n_shards, self.n_nodes).get(usize::from(node)).map_or(0, Vec::len)
    }

    /// Where the containers have their addresses.
    #[must_use]
    pub const fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The network's rules.
    #[must_use]
    pub const fn parameters(&self) -> Parameters {
        self.parameters
    }

    /// Credits behind each node, whenever it joins: with less it would not be selected.
    #[must_use]
    pub fn node_stake(&self) -> u64 {
        NODE_STAKE.max(self.parameters.min_stake)
    }

    /// True if the node is one that joins later.
    #[must_use]
    pub const fn joins_later(&self, node: u16) -> bool {
        node >= self.n_nodes
    }

    /// The IP address of a node.
    #[must_use]
    pub fn ip(&self, node: u16) -> Ipv4Addr {
        self.subnet.address(FIRST_ADDRESS.saturating_add(u32::from(node)))
    }

    /// By what the relay between nodes loses things, if there is a relay.
    #[must_use]
    pub const fn relay_seed(&self) -> Option<u64> {
        self.relay_seed
    }

    /// MiB of the disk of each node, if they have their own.
    #[must_use]
    pub const fn disk_mib(&self) -> Option<u32> {
        self.disk_mib
    }

    /// The IP address of the relay, right before those of the nodes.
    #[must_use]
    pub fn relay_ip(&self) -> Ipv4Addr {
        self.subnet.address(FIRST_ADDRESS - 1)
    }

    /// Where the relay is told what to do.
    #[must_use]
    pub fn control(&self) -> SocketAddr {
        SocketAddr::from((self.relay_ip(), CONTROL_PORT))
    }

    /// Where the relay stands for a node.
    #[must_use]
    pub fn relay_of(&self, node: u16) -> SocketAddr {
        SocketAddr::from((self.relay_ip(), RELAY_PORT.saturating_add(node)))
    }

    /// Where a node listens, behind a relay or without.
    #[must_use]
    pub fn address(&self, node: u16) -> SocketAddr {
        SocketAddr::from((self.ip(node), PORT))
    }

    /// How a node is reached.
    #[must_use]
    pub fn place(&self, node: u16) -> Place {
        if self.relay_seed.is_none() {
            let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
            return Place { listen: tcp(any), external: tcp(self.address(node)) };
        }
        // One that listened everywhere would take its peers, who all come from the relay, for one crowd behind a public address.
        Place { listen: tcp(self.address(node)), external: tcp(self.relay_of(node)) }
    }

    /// The options that describe this network: what [`SpecArgs`] reads.
    #[must_use]
    pub fn args(&self) -> Vec<String> {
        let Self { n_nodes, n_operators, n_shards, subnet, parameters, relay_seed, disk_mib } = self;
        let mut args = vec![
            ("--nodes", n_nodes.to_string()),
            ("--operators", n_operators.to_string()),
            ("--shards", n_shards.to_string()),
            ("--subnet", subnet.to_string()),
            ("--epoch", milliseconds(parameters.epoch_ms)),
        ];
        let usual = Parameters::default();
        if parameters.selection_ms != usual.selection_ms {
            args.push(("--selection", milliseconds(parameters.selection_ms)));
        }
        if parameters.members_max != usual.members_max {
            args.push(("--members-max", parameters.members_max.to_string()));
        }
        if parameters.min_stake != usual.min_stake {
            args.push(("--min-stake", parameters.min_stake.to_string()));
        }
        if let Some(seed) = relay_seed {
            args.push(("--relay-seed", seed.to_string()));
        }
        if let Some(mib) = disk_mib {
            args.push(("--disk-mib", mib.to_string()));
        }
        args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

/// How a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Place {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Address,
    /// Where others reach it
    #[arg(long, value_name = "ADDRESS")]
    pub external: Address,
}

fn tcp(address: SocketAddr) -> Address {
    Address::new(address.ip(), Transport::Tcp, address.port())
}

/// The name of a node, of its service, of its volume and of its mount in the setup.
#[must_use]
pub fn node_name(node: u16) -> String {
    format!("node-{node}")
}

/// A time as options have it.
fn milliseconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

/// A range of IPv4 addresses of which a network of containers is the only user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// INV: the bits behind the prefix are zero.
    base: Ipv4Addr,
    /// INV: [`PREFIX_MIN`] to [`PREFIX_MAX`].
    prefix: u8,
}

impl Subnet {
    /// The one that is used where nobody says one and nothing else is in the way. Private, and none of those from which Docker
    /// takes subnets by itself.
    ///
    /// # Errors
    ///
    /// If no subnet has room for so many nodes.
    pub fn usual(n_all: u16) -> Result<Self, Failure> {
        Self::around(Ipv4Addr::new(10, 213, 77, 0), n_all)
    }

    /// One by chance, so that networks of one machine do not meet.
    ///
    /// # Errors
    ///
    /// If no subnet has room for so many nodes, or the system has no random numbers.
    pub fn by_chance(n_all: u16) -> Result<Self, Failure> {
        let mut random = [0; 2];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::because(Exit::Io, "no random numbers from the system", &error))?;
        // 10.0 and its neighbours are what people have at home and at work.
        Self::around(Ipv4Addr::new(10, random[0] | 0x80, random[1], 0), n_all)
    }

    /// The smallest one around an address that has room for so many nodes.
    fn around(ip: Ipv4Addr, n_all: u16) -> Result<Self, Failure> {
        let subnets = (PREFIX_MIN..=PREFIX_USUAL).rev().map(|prefix| {
            let base = Ipv4Addr::from_bits(ip.to_bits() & mask(prefix));
            Self { base, prefix }
        });
        subnets
            .into_iter()
            .find(|subnet| subnet.capacity() >= u32::from(n_all))
            .ok_or_else(|| Failure::new(Exit::Usage, format!("{n_all} nodes are too many for one network")))
    }

    /// Nodes for which it has addresses.
    fn capacity(self) -> u32 {
        // The last address is the broadcast's.
        (!mask(self.prefix)).saturating_sub(FIRST_ADDRESS)
    }

    fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits().saturating_add(offset))
    }
}

/// The bits of a prefix of 1 to 32.
const fn mask(prefix: u8) -> u32 {
    u32::MAX << (32 - prefix)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(base, prefix)| Some((base.parse().ok()?, prefix)));
        let (base, prefix): (Ipv4Addr, &str) = parts.ok_or("expected a subnet like 10.213.77.0/24")?;
        let allowed = PREFIX_MIN..=PREFIX_MAX;
        let prefix: u8 = prefix
            .parse()
            .ok()
            .filter(|prefix| allowed.contains(prefix))
            .ok_or_else(|| format!("the prefix is a number from {PREFIX_MIN} to {PREFIX_MAX}"))?;
        let first = Ipv4Addr::from_bits(base.to_bits() & mask(prefix));
        if first != base {
            return Err(format!("the subnet around {base} is {first}/{prefix}"));
        }
        if !base.is_private() {
            return Err(format!("{base} is not private: its addresses belong to others"));
        }
        Ok(Self { base, prefix })
    }
}

impl Serialize for Subnet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        spec: SpecArgs,
    }

    /// The network of a command line.
    pub(crate) fn spec(line: &str) -> Result<Spec, Failure> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().spec.spec(Subnet::usual)
    }

    #[test]
    fn a_network_survives_its_options() {
        for line in [
            "",
            "--nodes 10 --operators 2 --epoch 30s",
            "--nodes 4 --shards 4 --operators 0 --epoch 0s --subnet 10.1.2.0/24",
            "--epoch 90500ms --selection 10s --members-max 9 --min-stake 2000000",
            "--nodes 300 --shards 1000",
            "--relay-seed 18446744073709551615 --disk-mib 1024",
        ] {
            let made = spec(line).unwrap();
            assert_eq!(spec(&made.args().join(" ")).unwrap(), made, "{line}");
            let json = serde_json::to_string(&made).unwrap();
            assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), made, "{json}");
        }
    }

    #[test]
    fn each_node_has_an_address_of_its_own_in_the_subnet() {
        let made = spec("--nodes 300 --shards 1000 --operators 3").unwrap();
        assert_eq!((made.subnet().to_string().as_str(), made.n_all()), ("10.213.76.0/23", 303));
        let ips: std::collections::BTreeSet<_> = (0..made.n_all()).map(|node| made.ip(node)).collect();
        assert_eq!(ips.len(), 303);
        assert_eq!(ips.first().unwrap().to_string(), "10.213.76.16");
        assert!(ips.last().unwrap() < &Ipv4Addr::new(10, 213, 77, 255));
        assert!(!made.joins_later(299) && made.joins_later(300));
    }

    #[test]
    fn a_relay_stands_between_nodes_and_before_their_addresses() {
        let plain = spec("").unwrap().place(2);
        assert_eq!(plain.listen.to_string(), "/ip4/0.0.0.0/tcp/4100");
        assert_eq!(plain.external.to_string(), "/ip4/10.213.77.18/tcp/4100");
        let made = spec("--relay-seed 1").unwrap();
        let relayed = made.place(2);
        assert_eq!(relayed.listen.to_string(), "/ip4/10.213.77.18/tcp/4100");
        assert_eq!(relayed.external.to_string(), "/ip4/10.213.77.15/tcp/4202");
        assert_eq!(made.control().to_string(), "10.213.77.15:4100");
        let failure = spec("--relay-seed 1 --operators 65000 --subnet 10.0.0.0/16").unwrap_err();
        assert!(failure.to_string().contains("no relay has ports for 65007 nodes"), "{failure}");
    }

    #[test]
    fn a_network_that_was_made_before_there_were_relays_is_read() {
        let made = spec("").unwrap();
        let mut json = serde_json::to_value(&made).unwrap();
        for field in ["relay_seed", "disk_mib"] {
            json.as_object_mut().unwrap().remove(field).unwrap();
        }
        assert_eq!(serde_json::from_value::<Spec>(json).unwrap(), made);
    }

    #[test]
    fn shards_are_spread_over_the_genesis() {
        let made = spec("--nodes 7 --shards 13").unwrap();
        assert_eq!([0, 5, 6, 7].map(|node| made.shards(node)), [2, 2, 1, 0]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_to_do() {
        for (line, words) in [
            ("--nodes 14", "each node needs at least one shard"),
            ("--nodes 0", "0 nodes"),
            ("--epoch 0s", "give --operators 0, or --epoch"),
            ("--nodes 20 --shards 20 --subnet 10.0.0.0/27", "addresses for 15 nodes, not 21"),
        ] {
            let failure = spec(line).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(failure.to_string().contains(words), "{line}: {failure}");
        }
        assert!(spec("--nodes 15 --shards 15 --operators 0 --subnet 10.0.0.0/27").is_ok());
    }

    #[test]
    fn stake_is_never_below_what_selection_asks_for() {
        assert_eq!(spec("--min-stake 5").unwrap().node_stake(), NODE_STAKE);
        assert_eq!(spec("--min-stake 3000000").unwrap().node_stake(), 3_000_000);
    }

    #[test]
    fn what_is_no_subnet_says_why() {
        for (text, words) in [
            ("", "expected"),
            ("10.0.0.0", "expected"),
            ("10.0.0.0/8", "16 to 27"),
            ("10.0.0.0/28", "16 to 27"),
            ("10.0.0.0/x", "16 to 27"),
            ("10.0.0.5/24", "is 10.0.0.0/24"),
            ("8.8.8.0/24", "not private"),
            ("fd00::/64", "expected"),
        ] {
            let error = text.parse::<Subnet>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_subnet_by_chance_can_be_said() {
        for n_all in [1, 239, 240, 5000] {
            let subnet = Subnet::by_chance(n_all).unwrap();
            assert_eq!(subnet.to_string().parse(), Ok(subnet));
            assert!(subnet.capacity() >= u32::from(n_all));
        }
    }
}
