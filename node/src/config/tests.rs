use super::*;
use crate::keys::NodeKeys;

fn parse(text: &str) -> Result<NodeConfig, ConfigError> {
    NodeConfig::parse(Path::new("config.toml"), text)
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// `section.key` of every value.
fn keys(table: &toml::Table) -> Vec<String> {
    let of_value = |(key, value): (&String, &toml::Value)| match value.as_table() {
        Some(section) => keys(section).iter().map(|inner| format!("{key}.{inner}")).collect(),
        None => vec![key.clone()],
    };
    table.iter().flat_map(of_value).collect()
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    assert_eq!(parse(template::EXAMPLE).unwrap(), NodeConfig::default());
    assert_eq!(parse("").unwrap(), NodeConfig::default());
    let example: toml::Table = toml::from_str(template::EXAMPLE).unwrap();
    let known = toml::Table::try_from(NodeConfig::default()).unwrap();
    assert_eq!(keys(&example), keys(&known));
}

#[test]
fn the_examples_explain_every_key() {
    for example in [template::EXAMPLE, ClientFile::EXAMPLE] {
        let lines: Vec<&str> = example.lines().collect();
        for (before, line) in lines.iter().zip(&lines[1..]) {
            if line.contains(" = ") && !line.starts_with('#') {
                assert!(before.starts_with("# "), "not explained: {line}");
            }
        }
    }
}

#[test]
fn the_example_for_clients_shows_every_key_with_its_default() {
    let example: toml::Table = toml::from_str(ClientFile::EXAMPLE).unwrap();
    assert_eq!(example, toml::Table::try_from(ClientFile::default()).unwrap());
}

#[test]
fn a_rendered_configuration_parses_to_itself() {
    assert_eq!(NodeConfig::default().to_toml().lines().count(), template::EXAMPLE.lines().count());
    let config = NodeConfig {
        name: "a \"quoted\" name".to_owned(),
        genesis: PathBuf::from("../other.toml"),
        network: NetworkConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()],
            external: vec!["/dns/example.org/tcp/2".parse().unwrap()],
            bootstrap: vec![format!("/ip4/127.0.0.1/tcp/3/p2p/{}", "0a".repeat(32)).parse().unwrap()],
            request_timeout: Duration::from_millis(1500),
        },
        storage: StorageConfig { reserve_bytes: 7, ..StorageConfig::default() },
        encoder: EncoderConfig { threads: 3 },
        metrics: MetricsConfig { listen: Some("127.0.0.1:9464".parse().unwrap()) },
        ..NodeConfig::default()
    };
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
}

#[test]
fn a_key_without_a_default_is_a_comment_until_it_has_a_value() {
    let off = NodeConfig::default();
    assert!(off.to_toml().contains("\n# listen = \"127.0.0.1:9464\"\n"));
    assert_eq!(parse(&off.to_toml()).unwrap().metrics.listen, None);
    let metrics = MetricsConfig { listen: Some("[::1]:9000".parse().unwrap()) };
    let on = NodeConfig { metrics, ..off };
    assert!(on.to_toml().ends_with("\nlisten = \"[::1]:9000\"\n"), "{}", on.to_toml());
}

#[test]
fn a_refusal_names_the_file_the_line_and_the_key() {
    let unknown = refusal("name = \"a\"\n[network]\nlisten_on = []\n");
    assert!(unknown.starts_with("config.toml:3: unknown field `listen_on`"), "{unknown}");
    assert!(unknown.contains("`listen`"), "{unknown}");
    assert!(!unknown.contains('\n'), "{unknown}");
    let broken = refusal("name = \"a\"\nname = \"b\"\n");
    assert!(broken.starts_with("config.toml:2: duplicate key"), "{broken}");
}

#[test]
fn values_out_of_range_are_refused_on_their_line() {
    for (line, text) in [
        (1, "name = \"\""),
        (1, "name = \"a\\u202eb\""),
        (2, "[network]\nlisten = []"),
        (2, "[network]\nlisten = [\"/dns/example.org/tcp/1\"]"),
        (2, "[network]\nlisten = [\"127.0.0.1:80\"]"),
        (2, "[network]\nbootstrap = [\"/ip4/127.0.0.1/tcp/80\"]"),
        (2, "[network]\nbootstrap = [\"/ip4/127.0.0.1/tcp/80/p2p/abc\"]"),
        (2, "[network]\nrequest_timeout = \"2m\""),
        (2, "[network]\nrequest_timeout = \"0s\""),
        (2, "[network]\nrequest_timeout = 20"),
        (2, "[storage]\nlog_file_bytes = 1"),
        (2, "[storage]\nreserve_bytes = -1"),
        (2, "[encoder]\nthreads = 5000"),
        (2, "[repair]\nsegments_in_flight = 0"),
        (2, "[repair]\nscrub_interval = \"1ms\""),
        (2, "[repair]\nsync_interval = \"10s\""),
        (2, "[server]\nupload_bytes = 1000"),
        (2, "[metrics]\nlisten = \"127.0.0.1:0\""),
        (2, "[metrics]\nlisten = \"localhost:9464\""),
        (2, "[metrics]\nlisten = \"/ip4/127.0.0.1/tcp/9464\""),
        (2, "[server]\npending_ttl = \"forever\""),
    ] {
        let refusal = refusal(text);
        assert!(refusal.starts_with(&format!("config.toml:{line}: ")), "{text}: {refusal}");
    }
}

#[test]
fn there_are_as_many_bootstrap_addresses_as_allowed_and_no_more() {
    let address = format!("\"/ip4/127.0.0.1/tcp/1/p2p/{}\"", "0a".repeat(32));
    let text = |n| format!("[network]\nbootstrap = [{}]", vec![address.clone(); n].join(", "));
    assert_eq!(parse(&text(64)).unwrap().network.bootstrap.len(), 64);
    assert!(refusal(&text(65)).contains("65 bootstrap addresses, at most 64"), "{}", refusal(&text(65)));
}

#[test]
fn addresses_that_nobody_else_can_dial_are_not_announced() {
    let mut network = NetworkConfig::default();
    assert!(network.announced().is_empty());
    network.listen = ["/ip4/0.0.0.0/tcp/1", "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/2"]
        .map(|text| text.parse().unwrap())
        .to_vec();
    assert_eq!(network.announced(), ["/ip4/127.0.0.1/tcp/2".parse().unwrap()]);
    network.external = vec!["/dns/example.org/tcp/3".parse().unwrap()];
    assert_eq!(network.announced(), network.external);
}

#[test]
fn paths_start_from_the_file_that_names_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(CONFIG_FILE), "genesis = \"../g.toml\"").unwrap();
    let config = NodeConfig::load(dir.path()).unwrap();
    assert_eq!(config.genesis, dir.path().join("../g.toml"));
    assert_eq!(config.storage.dir, dir.path().join("data"));
    let client = dir.path().join("client.toml");
    std::fs::write(&client, "request_timeout = \"3s\"").unwrap();
    let client = ClientFile::load(&client).unwrap();
    assert_eq!(client.genesis, dir.path().join("genesis.toml"));
    assert_eq!(client.config().request_timeout, Duration::from_secs(3));
    let missing = client.load_genesis().unwrap_err().to_string();
    assert_eq!(missing, format!("cannot read {}", client.genesis.display()));
}

#[test]
fn what_is_no_configuration_at_all_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.toml");
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(ClientFile::load(&path), Err(ConfigError::Read { .. })));
    std::fs::write(&path, "a".repeat(2 << 20)).unwrap();
    assert!(matches!(ClientFile::load(&path), Err(ConfigError::Read { .. })));
    std::fs::write(&path, "genesis = \"g\"\nretries = 3\n").unwrap();
    assert!(ClientFile::load(&path).unwrap_err().to_string().contains("client.toml:2: unknown field"));
}

#[test]
fn a_genesis_that_is_none_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("genesis.toml");
    std::fs::write(&path, "version = 1\nname = \"x\"\nn_shards = 7\nmembers = []\ncolour = 1\n").unwrap();
    let error = load_genesis(&path).unwrap_err().to_string();
    assert!(error.contains("genesis.toml:5: unknown field `colour`"), "{error}");
    std::fs::write(&path, "version = 1\nname = \"x\"\nn_shards = 7\nmembers = []\n").unwrap();
    assert!(matches!(load_genesis(&path), Err(ConfigError::Genesis { .. })));
}

#[test]
fn a_member_file_parses_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let member =
        MemberFile::new("a".to_owned(), &NodeKeys::generate().unwrap(), NetworkConfig::default().listen);
    let path = dir.path().join(MemberFile::NAME);
    create_new(&path, &member.to_toml()).unwrap();
    assert_eq!(MemberFile::load(&path).unwrap(), member);
    assert!(matches!(create_new(&path, ""), Err(ConfigError::Write { .. })));
}
