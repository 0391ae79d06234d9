//! A network that faults can be done to.

use std::{path::PathBuf, sync::Arc, time::Duration};

use node::cli::Failure;
use protocol::{PeerId, genesis::Genesis};
use swarm::Address;

use super::fault::{Fault, Kind};
use crate::cluster::Memory;

/// The disk of each node, where it has one of its own.
pub(super) const DISK_MIB: u32 = 1024;

/// A network to be made.
#[derive(Clone, Debug)]
pub struct NetworkSpec {
    /// Decides what is lost on the way, and which bytes change.
    pub seed: u64,
    /// Nodes.
    pub nodes: u16,
    /// Shards.
    pub shards: u16,
    /// How long an epoch takes.
    pub epoch: Duration,
    /// Credits of stake behind each node.
    pub stake: u64,
    /// Why nodes are given no disks of their own, if they are given none.
    pub no_disks: Option<String>,
}

/// Nodes, however they are run.
#[allow(async_fn_in_trait, reason = "nothing of it is ever sent to another thread")]
pub trait Target {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// The genesis of the network.
    fn genesis(&self) -> &Arc<Genesis>;

    /// Who each node is and where it is reached, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// If that cannot be found.
    fn peers(&self) -> Result<Vec<(PeerId, Vec<Address>)>, Failure>;

    /// Whether a kind of fault can be done here.
    ///
    /// # Errors
    ///
    /// Why not.
    fn can(&self, kind: Kind) -> Result<(), String>;

    /// Begins a fault.
    ///
    /// # Errors
    ///
    /// If it could not be done: the run says nothing then.
    async fn begin(&mut self, fault: &Fault) -> Result<(), Failure>;

    /// Ends a fault: from here on, the nodes are to recover by themselves.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    async fn end(&mut self, fault: &Fault) -> Result<(), Failure>;

    /// Nodes whose processes have ended, though nobody ended them, and what they said last; they are started again. `excused` are
    /// the nodes that may: they have no room left for the ledger.
    ///
    /// # Errors
    ///
    /// If a node cannot be started again.
    async fn fallen(&mut self, excused: &[usize]) -> Result<Vec<(usize, String)>, Failure>;

    /// The memory that each node's process holds, as of the last look for [`fallen`](Self::fallen) ones; none of those that have no
    /// process, or of which the system does not tell.
    fn memory(&self) -> Vec<Option<Memory>>;

    /// What the nodes have logged: files to look for panics in.
    ///
    /// # Errors
    ///
    /// If it cannot be had.
    async fn logs(&mut self) -> Result<Vec<(usize, PathBuf)>, Failure>;

    /// Ends everything and leaves nothing behind, but for files in a directory that the user named.
    ///
    /// # Errors
    ///
    /// If something does not end.
    async fn close(&mut self) -> Result<(), Failure>;
}
