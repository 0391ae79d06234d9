//! The network over libp2p. (in the making)
