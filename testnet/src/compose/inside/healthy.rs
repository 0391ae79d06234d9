//! What the engine asks a container every few seconds.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use node::{
    cli::{Exit, Failure},
    config::{MemberFile, NodeConfig},
};

use super::NODE_DIR;
use crate::{cluster::Observer, compose::spec::listen_address};

/// How long the node may take to answer: less than the engine waits for the whole.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);

/// Succeeds if the node of this container answers, whether or not others can reach it.
///
/// # Errors
///
/// If it does not.
pub async fn healthy() -> Result<(), Failure> {
    let dir = Path::new(NODE_DIR);
    let member = MemberFile::load(&dir.join(MemberFile::NAME))?;
    let genesis = NodeConfig::load(dir)?.load_genesis()?;
    let observer = Observer::start(&genesis, ANSWER_LIMIT).await?;
    observer.introduce(member.peer, vec![listen_address(Ipv4Addr::LOCALHOST)]);
    let health = observer.health(member.peer).await;
    observer.close().await;
    match health {
        Some(_) => Ok(()),
        None => Err(Failure::new(Exit::Unavailable, format!("{} does not answer", member.name))),
    }
}
