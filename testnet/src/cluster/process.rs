//! Processes of nodes: which they are, how they are, and how to signal them and nobody else.

use std::{fs, io, path::PathBuf, time::Duration};

use node::cli::{Exit, Failure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Clock ticks are of 10 ms for whoever reads them on Linux, whatever the kernel's own clock.
const MS_PER_TICK: u64 = 10;

/// Names a process for good: its number is used again once it is gone, but not with the same start on the same boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// The process number.
    pub pid: i32,
    /// When it started, in ticks since the boot.
    start: u64,
    /// The boot.
    boot: String,
}

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It was stopped by a signal, and continues at another.
    Stopped,
    /// It is gone, or was never there.
    Dead,
}

/// Memory that a process holds, without what it has only mapped, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub now: u64,
    /// The most that it has held at a time.
    pub peak: u64,
}

impl Memory {
    /// Of the process that has this number.
    ///
    /// # Errors
    ///
    /// If there is none, or the system does not tell.
    pub fn of(pid: i32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Source: `proc_pid_status(5)`.
    fn parse(text: &str) -> Option<Self> {
        let bytes = |key| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Some(Self { now: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }
}

impl ProcessId {
    /// Identifies a process that runs now.
    ///
    /// # Errors
    ///
    /// If there is none, or the system does not tell.
    pub fn of(pid: i32) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::io(format!("cannot identify process {pid}"), &error);
        let (_, start) = stat(pid).map_err(failed)?;
        Ok(Self { pid, start, boot: boot().map_err(failed)? })
    }

    /// Identifies this process.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn of_this_process() -> Result<Self, Failure> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// Processor time that it has taken since its start, on all its threads, in the system's steps of 10 ms.
    ///
    /// # Errors
    ///
    /// If it is gone, or the system does not tell.
    pub fn cpu_time(&self) -> Result<Duration, Failure> {
        let failed = |error| Failure::io(format!("cannot tell the time of process {}", self.pid), &error);
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid)).map_err(failed)?;
        let ticks = parse_ticks(&text).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        Ok(Duration::from_millis(ticks.saturating_mul(MS_PER_TICK)))
    }

    /// The program that it runs.
    ///
    /// # Errors
    ///
    /// If it is gone, or the system does not tell.
    pub fn program(&self) -> Result<PathBuf, Failure> {
        let failed = |error| Failure::io(format!("cannot tell the program of process {}", self.pid), &error);
        fs::read_link(format!("/proc/{}/exe", self.pid)).map_err(failed)
    }

    /// The memory that it holds.
    ///
    /// # Errors
    ///
    /// If it is gone, or the system does not tell.
    pub fn memory(&self) -> Result<Memory, Failure> {
        let failed = |error| Failure::io(format!("cannot tell the memory of process {}", self.pid), &error);
        Memory::of(self.pid).map_err(failed)
    }

    /// Files and sockets that it has open.
    ///
    /// # Errors
    ///
    /// If it is gone, or the system does not tell.
    pub fn open_files(&self) -> Result<usize, Failure> {
        let failed = |error| Failure::io(format!("cannot tell the files of process {}", self.pid), &error);
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid)).map_err(failed)?.count())
    }

    /// How it is now.
    #[must_use]
    pub fn state(&self) -> ProcessState {
        match (stat(self.pid), boot()) {
            (Ok((state, start)), Ok(boot)) if start == self.start && boot == self.boot => match state {
                'Z' | 'X' => ProcessState::Dead,
                'T' | 't' => ProcessState::Stopped,
                _ => ProcessState::Running,
            },
            _ => ProcessState::Dead,
        }
    }

    /// Sends a signal to this process, and never to another that was given its number.
    ///
    /// # Errors
    ///
    /// If it is gone, or the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let gone = || Failure::new(Exit::NotFound, format!("process {} is gone", self.pid));
        let pid = Pid::from_raw(self.pid).ok_or_else(gone)?;
        // From here on the descriptor means this process, or none.
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
        if self.state() == ProcessState::Dead {
            return Err(gone());
        }
        pidfd_send_signal(process, signal).map_err(|error| {
            Failure::io(format!("cannot signal process {}", self.pid), &io::Error::from(error))
        })
    }
}

/// State and start of a process. Source: `proc_pid_stat(5)`, fields 3 and 22.
fn stat(pid: i32) -> io::Result<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_stat(text: &str) -> Option<(char, u64)> {
    // The name of the program, field 2, may hold anything, also parentheses.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Clock ticks in user and in system mode. Source: `proc_pid_stat(5)`, fields 14 and 15.
fn parse_ticks(text: &str) -> Option<u64> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn programs_with_odd_names_are_told_apart() {
        let text = "7 (a) S 1) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_stat(text), Some(('R', 4711)));
        assert_eq!(parse_stat("7 (a) R 1"), None);
        assert_eq!((parse_ticks(text), parse_ticks("7 (a) R 1 2")), (Some(11 + 12), None));
    }

    #[test]
    fn signals_reach_the_process_and_its_state_is_seen() {
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let process = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert_eq!(process.state(), ProcessState::Running);
        process.signal(Signal::STOP).unwrap();
        while process.state() != ProcessState::Stopped {
            std::thread::yield_now();
        }
        process.signal(Signal::KILL).unwrap();
        while process.state() != ProcessState::Dead {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(process.signal(Signal::KILL).unwrap_err().exit(), Exit::NotFound);
    }

    #[test]
    fn a_process_takes_memory() {
        let text = "Name:\tx\nVmHWM:\t   12 kB\nVmRSS:\t  9 kB\n";
        assert_eq!(Memory::parse(text), Some(Memory { now: 9 << 10, peak: 12 << 10 }));
        assert_eq!((Memory::parse(&text.replace("12", "x")), Memory::parse("")), (None, None));
        let process = ProcessId::of_this_process().unwrap();
        let memory = process.memory().unwrap();
        assert!(memory.peak >= memory.now && memory.now > 100_000, "{memory:?}");
        assert!(process.open_files().unwrap() > 0);
        assert_eq!(process.program().unwrap(), std::env::current_exe().unwrap());
    }

    #[test]
    fn a_process_takes_time() {
        let process = ProcessId::of_this_process().unwrap();
        let before = process.cpu_time().unwrap();
        while process.cpu_time().unwrap() == before {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn another_process_with_the_same_number_is_not_ours() {
        let mut process = ProcessId::of_this_process().unwrap();
        assert_eq!(process.state(), ProcessState::Running);
        process.start += 1;
        assert_eq!(process.state(), ProcessState::Dead);
        assert_eq!(process.signal(Signal::KILL).unwrap_err().exit(), Exit::NotFound);
    }
}
