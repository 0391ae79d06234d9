//! Another program that takes what room there is on a disk.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use node::cli::Failure;
use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};

/// What is left of a full disk: less than a node leaves, so that it takes nothing more.
const LEFT_BYTES: u64 = 4 << 20;

fn filler(dir: &Path) -> PathBuf {
    dir.join("filler")
}

/// Takes nearly all that is free on the disk of a directory.
///
/// # Errors
///
/// If the system refuses, for another reason than that there is no room.
pub(crate) fn fill(dir: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::io(format!("cannot fill {}", dir.display()), &error);
    let file = File::create(filler(dir)).map_err(failed)?;
    let stat = statvfs(dir).map_err(|error| failed(error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    match free.saturating_sub(LEFT_BYTES) {
        0 => Ok(()),
        len => match fallocate(&file, FallocateFlags::empty(), 0, len) {
            // The node was faster.
            Ok(()) | Err(Errno::NOSPC) => Ok(()),
            Err(error) => Err(failed(error.into())),
        },
    }
}

/// Gives back what was taken.
///
/// # Errors
///
/// If nothing was, or the system refuses.
pub(crate) fn empty(dir: &Path) -> Result<(), Failure> {
    let filler = filler(dir);
    fs::remove_file(&filler)
        .map_err(|error| Failure::io(format!("cannot remove {}", filler.display()), &error))
}
