//! Ed25519 signatures by accounts, and by the keys that are the nodes' identities.
//!
//! A [`PeerId`] is a public key, so whoever knows a member's identity can check its votes and there is no second key to
//! register, rotate or leak; it is also an account. Verification is the strict one: keys of small order and signatures that are not in canonical
//! form are refused, so that everyone agrees on what a valid signature is.

use std::fmt;

use bincode::{Decode, Encode};
use ed25519_dalek::{Signer as _, VerifyingKey};

use crate::ids::{AccountId, NetworkId, PeerId};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Begins every signed text of this version of the protocol.
const DOMAIN: &[u8] = b"floe/v1/";

/// What is signed: `"floe/v1/" || name || 0 || network ID || fields`, as statements of a committee are. Names hold no
/// zero byte and are unique among all that are signed, so no two kinds and no two networks share a text.
#[must_use]
pub(crate) fn signed_text(name: &str, network: &NetworkId, fields: &[u8]) -> Vec<u8> {
    [DOMAIN, name.as_bytes(), &[0], network.as_bytes(), fields].concat()
}

/// An ed25519 signature: a claim until it is verified.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Signature(pub [u8; SIGNATURE_BYTES]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Why a signature proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The identity is not a point of the curve: nobody signs with it.
    #[error("{signer} is not an ed25519 public key")]
    Key {
        /// Who is said to have signed.
        signer: AccountId,
    },
    /// It is not the signer's signature of these bytes; whoever sent it is at fault.
    #[error("signature does not verify")]
    Signature,
}

impl Signature {
    /// Checks that `signer` signed `message`.
    ///
    /// # Errors
    ///
    /// If it did not.
    pub fn verify(&self, signer: impl Into<AccountId>, message: &[u8]) -> Result<(), VerifyError> {
        let signer = signer.into();
        let key = VerifyingKey::from_bytes(signer.as_bytes()).map_err(|_| VerifyError::Key { signer })?;
        let signature = ed25519_dalek::Signature::from_bytes(&self.0);
        key.verify_strict(message, &signature).map_err(|_| VerifyError::Signature)
    }
}

/// The secret half of a node's identity, or of an account. Wiped from memory when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("peer", &self.peer()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// The key with these secret bytes.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(secret))
    }

    /// The identity that belongs to it.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        PeerId(self.0.verifying_key().to_bytes())
    }

    /// The account that belongs to it.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.peer().into()
    }

    /// Signs a message. The same message always gives the same signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signer_and_the_message_verify() {
        let (key, other) = (SigningKey::from_secret(&[1; 32]), SigningKey::from_secret(&[2; 32]));
        let signature = key.sign(b"message");
        assert_eq!(signature.verify(key.peer(), b"message"), Ok(()));
        assert_eq!(signature.verify(key.peer(), b"Message"), Err(VerifyError::Signature));
        assert_eq!(signature.verify(other.peer(), b"message"), Err(VerifyError::Signature));
        let mut bent = signature;
        bent.0[63] ^= 0x80;
        assert_eq!(bent.verify(key.peer(), b"message"), Err(VerifyError::Signature));
    }

    #[test]
    fn a_key_that_signs_everything_is_refused() {
        // The neutral element of the curve, with which a lax check accepts one signature for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = Signature([0; SIGNATURE_BYTES]);
        signature.0[0] = 1;
        assert!(signature.verify(PeerId(neutral), b"anything").is_err());
    }

    #[test]
    fn signatures_are_those_of_rfc_8032() {
        // RFC 8032, section 7.1, test 2.
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = SigningKey::from_secret(&seed.try_into().unwrap());
        let account = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(key.account().to_string(), account);
        let signature = key.sign(&[0x72]);
        assert!(format!("{signature:?}").starts_with("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8f"));
        assert_eq!(signature.verify(key.account(), &[0x72]), Ok(()));
    }

    #[test]
    fn a_key_is_not_printed() {
        let printed = format!("{:?}", SigningKey::from_secret(&[0x5a; 32]));
        assert!(!printed.contains("5a5a"), "{printed}");
    }
}
