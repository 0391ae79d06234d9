//! `floe genesis`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use protocol::{
    committee::{Member, spread},
    genesis::Genesis,
};
use serde::Serialize;

use super::{Exit, Failure, Output, output::note, shown};
use crate::config::{MemberFile, create_new};

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
    file: String,
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
    create_new(&args.out, &genesis.to_toml())?;
    let document = Document {
        network_id: genesis.network_id().to_string(),
        name: genesis.name().to_owned(),
        n_shards: genesis.n_shards(),
        members: genesis.committee().n_members(),
        file: shown(&args.out),
    };
    output.data(&document, &document.network_id)
}
