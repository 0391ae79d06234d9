//! Identities: ours are ed25519 public keys, libp2p's are multihashes that hold them.

use std::fmt;

use libp2p::identity;
use protocol::PeerId;
use zeroize::{Zeroize as _, ZeroizeOnDrop};

/// What stands before an ed25519 key in an identity of libp2p: an identity multihash of 36 bytes, then the protobuf of
/// a public key of type ed25519 with 32 bytes.
/// Source: libp2p specifications, peer-ids, "Ed25519" and "Peer IDs".
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The secret key of a node. Wiped from memory when dropped, and never printed.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Takes the 32 bytes of an ed25519 secret key (the seed).
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The identity that belongs to it.
    #[must_use]
    #[allow(clippy::missing_panics_doc, reason = "any 32 bytes are a secret key")]
    pub fn peer(&self) -> PeerId {
        let public = self.keypair().public();
        from_libp2p(&public.to_peer_id()).expect("the key is an ed25519 key")
    }

    pub(super) fn keypair(&self) -> identity::Keypair {
        let mut bytes = self.0;
        let keypair =
            identity::Keypair::ed25519_from_bytes(&mut bytes).expect("any 32 bytes are a secret key");
        bytes.zeroize();
        keypair
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// The identity as libp2p writes it. Bytes that are no key give an identity that nobody can prove to have.
pub(super) fn to_libp2p(peer: PeerId) -> libp2p::PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&PREFIX);
    bytes[6..].copy_from_slice(&peer.0);
    libp2p::PeerId::from_bytes(&bytes).expect("the form is that of an identity")
}

/// The identity as Floe writes it; `None` if it is not that of an ed25519 key.
pub(super) fn from_libp2p(peer: &libp2p::PeerId) -> Option<PeerId> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&PREFIX)?;
    key.try_into().ok().map(PeerId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_translate_both_ways() {
        let secret = SecretKey::new([5; 32]);
        let theirs = secret.keypair().public().to_peer_id();
        assert_eq!(from_libp2p(&theirs), Some(secret.peer()));
        assert_eq!(to_libp2p(secret.peer()), theirs);
        assert_eq!(from_libp2p(&libp2p::PeerId::random()), None);
        assert_eq!(format!("{secret:?}"), "SecretKey(..)");
    }
}
