//! A directory of the operating system's file system.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, IoSlice},
    ops::Range,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{FallocateFlags, OFlags};

use super::{Disk, DiskFile};
use crate::size::to_u64;

/// Held locked while a process uses the directory; its contents do not matter.
const LOCK_FILE: &str = "lock";

/// The most parts one vectored write takes. Source: `IOV_MAX` on Linux.
const PARTS_MAX: usize = 1024;

/// A directory that this process alone may write, until the value is dropped.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    directory: File,
    /// Held for its lock, which ends with the process however it ends.
    _lock: File,
}

/// Why a directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process, or another store in this one, works in it.
    #[error("{} is in use by another process: stop that one, or use another directory", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It could not be created or opened.
    #[error("while opening {}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

impl RealDisk {
    /// Takes the directory `path`, creating it (mode 0700) if need be.
    ///
    /// # Errors
    /// [`LockError::InUse`] if it is taken already, [`LockError::Io`] if it cannot be created or opened.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, LockError> {
        let path = path.into();
        let failed = |source| LockError::Io { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        }
        let directory = File::open(&path).map_err(failed)?;
        let lock = options()
            .and_then(|mut options| options.create(true).open(path.join(LOCK_FILE)))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, directory, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// For reading and writing, owner only, and never through a link that somebody else put there.
fn options() -> io::Result<OpenOptions> {
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(no_follow);
    Ok(options)
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = options()?.create_new(true).open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = options()?.open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let status = rustix::fs::fstatvfs(&self.directory)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(bytes)
    }
}

/// A file of [`RealDisk`].
#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn write_at(&self, mut offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut parts: Vec<IoSlice<'_>> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
        let mut rest = parts.as_mut_slice();
        while !rest.is_empty() {
            let n_parts = rest.len().min(PARTS_MAX);
            let Some(now) = rest.get(..n_parts) else { break };
            let written = rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.0, now, offset))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset = offset.saturating_add(to_u64(written));
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<()> {
        let length = range.end.saturating_sub(range.start);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.0, flags, range.start, length)?)
    }
}
