//! Networks of containers, each node with an address of its own.
//!
//! ```text
//!  SpecArgs -> Spec -> compose_file        pure: what a network is, and the file that an engine is told
//!                         |
//!                     Containers           on the host: calls of docker and docker-compose, with limits
//!                         |
//!                     inside               in the containers: setup, joining, health, faults of volumes
//! ```
//!
//! Beside [`cluster`](crate::cluster), whose nodes are processes on one loopback: here a node can be taken off the network,
//! and is started again by the engine when it crashes. Read [`spec`] first, then [`containers`].

pub mod containers;
mod docker;
pub mod file;
pub mod inside;
pub mod spec;
pub mod state;

pub use self::{
    containers::Containers,
    docker::check_engine,
    file::{IMAGE, MEMORY_MIB, compose_file},
    inside::VolumeFile,
    spec::{Spec, SpecArgs, Subnet},
    state::{Container, Health, Status},
};
