//! Writes the compose file of a network: a pure function.
//!
//! ```text
//!  keeper       only where disks are small: holds them, as what is in memory goes with its last user
//!  relay        only for chaos: stands between nodes
//!  setup        once, before all others: keys, genesis and client.toml, each into the volume it belongs to
//!  node-0 ..    nodes of the genesis
//!  node-N ..    nodes of operators who join later: their volumes hold the genesis file and a wallet; they make their keys and join
//! ```
//!
//! The file keeps to what docker-compose 1.29 and Compose 2 both understand.

use std::fmt::Write as _;

use super::{
    inside::{NET_VOLUME, NODE_DIR, SETUP_DIR},
    spec::{Place, Spec, node_name},
};

/// The service that makes the network.
pub const SETUP_SERVICE: &str = "setup";
/// The service between nodes, where there is to be chaos.
const RELAY_SERVICE: &str = "relay";
/// The service that holds volumes that are in memory.
const KEEPER_SERVICE: &str = "keeper";
/// The network that all nodes are on.
pub const NETWORK: &str = "floe";
/// The image of all containers, unless somebody names another.
pub const IMAGE: &str = "floe:local";

/// Memory of a container, in MiB: several times the most that a node was seen to take (`docs/PERFORMANCE.md`, Memory), and room for
/// [`UPLOAD_BYTES`](super::inside::UPLOAD_BYTES) that arrive, all that repair gathers and all answers that are being sent.
pub const MEMORY_MIB: u32 = 768;
/// Processes and threads of a container: a node has some 20, and more for a moment.
const PIDS: u32 = 256;
/// Cores of a container: one that is busy leaves the others room.
const CPUS: &str = "1.0";
/// Seconds that a node has to stop; more than it gives its own parts.
pub(super) const STOP_SECONDS: u32 = 30;

/// The compose file of a network, whose containers are of this image.
///
/// # Panics
///
/// Never: a text takes what is written to it.
#[must_use]
pub fn compose_file(spec: &Spec, image: &str) -> String {
    let mut text = String::new();
    write_file(&mut text, spec, image).expect("a text takes what is written to it");
    text
}

fn write_file(text: &mut String, spec: &Spec, image: &str) -> std::fmt::Result {
    let args = spec.args();
    let (made_by, image) = (args.join(" "), quoted(image));
    // A disk in memory is its user's memory.
    let memory_mib = MEMORY_MIB.saturating_add(spec.disk_mib().unwrap_or(0));
    let health = list(["CMD", "/floe-testnet", "floe", "node", "health", "--dir", NODE_DIR]);
    write!(
        text,
        r#"# A Floe network of containers, each with an address of its own. Made by
#   floe-testnet compose {made_by}
# Build the image first: testnet/image. docs/OPERATING.md says the rest, under "Containers".

x-common: &common
  image: {image}
  pull_policy: never
  read_only: true
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  mem_limit: {memory_mib}m
  pids_limit: {PIDS}
  cpus: {CPUS}
  logging:
    driver: json-file
    options: {{max-size: "10m", max-file: "3"}}

x-node: &node
  <<: *common
  depends_on:
    {SETUP_SERVICE}: {{condition: service_completed_successfully}}
  restart: unless-stopped
  stop_grace_period: {STOP_SECONDS}s
  healthcheck:
    test: {health}
    interval: 5s
    timeout: 5s
    retries: 3
    start_period: 60s

services:
"#
    )?;
    write_setup(text, spec, &args)?;
    if spec.disk_mib().is_some() {
        write_keeper(text, spec)?;
    }
    if spec.relay_seed().is_some() {
        write_relay(text, spec, &args)?;
    }
    for node in 0..spec.n_all() {
        write_node(text, spec, node)?;
    }
    let subnet = spec.subnet();
    write!(
        text,
        "
networks:
  {NETWORK}:
    driver: bridge
    ipam:
      config:
        - subnet: {subnet}

volumes:
  {NET_VOLUME}: {{}}
"
    )?;
    let volume = spec.disk_mib().map_or_else(
        || "{}".to_owned(),
        |mib| {
            let options = format!("size={mib}m,mode=0700,nodev,nosuid,noexec");
            format!("{{driver: local, driver_opts: {{type: tmpfs, device: tmpfs, o: \"{options}\"}}}}")
        },
    );
    (0..spec.n_all()).try_for_each(|node| writeln!(text, "  {}: {volume}", node_name(node)))
}

/// New volumes belong to root: it gives them to the user of the nodes, and becomes that user.
fn write_setup(text: &mut String, spec: &Spec, args: &[String]) -> std::fmt::Result {
    let command = ["container", "setup"].into_iter().chain(args.iter().map(String::as_str));
    writeln!(text, "  {SETUP_SERVICE}:\n    <<: *common\n    command: {}", list(command))?;
    writeln!(text, "    user: \"0:0\"\n    cap_add: [CHOWN, SETGID, SETUID]")?;
    if spec.disk_mib().is_some() {
        writeln!(text, "    depends_on:\n      {KEEPER_SERVICE}: {{condition: service_started}}")?;
    }
    writeln!(text, "    network_mode: none\n    restart: \"no\"\n    volumes:")?;
    writeln!(text, "      - {NET_VOLUME}:{SETUP_DIR}/{NET_VOLUME}")?;
    write_volumes(text, spec)
}

fn write_volumes(text: &mut String, spec: &Spec) -> std::fmt::Result {
    (0..spec.n_all()).try_for_each(|node| {
        let name = node_name(node);
        writeln!(text, "      - {name}:{SETUP_DIR}/{name}")
    })
}

/// Without it, a node that ends would lose its disk.
fn write_keeper(text: &mut String, spec: &Spec) -> std::fmt::Result {
    let command = list(["container", "keep"]);
    writeln!(text, "\n  {KEEPER_SERVICE}:\n    <<: *common\n    command: {command}")?;
    writeln!(text, "    network_mode: none\n    restart: \"no\"\n    volumes:")?;
    write_volumes(text, spec)
}

/// It is not started again: one that was would not know what it had been told.
fn write_relay(text: &mut String, spec: &Spec, args: &[String]) -> std::fmt::Result {
    let command = list(["container", "relay"].into_iter().chain(args.iter().map(String::as_str)));
    writeln!(text, "\n  {RELAY_SERVICE}:\n    <<: *common\n    command: {command}\n    restart: \"no\"")?;
    writeln!(text, "    networks:\n      {NETWORK}: {{ipv4_address: {}}}", spec.relay_ip())
}

fn write_node(text: &mut String, spec: &Spec, node: u16) -> std::fmt::Result {
    let (name, ip, stake) = (node_name(node), spec.ip(node), spec.node_stake().to_string());
    let command = if spec.joins_later(node) {
        let Place { listen, external } = spec.place(node);
        let (listen, external) = (listen.to_string(), external.to_string());
        let args = ["--name", &name, "--listen", &listen, "--external", &external, "--stake", &stake];
        list(["container", "join"].into_iter().chain(args))
    } else if spec.relay_seed().is_some() {
        // Its clock can be wrong.
        list(["container", "run"])
    } else {
        list(["floe", "node", "run", "--dir", NODE_DIR])
    };
    writeln!(text, "\n  {name}:\n    <<: *node\n    command: {command}")?;
    writeln!(text, "    networks:\n      {NETWORK}: {{ipv4_address: {ip}}}")?;
    writeln!(text, "    volumes:\n      - {name}:{NODE_DIR}")
}

/// A list of YAML on one line, each word quoted.
fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    format!("[{}]", words.into_iter().map(quoted).collect::<Vec<_>>().join(", "))
}

/// A text of YAML: a quoted text of JSON is one. A dollar sign would be a variable to whoever reads the file.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace('$', "$$")).to_string()
}

#[cfg(test)]
mod tests {
    use super::{super::spec::tests::spec, *};

    /// The one that is checked in.
    const CHECKED_IN: &str = include_str!("../../docker-compose.yml");

    #[test]
    fn the_file_that_is_checked_in_is_what_the_generator_writes() {
        let text = compose_file(&spec("").unwrap(), IMAGE);
        assert!(
            text == CHECKED_IN,
            "write it anew with: floe-testnet compose --out testnet/docker-compose.yml; it should be:\n{text}"
        );
    }

    #[test]
    fn each_node_has_its_address_its_volume_and_its_command() {
        let text = compose_file(&spec("--nodes 10 --operators 2 --epoch 30s").unwrap(), IMAGE);
        for node in 0..12 {
            let ip = 16 + node;
            let service = format!("\n  node-{node}:\n    <<: *node\n    command: [");
            assert_eq!(text.matches(&service).count(), 1, "{node}");
            assert_eq!(text.matches(&format!("{{ipv4_address: 10.213.77.{ip}}}\n")).count(), 1, "{node}");
            // Its own mount, and that of the setup.
            assert_eq!(text.matches(&format!("- node-{node}:/node\n")).count(), 1, "{node}");
            assert_eq!(text.matches(&format!("- node-{node}:/testnet/node-{node}\n")).count(), 1, "{node}");
            assert_eq!(text.matches(&format!("\n  node-{node}: {{}}\n")).count(), 1, "{node}");
        }
        assert_eq!(text.matches("\"join\"").count(), 2);
        assert_eq!(text.matches("\"run\"").count(), 10);
        assert!(text.contains("\"--external\", \"/ip4/10.213.77.27/tcp/4100\", \"--stake\", \"1000000\""));
        assert!(text.contains("\"setup\", \"--nodes\", \"10\", \"--operators\", \"2\""));
    }

    #[test]
    fn for_chaos_a_relay_stands_between_nodes_and_a_keeper_holds_their_disks() {
        let text = compose_file(&spec("--operators 0 --relay-seed 5 --disk-mib 512").unwrap(), IMAGE);
        let relay =
            "\n  relay:\n    <<: *common\n    command: [\"container\", \"relay\", \"--nodes\", \"7\",";
        assert_eq!(text.matches(relay).count(), 1);
        assert!(text.contains("\"--relay-seed\", \"5\", \"--disk-mib\", \"512\"]\n    restart: \"no\"\n"));
        assert_eq!(text.matches("{ipv4_address: 10.213.77.15}").count(), 1);
        assert_eq!(text.matches("command: [\"container\", \"run\"]").count(), 7);
        assert!(!text.contains("\"node\", \"run\""));
        let keeper =
            "\n  keeper:\n    <<: *common\n    command: [\"container\", \"keep\"]\n    network_mode: none\n";
        assert_eq!(text.matches(keeper).count(), 1);
        assert!(text.contains(
            "    depends_on:\n      keeper: {condition: service_started}\n    network_mode: none\n"
        ));
        for node in 0..7 {
            // The keeper's mount, and that of the setup.
            assert_eq!(text.matches(&format!("- node-{node}:/testnet/node-{node}\n")).count(), 2, "{node}");
            let volume = format!(
                "\n  node-{node}: {{driver: local, driver_opts: {{type: tmpfs, device: tmpfs, o: \"size=512m,"
            );
            assert_eq!(text.matches(&volume).count(), 1, "{node}");
        }
        assert!(text.contains(&format!("mem_limit: {}m\n", MEMORY_MIB + 512)));
        let relayed = compose_file(&spec("--operators 0 --relay-seed 5").unwrap(), IMAGE);
        assert!(!relayed.contains("keeper") && !relayed.contains("tmpfs"));
    }

    #[test]
    fn what_an_image_is_called_is_a_text() {
        let text = compose_file(&spec("").unwrap(), "a\"b: $X");
        assert!(text.contains("  image: \"a\\\"b: $$X\"\n"), "{text}");
    }

    #[test]
    fn a_network_without_operators_has_none() {
        let text = compose_file(&spec("--nodes 4 --shards 4 --operators 0").unwrap(), IMAGE);
        assert!(!text.contains("join") && !text.contains("node-4"));
    }
}
