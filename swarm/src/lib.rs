//! The network of a Floe node: one trait, a libp2p and a simulated implementation.
