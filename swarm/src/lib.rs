//! The network of a Floe node: one trait, a libp2p and a simulated implementation.
//!
//! ```text
//!  node --Network::{request, publish, add_peer, report}--> live::LiveNetwork          (libp2p, real sockets)
//!       <--InboundReceiver: Request, Gossip, Connected---  simulated::SimulatedNetwork (seeded, one process)
//! ```
//!
//! Read [`network`] first: it is all that the rest of a node sees. [`inbound`] is the way in. [`live`] and
//! `simulated` implement both, apply the same [`limits`], and pass the same `conformance` suite.
//!
//! # Invariants
//!
//! - Everything a peer can grow is bounded: frames, queues, requests in flight, rates, streams, connections. What does
//!   not fit is refused at once rather than queued.
//! - Only [`live`] names libp2p; no libp2p type is public.
//! - Identities of peers are proven by the connection, authors of gossip by their signature.

pub mod address;
#[cfg(feature = "simulated")]
pub mod conformance;
pub mod frame;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
pub mod inbound;
pub mod limits;
pub mod live;
pub mod network;
mod peers;
#[cfg(feature = "simulated")]
pub mod simulated;
pub mod traffic;
mod view;

pub use address::Address;
pub use frame::{Channel, Frame, HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, TooLarge, Topic};
pub use inbound::{Inbound, InboundLoad, InboundReceiver, Responder, Verdict};
pub use limits::Limits;
pub use network::{ConnectedPeers, Network, Offence, PeerRole, PublishError, RequestError};
pub use traffic::{QueueLoad, Traffic};
