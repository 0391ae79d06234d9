//! Signatures of accounts and of nodes as peers: ed25519, verified strictly.
//!
//! Strictly means that keys and commitments of small order are refused, which plain verification takes. So a signature
//! binds its key and its message, and all nodes agree on which are good. Source: RFC 8032 and Chalkias, Garillot,
//! Nikolaenko, "Taming the many EdDSAs" (2020), section 3.

use std::fmt;

use bincode::{Decode, Encode};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use crate::ids::{AccountId, NetworkId};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Begins every signed text of this version of the protocol.
const DOMAIN: &[u8] = b"floe/v1/";

/// The key is not one, or the signature is not its over the message. Whoever sent it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signature does not match the message and the key of {account}")]
pub struct BadSignature {
    /// Who was said to have signed.
    pub account: AccountId,
}

/// What is signed: `"floe/v1/" || name || 0 || network ID || fields`, as statements of a committee are. Names hold no
/// zero byte and are unique among all that are signed, so no two kinds and no two networks share a text.
#[must_use]
pub(crate) fn signed_text(name: &str, network: &NetworkId, fields: &[u8]) -> Vec<u8> {
    [DOMAIN, name.as_bytes(), &[0], network.as_bytes(), fields].concat()
}

/// An ed25519 signature. What it signs, and whether, is not yet known.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Signature(pub [u8; SIGNATURE_BYTES]);

impl Signature {
    /// Checks that this is `account`'s signature of `message`. Takes about 40 microseconds.
    ///
    /// # Errors
    ///
    /// If it is not, or the account's ID is no key at all.
    pub fn verify(&self, message: &[u8], account: &AccountId) -> Result<(), BadSignature> {
        let refused = BadSignature { account: *account };
        let key = VerifyingKey::from_bytes(account.as_bytes()).map_err(|_| refused)?;
        let signature = ed25519_dalek::Signature::from_bytes(&self.0);
        key.verify_strict(message, &signature).map_err(|_| refused)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// An account's signing key. Wiped from memory when dropped; never printed.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key with this seed, the 32 bytes that RFC 8032 calls the private key. The caller wipes the seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The account of this key.
    #[must_use]
    pub fn account(&self) -> AccountId {
        AccountId(self.0.verifying_key().to_bytes())
    }

    /// Signs a text, which names its own purpose.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_8032() {
        // RFC 8032, section 7.1, test 2.
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = SecretKey::from_seed(&seed.try_into().unwrap());
        let account = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(key.account().to_string(), account);
        let signature = key.sign(&[0x72]);
        assert!(format!("{signature:?}").starts_with("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8f"));
        assert_eq!(signature.verify(&[0x72], &key.account()), Ok(()));
        let refused = Err(BadSignature { account: key.account() });
        assert_eq!(signature.verify(&[0x73], &key.account()), refused);
        for at in [0, 31, 32, 63] {
            let mut changed = signature;
            changed.0[at] ^= 1;
            assert_eq!(changed.verify(&[0x72], &key.account()), refused);
        }
    }

    #[test]
    fn keys_of_small_order_sign_nothing() {
        // The neutral element as key: with R = 0 and s = 0, plain verification takes it for any message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let account = AccountId(neutral);
        let mut signature = [0; 64];
        signature[0] = 1;
        let lax = VerifyingKey::from_bytes(&neutral).unwrap();
        let by_lax = ed25519_dalek::Verifier::verify(&lax, b"anything", &signature.into());
        assert!(by_lax.is_ok(), "otherwise this test shows nothing");
        assert_eq!(Signature(signature).verify(b"anything", &account), Err(BadSignature { account }));
        // Not a point at all.
        let account = AccountId([2; 32]);
        assert!(Signature(signature).verify(b"anything", &account).is_err());
    }
}
