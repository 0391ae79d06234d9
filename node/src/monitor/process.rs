//! What the system says of this process. Linux tells in `/proc`; elsewhere nothing is known.

use std::fs;

/// Clock ticks a second for whoever reads them on Linux, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the system says of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Process {
    /// Bytes of memory that it holds.
    pub(super) resident_bytes: u64,
    /// Its threads.
    pub(super) threads: u64,
    /// Seconds of processor time, on all its threads.
    pub(super) cpu_seconds: f64,
    /// Files and connections that it has open.
    pub(super) open_files: u64,
}

impl Process {
    /// What it says of this one, if it does. Takes a few system calls that never wait.
    pub(super) fn of_this() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Self {
            resident_bytes: field(&status, "VmRSS:")?.checked_mul(1024)?,
            threads: field(&status, "Threads:")?,
            cpu_seconds: cpu_seconds(&stat)?,
            open_files: u64::try_from(open_files).ok()?,
        })
    }
}

/// A number of `/proc/PID/status`. Source: `proc_pid_status(5)`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Time in user and in system mode. Source: `proc_pid_stat(5)`, fields 14 and 15.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name of the program, field 2, may hold anything, also parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_writes_is_read() {
        let status = "Name:\ta) b\nVmRSS:\t   1234 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(1234));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(field(status, "VmHWM:"), None);
        assert_eq!(cpu_seconds("7 (a) S 1) R 1 2 3 4 5 6 7 8 9 10 150 50 13"), Some(2.0));
        assert_eq!(cpu_seconds("7 (a) R 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let process = Process::of_this().unwrap();
        assert!(process.resident_bytes > 100_000, "{process:?}");
        assert!(process.threads > 0 && process.open_files > 2, "{process:?}");
    }
}
