//! A file that appears only once it is complete.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use super::{Exit, Failure, shown};
use crate::config::sync_dir;

/// `FILE.part`, which becomes `FILE` when it is complete and is removed when it is dropped before.
#[derive(Debug)]
pub(super) struct PartFile {
    part: PathBuf,
    target: PathBuf,
    /// INV: `part` exists and is ours.
    incomplete: bool,
}

impl PartFile {
    /// Creates `FILE.part`. A file that is already called `FILE` is replaced at the end; anything else is not.
    pub(super) fn create(path: &Path) -> Result<(Self, File), Failure> {
        let failed = |error: io::Error| Failure::io(format!("cannot write {}", shown(path)), &error);
        let target = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(failed(error)),
            // The link stays, and what it points to is replaced.
            Ok(metadata) if metadata.is_symlink() => fs::canonicalize(path).map_err(failed)?,
            Ok(_) => path.to_owned(),
        };
        if target.file_name().is_none() || target.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let what = format!("cannot write {}: not a regular file", shown(path));
            return Err(Failure::new(Exit::Io, what).hint("leave out --out to write to standard output"));
        }
        let mut part = OsString::from(&target);
        part.push(".part");
        let part = PathBuf::from(part);
        let file = OpenOptions::new().write(true).create_new(true).open(&part).map_err(|error| {
            let failure = Failure::io(format!("cannot create {}", shown(&part)), &error);
            match error.kind() {
                io::ErrorKind::AlreadyExists => failure.hint("remove it, unless another read is writing it"),
                _ => failure,
            }
        })?;
        Ok((Self { part, target, incomplete: true }, file))
    }

    /// Makes the content durable, and gives the file its name.
    pub(super) fn complete(mut self, file: &File) -> Result<(), Failure> {
        let complete = || {
            file.sync_all()?;
            fs::rename(&self.part, &self.target)
        };
        complete().map_err(|error| Failure::io(format!("cannot write {}", shown(&self.target)), &error))?;
        self.incomplete = false;
        sync_dir(&self.target)
            .map_err(|error| Failure::io(format!("cannot make {} durable", shown(&self.target)), &error))
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.incomplete {
            // Nothing to be done if it is gone already.
            let _ = fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_appears_when_complete_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "old").unwrap();
        let (part, mut file) = PartFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(dir.path()), ["f", "f.part"]);
        part.complete(&file).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(dir.path()), ["f"]);
    }

    #[test]
    fn nothing_is_left_behind_when_it_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let (part, mut file) = PartFile::create(&dir.path().join("f")).unwrap();
        file.write_all(b"new").unwrap();
        drop(part);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_is_no_regular_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path(), Path::new("/dev/null"), Path::new("/")] {
            let failure = PartFile::create(path).unwrap_err();
            assert_eq!(failure.exit(), Exit::Io);
            assert!(failure.to_string().contains("not a regular file"), "{failure}");
        }
        assert!(PartFile::create(&dir.path().join("missing/f")).is_err());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_part_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f.part"), "theirs").unwrap();
        let failure = PartFile::create(&dir.path().join("f")).unwrap_err();
        assert!(failure.to_string().contains("remove it"), "{failure}");
        assert_eq!(fs::read_to_string(dir.path().join("f.part")).unwrap(), "theirs");
    }

    #[test]
    fn a_link_stays_and_its_target_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let (part, mut file) = PartFile::create(&link).unwrap();
        file.write_all(b"new").unwrap();
        part.complete(&file).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
    }
}
