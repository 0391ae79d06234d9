//! The secrets of a node: an ed25519 key that is its identity, and a BLS key that signs its confirmations. And the secret
//! of an account, an ed25519 key in a file of its own.
//!
//! # Invariants
//!
//! - A key file is created with mode 0600, never replaced, and refused if others may read it.
//! - Secrets are wiped from memory when dropped, and never printed: not by `Debug`, an error or a log.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use protocol::{AccountId, PeerId, bls, ledger::signature::SigningKey};
use zeroize::{Zeroize as _, Zeroizing};

use crate::config::sync_dir;

/// Directory of the keys in a node's directory.
const DIR: &str = "keys";
/// Files in it.
const PEER_FILE: &str = "peer.key";
const BLS_FILE: &str = "bls.key";
/// Bytes of either secret.
const SECRET_BYTES: usize = 32;
/// The file: two lower-case hexadecimal digits a byte, and a line end.
const FILE_BYTES: usize = 2 * SECRET_BYTES + 1;

/// Why keys could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There are keys already; they are never replaced.
    #[error("{} exists already; keys are never overwritten", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read or write the file.
    #[error("{} can be used by others (mode {mode:04o}); if they never had it, run: chmod 600 {}", .path.display(), .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is not a key. It is not shown.
    #[error("{} is not a key: expected 64 lower-case hexadecimal digits and a line end", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The content has the form of a key, but no key has this value.
    #[error("{} is not a key", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: bls::ParseError,
    },
    /// The system has no random numbers to give.
    #[error("cannot make a key: no random numbers from the system")]
    Random(#[source] getrandom::Error),
}

/// An ed25519 secret key: who a party is on the network.
#[derive(Clone)]
pub struct PeerKey(Zeroizing<[u8; SECRET_BYTES]>);

impl PeerKey {
    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// [`KeyError::Random`].
    pub fn generate() -> Result<Self, KeyError> {
        random().map(Self)
    }

    /// The identity that belongs to it.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.for_network().peer()
    }

    /// The key in the form that the network takes.
    #[must_use]
    pub fn for_network(&self) -> swarm::live::SecretKey {
        swarm::live::SecretKey::new(*self.0)
    }

    /// The secret itself, for the network and for nothing else.
    #[must_use]
    pub const fn secret_bytes(&self) -> &Zeroizing<[u8; SECRET_BYTES]> {
        &self.0
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerKey(..)")
    }
}

/// The key of an account of the ledger: whoever has it spends the account's credits.
#[derive(Clone, Debug)]
pub struct AccountKey(SigningKey);

impl AccountKey {
    /// Makes a new key and writes it, durably, to a file that must not exist yet. Its directory must.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; [`KeyError::Exists`] if there is a file already.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let secret = random()?;
        write(path, &secret)?;
        sync_dir(path).map_err(|source| KeyError::Io { doing: "write", path: path.to_owned(), source })?;
        Ok(Self(SigningKey::from_secret(&secret)))
    }

    /// Reads the key in a file.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Ok(Self(SigningKey::from_secret(&*read(path)?)))
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.0.account()
    }

    /// The key in the form that signs transactions.
    #[must_use]
    pub const fn signing(&self) -> &SigningKey {
        &self.0
    }
}

/// The keys of one node.
#[derive(Clone)]
pub struct NodeKeys {
    peer_key: PeerKey,
    /// INV: of `peer_key`.
    peer: PeerId,
    bls: bls::SecretKey,
}

impl fmt::Debug for NodeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKeys").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl NodeKeys {
    /// Makes new keys, in memory only.
    ///
    /// # Errors
    ///
    /// [`KeyError::Random`].
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self::new(PeerKey::generate()?, bls::SecretKey::from_seed(&*random()?)))
    }

    /// Makes new keys and writes them, durably, to a node's directory.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; [`KeyError::Exists`] if there is a key already.
    pub fn create(node_dir: &Path) -> Result<Self, KeyError> {
        let keys = Self::generate()?;
        let dir = node_dir.join(DIR);
        let failed = |source| KeyError::Io { doing: "write", path: dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
        write(&dir.join(PEER_FILE), keys.peer_key.secret_bytes())?;
        write(&dir.join(BLS_FILE), &keys.bls.to_bytes())?;
        sync_dir(&dir.join(PEER_FILE)).and_then(|()| sync_dir(&dir)).map_err(failed)?;
        Ok(keys)
    }

    /// Reads the keys in a node's directory.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn load(node_dir: &Path) -> Result<Self, KeyError> {
        let dir = node_dir.join(DIR);
        let peer_key = PeerKey(read(&dir.join(PEER_FILE))?);
        let path = dir.join(BLS_FILE);
        let bls =
            bls::SecretKey::from_bytes(&*read(&path)?).map_err(|source| KeyError::Value { path, source })?;
        Ok(Self::new(peer_key, bls))
    }

    fn new(peer_key: PeerKey, bls: bls::SecretKey) -> Self {
        Self { peer: peer_key.peer(), peer_key, bls }
    }

    /// Who the node is.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// The key of its connections.
    #[must_use]
    pub const fn peer_key(&self) -> &PeerKey {
        &self.peer_key
    }

    /// The key of its confirmations.
    #[must_use]
    pub const fn bls(&self) -> &bls::SecretKey {
        &self.bls
    }
}

fn random() -> Result<Zeroizing<[u8; SECRET_BYTES]>, KeyError> {
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    getrandom::fill(&mut *bytes).map_err(KeyError::Random)?;
    Ok(bytes)
}

fn write(path: &Path, secret: &[u8; SECRET_BYTES]) -> Result<(), KeyError> {
    let mut text = Zeroizing::new([b'\n'; FILE_BYTES]);
    hex::encode_to_slice(secret, &mut text[..2 * SECRET_BYTES]).expect("two digits a byte");
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&*text)?;
        file.sync_all()
    };
    write().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
        _ => KeyError::Io { doing: "write", path: path.to_owned(), source },
    })
}

fn read(path: &Path) -> Result<Zeroizing<[u8; SECRET_BYTES]>, KeyError> {
    let failed = |source| KeyError::Io { doing: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Permissions { path: path.to_owned(), mode });
    }
    // One byte more than a key has, to see that there is none.
    let mut text = Zeroizing::new([0; FILE_BYTES + 1]);
    let mut len = 0;
    loop {
        match file.read(&mut text[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    parse(&text[..len]).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })
}

/// Reads 64 lower-case digits; the line end may be missing.
pub(crate) fn parse(text: &[u8]) -> Option<Zeroizing<[u8; SECRET_BYTES]>> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    if digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    if hex::decode_to_slice(digits, &mut *secret).is_err() {
        secret.zeroize();
        return None;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn keys_survive_their_files_and_only_their_owner_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let made = NodeKeys::create(dir.path()).unwrap();
        let loaded = NodeKeys::load(dir.path()).unwrap();
        assert_eq!(loaded.peer(), made.peer());
        assert_eq!(loaded.bls().public_key(), made.bls().public_key());
        for file in [PEER_FILE, BLS_FILE] {
            let metadata = fs::metadata(dir.path().join(DIR).join(file)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
            assert_eq!(metadata.len(), 65);
        }
        assert_eq!(fs::metadata(dir.path().join(DIR)).unwrap().permissions().mode() & 0o7777, 0o700);
        made.bls().prove_possession(&made.peer()).verify(&loaded.bls().public_key(), &loaded.peer()).unwrap();
    }

    #[test]
    fn keys_are_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let made = NodeKeys::create(dir.path()).unwrap();
        assert!(matches!(NodeKeys::create(dir.path()), Err(KeyError::Exists { .. })));
        assert_eq!(NodeKeys::load(dir.path()).unwrap().peer(), made.peer());
    }

    #[test]
    fn the_key_of_an_account_is_a_file_like_any_other_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wallet.key");
        assert!(matches!(AccountKey::load(&path), Err(KeyError::Io { doing: "read", .. })));
        let made = AccountKey::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(AccountKey::load(&path).unwrap().account(), made.account());
        assert!(matches!(AccountKey::create(&path), Err(KeyError::Exists { .. })));
        assert_eq!(AccountKey::load(&path).unwrap().account(), made.account());
        let digits = fs::read_to_string(&path).unwrap();
        assert!(!format!("{made:?}").contains(digits.trim_end()));
        set_mode(&path, 0o644);
        assert!(matches!(AccountKey::load(&path), Err(KeyError::Permissions { mode: 0o644, .. })));
        set_mode(&path, 0o600);
        fs::write(&path, &digits[1..]).unwrap();
        assert!(matches!(AccountKey::load(&path), Err(KeyError::Malformed { .. })));
    }

    #[test]
    fn files_that_others_may_use_are_refused_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        NodeKeys::create(dir.path()).unwrap();
        let path = dir.path().join(DIR).join(BLS_FILE);
        for mode in [0o640, 0o604, 0o620, 0o601] {
            set_mode(&path, mode);
            let refusal = NodeKeys::load(dir.path()).unwrap_err().to_string();
            assert!(refusal.contains("chmod 600") && refusal.contains(&format!("{mode:04o}")), "{refusal}");
        }
        set_mode(&path, 0o400);
        NodeKeys::load(dir.path()).unwrap();
    }

    #[test]
    fn anything_but_a_key_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        NodeKeys::create(dir.path()).unwrap();
        let path = dir.path().join(DIR).join(BLS_FILE);
        let good = fs::read_to_string(&path).unwrap();
        let digits = good.trim_end();
        let secret = "a1".repeat(32);
        for bad in [
            String::new(),
            digits[1..].to_owned(),
            format!("{digits}0"),
            format!("{digits}\n\n"),
            format!("{digits}\r\n"),
            format!(" {digits}"),
            format!("0x{}", &digits[2..]),
            format!("{}\n", "AB".repeat(32)),
            format!("{secret}{secret}"),
            "00".repeat(32),
            "ff".repeat(32),
        ] {
            fs::write(&path, &bad).unwrap();
            let error = NodeKeys::load(dir.path()).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(bad.len() < 8 || !text.contains(bad.trim()), "{text}");
        }
        fs::write(&path, digits).unwrap();
        NodeKeys::load(dir.path()).unwrap();
    }

    #[test]
    fn secrets_are_not_printed() {
        let keys = NodeKeys::generate().unwrap();
        let text = format!("{keys:?} {:?} {:#?}", keys.peer_key(), keys);
        assert!(!text.contains(&hex::encode(**keys.peer_key().secret_bytes())), "{text}");
        assert!(!text.contains(&hex::encode(*keys.bls().to_bytes())), "{text}");
    }

    #[test]
    fn an_identity_is_the_public_half_of_its_key() {
        // Source: RFC 8032, section 7.1, test 1.
        let mut secret = [0; 32];
        hex::decode_to_slice("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", &mut secret)
            .unwrap();
        let peer = PeerKey(Zeroizing::new(secret)).peer();
        assert_eq!(peer.to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }
}
