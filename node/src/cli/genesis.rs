//! `floe genesis`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use protocol::{
    committee::{Member, spread},
    genesis::{Endowment, Genesis, GenesisAccount},
};
use serde::Serialize;

use super::{EpochArgs, Exit, Failure, Output, output::note, shown};
use crate::config::{MemberFile, create_new, load_endowment};

/// Arguments of the command.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Shards of the network: 4 to 1000, spread evenly over the members
    #[arg(long, value_name = "N")]
    shards: u16,
    /// What people call the network
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The file to write, which must not exist yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// An account that has credits from the beginning; may be given several times
    #[arg(long, value_name = "ACCOUNT=CREDITS", value_parser = account)]
    account: Vec<GenesisAccount>,
    /// A file with [[accounts]], [[stakes]] and [parameters], as they stand in a genesis file [default: nobody has
    /// credits, and nothing has a price]
    #[arg(long, value_name = "FILE")]
    endowment: Option<PathBuf>,
    #[command(flatten)]
    epochs: EpochArgs,
    /// The member.toml of each node, as `floe node init` writes it
    #[arg(required = true, value_name = "MEMBER.toml")]
    members: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Document {
    network_id: String,
    name: String,
    n_shards: u16,
    members: u16,
    /// Accounts and stakes that it names.
    accounts: usize,
    stakes: usize,
    /// Milliseconds that an epoch takes; 0 if the first does not end.
    epoch_ms: u64,
    file: String,
}

/// Reads `ACCOUNT=CREDITS`.
fn account(text: &str) -> Result<GenesisAccount, String> {
    let (account, balance) = text.split_once('=').ok_or("expected ACCOUNT=CREDITS")?;
    let account = account.parse().map_err(|error| format!("not an account: {error}"))?;
    let balance = balance.parse().map_err(|_| format!("{balance:?} is not a number of credits"))?;
    Ok(GenesisAccount { account, balance })
}

pub(super) fn execute(args: &Args, output: Output) -> Result<(), Failure> {
    let files = args.members.iter().map(|path| MemberFile::load(path)).collect::<Result<Vec<_>, _>>()?;
    for file in files.iter().filter(|file| file.addresses.is_empty()) {
        note(format_args!(
            "warning: {} has no address: nobody can reach it unless it reaches them; give `node init` --external",
            file.name
        ));
    }
    let n_members = u16::try_from(files.len())
        .map_err(|_| Failure::new(Exit::Usage, format!("{} members are too many", files.len())))?;
    let shards = spread(args.shards, n_members);
    let members: Vec<Member> =
        files.into_iter().zip(shards).map(|(file, shards)| file.with_shards(shards)).collect();
    let genesis = Genesis::new(args.name.clone(), args.shards, members)
        .map_err(|error| Failure::because(Exit::Usage, "these members make no network", &error))?;
    let mut endowment = args.endowment.as_deref().map(load_endowment).transpose()?.unwrap_or_default();
    endowment.accounts.extend(&args.account);
    endowment.parameters = args.epochs.apply(endowment.parameters);
    let genesis = genesis.with_endowment(endowment).map_err(|error| {
        Failure::because(Exit::Usage, "these accounts and parameters make no network", &error)
    })?;
    let Endowment { accounts, stakes, parameters } = genesis.endowment();
    let (accounts, stakes, epoch_ms) = (accounts.len(), stakes.len(), parameters.epoch_ms);
    create_new(&args.out, &genesis.to_toml())?;
    let document = Document {
        network_id: genesis.network_id().to_string(),
        name: genesis.name().to_owned(),
        n_shards: genesis.n_shards(),
        members: genesis.committee().n_members(),
        accounts,
        stakes,
        epoch_ms,
        file: shown(&args.out),
    };
    output.data(&document, &document.network_id)
}
