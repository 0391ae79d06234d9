//! A node whose clock can be wrong.
//!
//! `floe node run` knows nothing of this: what is in the volume becomes an option of its command line.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use node::cli::{Exit, Failure};

/// The file in a volume that says how many seconds the node's clock is off, from its next start on. Without it, it is right.
pub const CLOCK_FILE: &str = "clock-off-by";

/// Becomes the node of a directory; returns only what went wrong.
///
/// # Errors
///
/// Always.
pub fn run(dir: &Path) -> Result<(), Failure> {
    let skew = skew(dir)?;
    let program = std::env::current_exe().map_err(|error| Failure::io("cannot find this program", &error))?;
    let mut command = Command::new(program);
    command.args(["floe", "node", "run", "--dir"]).arg(dir);
    if skew != 0 {
        command.arg(format!("--clock-off-by={skew}"));
    }
    Err(Failure::io("cannot become the node", &command.exec()))
}

fn skew(dir: &Path) -> Result<i64, Failure> {
    let path: PathBuf = dir.join(CLOCK_FILE);
    let what = || format!("cannot read {}", path.display());
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|error| Failure::because(Exit::Usage, what(), &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Failure::io(what(), &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_right_unless_a_file_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(skew(dir.path()).unwrap(), 0);
        for (text, seconds) in [("-90", -90), ("600\n", 600), ("0", 0)] {
            fs::write(dir.path().join(CLOCK_FILE), text).unwrap();
            assert_eq!(skew(dir.path()).unwrap(), seconds);
        }
        fs::write(dir.path().join(CLOCK_FILE), "late").unwrap();
        assert_eq!(skew(dir.path()).unwrap_err().exit(), Exit::Usage);
    }
}
