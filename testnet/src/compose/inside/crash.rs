//! Ends the process of another container, as a crash would.
//!
//! What the engine itself kills stays dead: it takes that for a wish. A process that is killed behind its back is started
//! again. Whoever kills it needs no privilege, only to see it and to be the same user.

use std::fs;

use node::cli::{Exit, Failure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The process to end.
#[derive(Clone, Debug, clap::Args)]
pub struct Victim {
    /// Its number, as the machine counts
    #[arg(long, value_name = "PID")]
    pid: i32,
    /// The container that it must be in: numbers are given again
    #[arg(long, value_name = "ID")]
    container: String,
}

/// Kills a process of a container, and never another that was given its number.
///
/// # Errors
///
/// If it is gone, or the system refuses.
pub fn crash(victim: &Victim) -> Result<(), Failure> {
    let Victim { pid, container } = victim;
    let gone = || Failure::new(Exit::NotFound, format!("process {pid} of container {container} is gone"));
    let failed = |error: rustix::io::Errno| {
        Failure::io(format!("cannot kill process {pid}"), &std::io::Error::from(error))
    };
    // From here on the descriptor means this process, or none.
    let process =
        pidfd_open(Pid::from_raw(*pid).ok_or_else(gone)?, PidfdFlags::empty()).map_err(|_| gone())?;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|_| gone())?;
    if !is_of(&groups, container) {
        return Err(gone());
    }
    pidfd_send_signal(process, Signal::KILL).map_err(failed)
}

/// True if the control groups of a process are a container's: their names end in its ID, whatever the engine puts around it.
fn is_of(groups: &str, container: &str) -> bool {
    // Source: cgroups(7): a line is `number:controllers:path`.
    let mut paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    !container.is_empty()
        && paths.any(|path| path.rsplit('/').next().is_some_and(|name| name.contains(container)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_groups() {
        for (groups, expected) in [
            ("12:pids:/docker/abc123\n11:cpu:/docker/abc123\n", true),
            ("0::/system.slice/docker-abc123.scope\n", true),
            ("0::/../abc123\n", true),
            ("12:pids:/docker/def456\n0::/\n", false),
            ("12:pids:/docker/abc123/other\n", false),
            ("12:abc123:/docker/def\n", false),
            ("", false),
        ] {
            assert_eq!(is_of(groups, "abc123"), expected, "{groups}");
        }
        assert!(!is_of("0::/\n", ""));
    }

    #[test]
    fn a_process_that_is_in_no_container_is_left_alone() {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let victim = Victim { pid, container: "ffffffffffffffffffffffffffffffff".to_owned() };
        assert_eq!(crash(&victim).unwrap_err().exit(), Exit::NotFound);
        let nobody = Victim { pid: 0, ..victim };
        assert_eq!(crash(&nobody).unwrap_err().exit(), Exit::NotFound);
    }
}
