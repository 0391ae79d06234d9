//! The `floe` command as scripts see it: what needs no network.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::{TempDir, tempdir};

const USAGE: i32 = 2;
const IO: i32 = 5;

fn floe() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floe"));
    command.env_remove("FLOE_NETWORK").env_remove("FLOE_LOG").env_remove("FLOE_WALLET").stdin(Stdio::null());
    // No test finds, or makes, a wallet of whoever runs it.
    command.env("HOME", "/nonexistent");
    command
}

fn run(args: &[&str]) -> Output {
    floe().args(args).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

fn succeed(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output).to_owned()
}

fn json(args: &[&str]) -> serde_json::Value {
    let text = succeed(args);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Runs what must fail: with this code, nothing on standard output, and one line that holds these words.
#[track_caller]
fn refuse(args: &[&str], code: i32, words: &[&str]) {
    refused(&run(args), code, words);
}

#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    let line = stderr(output).trim_end();
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(stdout(output), "");
    assert!(line.starts_with("error: ") && line.lines().count() == 1, "{line}");
    for word in words {
        assert!(line.contains(word), "`{word}` is not in: {line}");
    }
    // Signs of Rust's debug form.
    for sign in ["Os {", "Some(", "Error(", "kind:", "panicked"] {
        assert!(!line.contains(sign), "{line}");
    }
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().unwrap().to_owned()
}

fn file(dir: &TempDir, name: &str, content: &[u8]) -> String {
    fs::write(dir.path().join(name), content).unwrap();
    path(dir, name)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Makes a node, and returns its directory.
fn init(dir: &TempDir, name: &str, port: &str) -> String {
    let node = path(dir, name);
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    succeed(&["node", "init", "--dir", &node, "--name", name, "--listen", &listen]);
    node
}

/// Makes a genesis file of four nodes, and a client.toml beside it.
fn network(dir: &TempDir, n_shards: &str) -> String {
    let nodes: Vec<String> = (0..4).map(|i| init(dir, &format!("n{i}"), &format!("{}", 100 + i))).collect();
    let members: Vec<String> = nodes.iter().map(|node| format!("{node}/member.toml")).collect();
    let mut args = vec!["genesis", "--shards", n_shards, "--name", "test", "--out"];
    let genesis = path(dir, "genesis.toml");
    args.push(&genesis);
    args.extend(members.iter().map(String::as_str));
    succeed(&args);
    file(dir, "client.toml", b"request_timeout = \"1s\"\nconnect_timeout = \"1s\"\n")
}

#[test]
fn a_blob_id_depends_on_the_bytes_and_the_shards_and_on_nothing_else() {
    let dir = tempdir().unwrap();
    let (a, b) = (file(&dir, "a", b"some bytes"), file(&dir, "b", b"some bytes"));
    let id = succeed(&["blob-id", "--shards", "13", &a]);
    assert_eq!(id.trim_end().len(), 43);
    assert_eq!(succeed(&["blob-id", &b, "--shards", "13"]), id);
    assert_ne!(succeed(&["blob-id", &b, "--shards", "14"]), id);
    let empty = file(&dir, "empty", b"");
    let document = json(&["--json", "blob-id", &empty, "--shards", "4"]);
    assert_eq!(document["size"], 0);
    assert_eq!(document["blob_id"].as_str().unwrap().len(), 43);
}

#[test]
fn a_blob_id_takes_the_shards_from_the_network() {
    let dir = tempdir().unwrap();
    let client = network(&dir, "9");
    let blob = file(&dir, "blob", &[7; 100_000]);
    let id = succeed(&["blob-id", "--shards", "9", &blob]);
    assert_eq!(succeed(&["--network", &client, "blob-id", &blob]), id);
    // A directory stands for the client.toml in it, and the environment for the option.
    let output = floe().env("FLOE_NETWORK", dir.path()).args(["blob-id", &blob]).output().unwrap();
    assert_eq!(stdout(&output), id);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = tempdir().unwrap();
    let (missing, here) = (path(&dir, "missing"), path(&dir, "."));
    refuse(&["blob-id", "--shards", "13", &missing], IO, &["missing", "No such file"]);
    refuse(&["blob-id", "--shards", "13", &here], IO, &["not a regular file"]);
    let blob = file(&dir, "blob", b"x");
    // Found before anything is sent, also if it is not the first.
    refuse(&["--network", &path(&dir, "n"), "store", &blob, &missing], IO, &["missing"]);
    refuse(&["blob-id", &blob], USAGE, &["no network is named", "--shards"]);
    refuse(&["blob-id", "--shards", "3", &blob], USAGE, &["4 to 1000"]);
}

#[test]
fn malformed_blob_ids_are_a_usage_error() {
    for id in ["", "abc", &"A".repeat(44), &"!".repeat(43), &format!("{}é", "A".repeat(42)), &"_".repeat(43)]
    {
        for command in ["read", "status"] {
            let output = run(&["--network", "n", command, id]);
            assert_eq!(output.status.code(), Some(USAGE), "{id}");
            assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
            assert_eq!(stdout(&output), "");
        }
    }
}

#[test]
fn a_read_that_cannot_begin_leaves_nothing_behind() {
    let dir = tempdir().unwrap();
    let id = "A".repeat(43);
    let (missing, out) = (path(&dir, "missing.toml"), path(&dir, "out"));
    refuse(&["--network", &missing, "read", &id, "--out", &out], IO, &["missing.toml", "client.toml"]);
    refuse(&["--network", &missing, "read", &id, "--out", &path(&dir, "no/out")], IO, &["no/out"]);
    refuse(&["--network", &missing, "read", &id, "--out", &path(&dir, ".")], IO, &["not a regular file"]);
    refuse(&["--network", &missing, "--json", "read", &id], USAGE, &["--out"]);
    refuse(&["read", &id], USAGE, &["--network", "FLOE_NETWORK"]);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_network_that_nobody_runs_is_unavailable_and_an_unfinished_read_is_removed() {
    let dir = tempdir().unwrap();
    let client = network(&dir, "4");
    let id = "A".repeat(43);
    let before = names(dir.path());
    refuse(&["--network", &client, "read", &id, "--out", &path(&dir, "out")], 4, &["is the network up"]);
    refuse(&["--network", &client, "status", &id], 4, &["is the network up"]);
    assert_eq!(names(dir.path()), before);
    let health = run(&["--network", &client, "--json", "health"]);
    assert_eq!(health.status.code(), Some(4));
    let document: serde_json::Value = serde_json::from_slice(&health.stdout).unwrap();
    assert_eq!(document["nodes"].as_array().unwrap().len(), 4);
    assert_eq!(document["nodes"][0]["reachable"], false);
}

#[test]
fn configuration_files_are_refused_with_file_and_line() {
    let dir = tempdir().unwrap();
    let client = network(&dir, "4");
    fs::write(&client, "genesis = \"genesis.toml\"\n\ntimeout = \"1s\"\n").unwrap();
    refuse(&["--network", &client, "health"], USAGE, &["client.toml:3: unknown field `timeout`"]);
    fs::write(&client, "request_timeout = \"an hour\"\n").unwrap();
    refuse(&["--network", &client, "health"], USAGE, &["client.toml:1:"]);
    fs::write(&client, "genesis = \"n0/member.toml\"\n").unwrap();
    refuse(&["--network", &client, "health"], USAGE, &["member.toml", "version"]);
    fs::write(&client, "genesis = \"nowhere.toml\"\n").unwrap();
    refuse(&["--network", &client, "health"], IO, &["nowhere.toml"]);
    let config = format!("{}/config.toml", path(&dir, "n0"));
    fs::write(&config, "[repair]\nsegment_in_flight = 4\n").unwrap();
    let run = ["node", "run", "--dir", &path(&dir, "n0")];
    refuse(&run, USAGE, &["config.toml:2: unknown field `segment_in_flight`", "`segments_in_flight`"]);
}

#[test]
fn a_node_is_made_once_with_secrets_that_only_its_owner_reads() {
    let dir = tempdir().unwrap();
    let node = path(&dir, "node");
    let document = json(&["node", "init", "--json", "--dir", &node, "--listen", "/ip4/127.0.0.1/tcp/1"]);
    assert_eq!(document["peer"].as_str().unwrap().len(), 64);
    assert_eq!(names(Path::new(&node)), ["config.toml", "keys", "member.toml"]);
    for key in ["peer.key", "bls.key"] {
        let path = format!("{node}/keys/{key}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let member = fs::read_to_string(format!("{node}/member.toml")).unwrap();
    assert!(member.contains("/ip4/127.0.0.1/tcp/1"), "{member}");
    refuse(&["node", "init", "--dir", &node], USAGE, &["holds a node already"]);
    fs::remove_file(format!("{node}/config.toml")).unwrap();
    refuse(&["node", "init", "--dir", &node], USAGE, &["never overwritten"]);
    refuse(&["node", "init", "--dir", &path(&dir, "b"), "--name", "a\nb"], USAGE, &["name"]);
    refuse(
        &["node", "init", "--dir", &path(&dir, "b"), "--listen", "/dns/a.example/tcp/1"],
        USAGE,
        &["IP address"],
    );
    assert!(!dir.path().join("b").exists());
}

#[test]
fn a_node_does_not_run_without_its_files_or_with_open_secrets() {
    let dir = tempdir().unwrap();
    let nowhere = path(&dir, "nowhere");
    refuse(&["node", "run", "--dir", &nowhere], IO, &["config.toml", "floe node init"]);
    let node = init(&dir, "n", "1");
    refuse(&["node", "run", "--dir", &node], IO, &["genesis.toml", "genesis file"]);
    let key = format!("{node}/keys/bls.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refuse(&["node", "run", "--dir", &node], USAGE, &["0644", "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = fs::read_to_string(&key).unwrap();
    fs::write(&key, &secret[1..]).unwrap();
    let output = run(&["node", "run", "--dir", &node]);
    refused(&output, USAGE, &["bls.key is not a key"]);
    assert!(!stderr(&output).contains(&secret[1..20]));
}

#[test]
fn a_genesis_needs_members_that_fit() {
    let dir = tempdir().unwrap();
    network(&dir, "5");
    let members: Vec<String> =
        (0..4).map(|i| format!("{}/member.toml", path(&dir, &format!("n{i}")))).collect();
    let genesis = path(&dir, "genesis.toml");
    let other = path(&dir, "other.toml");
    let make = |shards, out: &str, members: &[&String]| {
        let mut args = vec!["genesis", "--shards", shards, "--name", "x", "--out", out];
        args.extend(members.iter().map(|member| member.as_str()));
        run(&args)
    };
    let all: Vec<&String> = members.iter().collect();
    refused(&make("5", &genesis, &all), IO, &["genesis.toml", "exists"]);
    refused(&make("3", &other, &all), USAGE, &["3 shards"]);
    refused(&make("4", &other, &[&members[0], &members[0]]), USAGE, &["two members are called `n0`"]);
    let mut forged = fs::read_to_string(&members[0]).unwrap();
    let stolen = fs::read_to_string(&members[1]).unwrap();
    let line = |text: &str, key: &str| text.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    forged = forged.replace(&line(&forged, "public_key"), &line(&stolen, "public_key"));
    let forged = file(&dir, "forged.toml", forged.as_bytes());
    refused(&make("4", &other, &[&forged]), USAGE, &["proof of possession"]);
    refused(&make("4", &other, &[&genesis]), USAGE, &["genesis.toml:"]);
    assert!(!Path::new(&other).exists());
}

/// Makes a wallet, and returns its file and its account.
fn wallet(dir: &TempDir, name: &str) -> (String, String) {
    let wallet = path(dir, name);
    let account = succeed(&["wallet", "new", "--out", &wallet]).trim_end().to_owned();
    (wallet, account)
}

#[test]
fn a_wallet_is_made_once_and_only_its_owner_reads_it() {
    let dir = tempdir().unwrap();
    let (wallet, account) = wallet(&dir, "wallet.key");
    assert_eq!(account.len(), 64);
    assert_eq!(fs::metadata(&wallet).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(succeed(&["wallet", "address", "--wallet", &wallet]).trim_end(), account);
    let document = json(&["--json", "wallet", "address", "--wallet", &wallet]);
    assert_eq!(document, serde_json::json!({"account": account, "file": wallet}));
    let secret = fs::read_to_string(&wallet).unwrap();
    refuse(&["wallet", "new", "--out", &wallet], USAGE, &["wallet.key", "never overwritten", "--out"]);
    assert_eq!(fs::read_to_string(&wallet).unwrap(), secret);
    refuse(&["wallet", "new", "--out", &path(&dir, "no/wallet.key")], IO, &["no/wallet.key"]);
    fs::set_permissions(&wallet, fs::Permissions::from_mode(0o640)).unwrap();
    refuse(&["wallet", "address", "--wallet", &wallet], USAGE, &["0640", "chmod 600"]);
    fs::set_permissions(&wallet, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&wallet, "not a key").unwrap();
    refuse(&["wallet", "address", "--wallet", &wallet], USAGE, &["wallet.key is not a key"]);
}

#[test]
fn a_wallet_that_nothing_names_lies_in_the_home_directory() {
    let dir = tempdir().unwrap();
    let floe = |args: &[&str]| floe().env("HOME", dir.path()).args(args).output().unwrap();
    refused(&floe(&["wallet", "address"]), IO, &[".floe/wallet.key", "floe wallet new", "--wallet"]);
    let made = floe(&["wallet", "new"]);
    assert!(made.status.success(), "{}", stderr(&made));
    assert_eq!(stdout(&floe(&["wallet", "address"])), stdout(&made));
    let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(".floe"), mode(".floe/wallet.key")), (0o700, 0o600));
    refused(&floe(&["wallet", "new"]), USAGE, &["never overwritten"]);
    let (other, account) = wallet(&dir, "other.key");
    let named = self::floe().env("FLOE_WALLET", &other).args(["wallet", "address"]).output().unwrap();
    assert_eq!(stdout(&named).trim_end(), account);
    let homeless = self::floe().env_remove("HOME").args(["wallet", "new"]).output().unwrap();
    refused(&homeless, USAGE, &["no wallet is named", "--wallet", "FLOE_WALLET"]);
}

#[test]
fn what_the_command_line_says_of_credits_must_make_sense() {
    let dir = tempdir().unwrap();
    let (wallet, account) = wallet(&dir, "wallet.key");
    let (short, odd) = (&account[1..], "x".repeat(64));
    for (to, amount, words) in [
        (account.as_str(), "0", "0 is not in"),
        (&account, "9223372036854775808", "is not in"),
        (&account, "1.5", "invalid digit"),
        (&account, "-1", "-1"),
        (short, "1", "expected 64 characters, got 63"),
        (&odd, "1", "not valid hexadecimal"),
    ] {
        for command in [&["wallet", "send", "--to", to][..], &["stake", "--node", to]] {
            let output = run(&[command, &["--wallet", &wallet, "--amount", amount]].concat());
            assert_eq!(output.status.code(), Some(USAGE), "{}", stderr(&output));
            assert!(stderr(&output).contains(words), "`{words}` is not in: {}", stderr(&output));
            assert_eq!(stdout(&output), "");
        }
    }
    let both = run(&["wallet", "balance", "--wallet", &wallet, "--account", &account]);
    assert_eq!(both.status.code(), Some(USAGE));
}

#[test]
fn credits_need_a_wallet_and_a_network() {
    let dir = tempdir().unwrap();
    let (wallet, account) = wallet(&dir, "wallet.key");
    let missing = path(&dir, "missing.key");
    let send = |wallet| ["wallet", "send", "--wallet", wallet, "--to", &account, "--amount", "1"];
    // The wallet is looked at before the network is.
    refuse(&send(&missing), IO, &["missing.key", "floe wallet new"]);
    refuse(&send(&wallet), USAGE, &["--network", "FLOE_NETWORK"]);
    refuse(&["info"], USAGE, &["--network"]);
    refuse(&["wallet", "balance", "--account", &account], USAGE, &["--network"]);
    refuse(&["unstake", "--wallet", &missing, "--node", &account], IO, &["missing.key"]);
}

#[test]
fn storing_takes_the_wallet_that_is_named_and_makes_one_only_if_none_is() {
    let dir = tempdir().unwrap();
    let client = network(&dir, "4");
    let (blob, missing) = (file(&dir, "blob", b"x"), path(&dir, "missing"));
    let home = tempdir().unwrap();
    let floe = |args: &[&str]| floe().env("HOME", home.path()).args(args).output().unwrap();
    // What cannot be stored leaves no wallet behind.
    refused(&floe(&["--network", &client, "store", &blob, &missing]), IO, &["missing"]);
    refused(&floe(&["store", &blob]), USAGE, &["--network", "FLOE_NETWORK"]);
    assert!(names(home.path()).is_empty());
    let store = floe(&["--network", &client, "store", &blob]);
    let text = stderr(&store);
    let made = stdout(&floe(&["wallet", "address"])).trim_end().to_owned();
    assert_eq!((store.status.code(), stdout(&store)), (Some(4), ""), "{text}");
    assert!(text.contains("made a wallet") && text.contains(&made), "{text}");
    assert!(text.contains("is the network up"), "{text}");
    // The next time, it is there.
    let store = ["--network", &client, "store", &blob];
    refused(&floe(&store), 4, &["is the network up"]);
    assert_eq!(stdout(&floe(&["wallet", "address"])).trim_end(), made);
    // One that is named is not made.
    let config = fs::read_to_string(&client).unwrap();
    fs::write(&client, format!("wallet = \"mine.key\"\n{config}")).unwrap();
    refused(&floe(&store), IO, &["mine.key", "floe wallet new"]);
    let named = ["--network", &client, "store", "--wallet", &missing, &blob];
    refused(&floe(&named), IO, &["missing", "floe wallet new"]);
    let (_, mine) = wallet(&dir, "mine.key");
    assert_eq!(stdout(&floe(&["--network", &client, "wallet", "address"])).trim_end(), mine);
    refused(&floe(&store), 4, &["is the network up"]);
    let epochs = floe(&["--network", &client, "store", "--epochs", "0", &blob]);
    assert_eq!(epochs.status.code(), Some(USAGE), "{}", stderr(&epochs));
}

#[test]
fn a_ledger_that_nobody_answers_for_is_unavailable() {
    let dir = tempdir().unwrap();
    let client = network(&dir, "4");
    let (wallet, account) = wallet(&dir, "wallet.key");
    let up = &["with 0 of the 2 shards needed", "cannot be reached"][..];
    refuse(&["--network", &client, "info", "--committee", "--ledger"], 4, up);
    refuse(&["--network", &client, "wallet", "balance", "--account", &account], 4, up);
    let send =
        ["--network", &client, "wallet", "send", "--wallet", &wallet, "--to", &account, "--amount", "7"];
    refuse(&send, 4, &["cannot send 7 credits", "nothing was sent"]);
    refuse(&["--network", &client, "stake", "--wallet", &wallet, "--node", &account, "--amount", "7"], 4, up);
}

#[test]
fn a_genesis_says_who_has_credits_and_what_storage_costs() {
    let dir = tempdir().unwrap();
    network(&dir, "4");
    let members: Vec<String> =
        (0..4).map(|i| format!("{}/member.toml", path(&dir, &format!("n{i}")))).collect();
    let member = fs::read_to_string(&members[0]).unwrap();
    let peer = member.lines().find_map(|line| line.strip_prefix("peer = ")).unwrap().to_owned();
    let (_, account) = wallet(&dir, "wallet.key");
    let endowment = file(
        &dir,
        "endowment.toml",
        format!(
            "[[accounts]]\naccount = \"{account}\"\nbalance = 50\n\n[[stakes]]\naccount = \"{account}\"\n\
             node = {peer}\namount = 9\n\n[parameters]\nstorage_price = 3\n"
        )
        .as_bytes(),
    );
    let make = |out: &str, more: &[&str]| {
        let mut args = vec!["--json", "genesis", "--shards", "4", "--name", "x", "--out", out];
        args.extend(more);
        args.push("--");
        args.extend(members.iter().map(String::as_str));
        run(&args)
    };
    let other = "ab".repeat(32);
    let (a, b) = (path(&dir, "a.toml"), path(&dir, "b.toml"));
    let made = make(&a, &["--endowment", &endowment, "--account", &format!("{other}=7")]);
    assert!(made.status.success(), "{}", stderr(&made));
    let document: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!((&document["accounts"], &document["stakes"]), (&2.into(), &1.into()));
    let genesis = fs::read_to_string(&a).unwrap();
    for line in ["balance = 50", "balance = 7", "amount = 9", "storage_price = 3"] {
        assert!(genesis.contains(line), "{line} is not in: {genesis}");
    }
    let twice = make(&b, &["--endowment", &endowment, "--account", &format!("{account}=1")]);
    refused(&twice, USAGE, &["these accounts", "listed twice"]);
    for (pair, words) in [("x", "ACCOUNT=CREDITS"), ("x=1", "not an account"), ("=", "not an account")] {
        let output = make(&b, &["--account", pair]);
        assert_eq!(output.status.code(), Some(USAGE));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let output = make(&b, &["--account", &format!("{other}=1.5")]);
    assert!(stderr(&output).contains("not a number of credits"), "{}", stderr(&output));
    refused(&make(&b, &["--account", &format!("{other}=0")]), USAGE, &["zero credits"]);
    let wrong = file(&dir, "wrong.toml", b"[parameters]\n\nprice = 3\n");
    refused(&make(&b, &["--endowment", &wrong]), USAGE, &["wrong.toml:3: unknown field `price`"]);
    let wrong = file(&dir, "wrong.toml", b"[parameters]\nunbonding_epochs = 0\n");
    refused(&make(&b, &["--endowment", &wrong]), USAGE, &["unbonding_epochs is 0", "1 to 1000"]);
    refused(&make(&b, &["--endowment", &path(&dir, "nowhere.toml")]), IO, &["nowhere.toml"]);
    assert!(!Path::new(&b).exists());
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(succeed(&["completion", shell]).contains("blob-id"), "{shell}");
    }
    assert_eq!(run(&["completion", "cmd"]).status.code(), Some(USAGE));
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    // It has gone before a word is written: afterwards the pipe might hold them all.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = floe().args(["completion", "zsh"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert_eq!(text, "");
    // Nobody hears the error, and its code is what it is.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = floe().args(["read", &"A".repeat(43)]).stderr(writer).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(USAGE));
}

#[test]
fn a_full_disk_under_the_output_is_an_error() {
    let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let output = floe().args(["completion", "bash"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    refused(&output, IO, &["standard output", "No space left"]);
}

#[test]
fn help_tells_the_exit_codes_and_nonsense_is_refused() {
    assert!(succeed(&["--help"]).contains("3 not found"));
    for args in [&["--frobnicate"][..], &["store"], &["node"], &[], &["store", "--shards", "x"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(USAGE), "{args:?}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let dir = tempdir().unwrap();
    let blob = file(&dir, "blob", b"x");
    let output =
        floe().env("FLOE_LOG", "node=loud").args(["blob-id", "--shards", "4", &blob]).output().unwrap();
    refused(&output, USAGE, &["FLOE_LOG"]);
}

#[test]
fn several_lines_of_output_are_data_only() {
    let dir = tempdir().unwrap();
    let mut blob = fs::File::create(dir.path().join("blob")).unwrap();
    blob.write_all(&vec![1; 3_000_000]).unwrap();
    let output = run(&["blob-id", "--shards", "13", &path(&dir, "blob")]);
    assert_eq!(stdout(&output).lines().count(), 1);
    // No progress bar where there is no terminal.
    assert_eq!(stderr(&output), "");
}
