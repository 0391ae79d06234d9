//! What is done to the files of a node's volume from a container of its own.
//!
//! # Invariants
//!
//! - Nothing outside the volume is touched: paths that lead out of it are refused, links included.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::{Component, Path, PathBuf},
};

use node::{
    cli::{Exit, Failure},
    config::NodeConfig,
};
use serde::{Deserialize, Serialize};

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeFile {
    /// Where it is, from the volume on.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Empties the disk of the node in `dir`, which does not run; it keeps its keys and its configuration.
///
/// # Errors
///
/// If something cannot be removed.
pub fn wipe(dir: &Path) -> Result<(), Failure> {
    let data = NodeConfig::load(dir)?.storage.dir;
    if data.parent() != Some(dir) {
        let what = format!("will not empty {}: it is not in the node's directory", data.display());
        return Err(Failure::new(Exit::Usage, what));
    }
    match fs::remove_dir_all(&data) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::io(format!("cannot remove {}", data.display()), &error))
        }
        _ => Ok(()),
    }
}

/// The files below `dir`, by path. Those that go while it is looked at are left out.
///
/// # Errors
///
/// If `dir` itself cannot be read.
pub fn files(dir: &Path) -> Result<Vec<VolumeFile>, Failure> {
    let failed = |error| Failure::io(format!("cannot read {}", dir.display()), &error);
    let mut found = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(dir).map_err(failed)?.collect();
    while let Some(entry) = entries.pop() {
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            entries.extend(fs::read_dir(entry.path()).into_iter().flatten());
        } else if let (true, Ok(path)) = (metadata.is_file(), entry.path().strip_prefix(dir)) {
            found.push(VolumeFile { path: path.to_owned(), bytes: metadata.len() });
        }
    }
    found.sort();
    Ok(found)
}

/// Writes a file below `dir`, in place of what was there.
///
/// # Errors
///
/// If the path leads out of `dir`, or the file cannot be written.
pub fn put(dir: &Path, path: &Path, mut content: impl Read) -> Result<(), Failure> {
    let path = within(dir, path)?;
    let mut write = || {
        let mut file = File::create(&path)?;
        io::copy(&mut content, &mut file)?;
        file.sync_all()
    };
    write().map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))
}

/// Flips the bits of `mask` in one byte of a file below `dir`: what a disk does when it rots.
///
/// # Errors
///
/// If the path leads out of `dir`, the file has no such byte, or `mask` changes nothing.
pub fn corrupt(dir: &Path, path: &Path, (offset, mask): (u64, u8)) -> Result<(), Failure> {
    if mask == 0 {
        return Err(Failure::new(Exit::Usage, "a mask of 0 changes nothing"));
    }
    let path = within(dir, path)?;
    let flip = || {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[byte[0] ^ mask], offset)?;
        file.sync_all()
    };
    flip().map_err(|error| Failure::io(format!("cannot corrupt byte {offset} of {}", path.display()), &error))
}

/// A path below `dir`, as it really is.
fn within(dir: &Path, path: &Path) -> Result<PathBuf, Failure> {
    let refuse = || Failure::new(Exit::Usage, format!("{} is not a path in the volume", path.display()));
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let name = path.file_name().filter(|_| is_plain).ok_or_else(refuse)?;
    let failed = |error| Failure::io(format!("cannot find {}", path.display()), &error);
    let parent = dir.join(path.parent().unwrap_or_else(|| Path::new("")));
    let parent = parent.canonicalize().map_err(failed)?;
    let found = parent.join(name);
    let is_within = parent.starts_with(dir.canonicalize().map_err(failed)?);
    if is_within && !found.is_symlink() { Ok(found) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use node::cli::init_node;

    use super::*;

    fn volume() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        init_node(dir.path(), &NodeConfig::default()).unwrap();
        fs::create_dir_all(dir.path().join("data/log")).unwrap();
        fs::write(dir.path().join("data/log/1"), b"abc").unwrap();
        dir
    }

    #[test]
    fn wiping_takes_the_data_and_nothing_else() {
        let dir = volume();
        wipe(dir.path()).unwrap();
        assert!(!dir.path().join("data").exists() && dir.path().join("keys").exists());
        wipe(dir.path()).unwrap();
        let config = NodeConfig::default().to_toml().replace("dir = \"data\"", "dir = \"/\"");
        fs::write(dir.path().join("config.toml"), config).unwrap();
        assert!(wipe(dir.path()).unwrap_err().to_string().contains("will not empty /"));
    }

    #[test]
    fn files_are_listed_and_bytes_flipped() {
        let dir = volume();
        let file = VolumeFile { path: PathBuf::from("data/log/1"), bytes: 3 };
        assert!(files(dir.path()).unwrap().contains(&file));
        corrupt(dir.path(), &file.path, (1, 0x81)).unwrap();
        assert_eq!(fs::read(dir.path().join(&file.path)).unwrap(), [b'a', b'b' ^ 0x81, b'c']);
        for change in [(3, 1), (u64::MAX, 1), (0, 0)] {
            corrupt(dir.path(), &file.path, change).unwrap_err();
        }
        assert_eq!(fs::read(dir.path().join(&file.path)).unwrap().len(), 3);
    }

    #[test]
    fn files_are_put_in_place() {
        let dir = volume();
        put(dir.path(), Path::new("data/log/1"), &b"x"[..]).unwrap();
        put(dir.path(), Path::new("new"), &b"yz"[..]).unwrap();
        assert_eq!(fs::read(dir.path().join("data/log/1")).unwrap(), b"x");
        assert_eq!(fs::read(dir.path().join("new")).unwrap(), b"yz");
    }

    #[test]
    fn nothing_leads_out_of_the_volume() {
        let (dir, outside) = (volume(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("f"), "safe").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("f"), dir.path().join("file")).unwrap();
        let absolute = outside.path().join("f");
        let up = format!("../{}/f", outside.path().file_name().unwrap().to_str().unwrap());
        for path in [
            Path::new(&up),
            &absolute,
            Path::new("link/f"),
            Path::new("file"),
            Path::new(""),
            Path::new("none/f"),
        ] {
            put(dir.path(), path, &b"lost"[..]).unwrap_err();
            corrupt(dir.path(), path, (0, 1)).unwrap_err();
        }
        assert_eq!(fs::read(outside.path().join("f")).unwrap(), b"safe");
        let listed = files(dir.path()).unwrap();
        assert!(listed.iter().all(|file| !file.path.starts_with("link") && file.path != Path::new("file")));
    }
}
