//! Running the programs of a Docker engine, each within a time of its own.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    process::{Child, Command, Stdio},
    time::Duration,
};

use node::cli::{Exit, Failure};

use crate::cluster::until;

/// How long looking at something, or a change of one container, may take on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of what a program prints that are looked at: more than is said of a thousand containers.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the end of what a program says went wrong that are shown.
const ERROR_BYTES_SHOWN: usize = 1200;

/// A call of `docker`, or of the program that reads compose files.
#[derive(Debug)]
pub(super) struct Call {
    /// The program, and words that belong to its name.
    program: Vec<OsString>,
    args: Vec<OsString>,
    limit: Duration,
}

impl Call {
    /// A call of `docker`.
    pub(super) fn docker(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::of(&["docker"], args)
    }

    /// A call of a program.
    pub(super) fn of(program: &[&str], args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self {
            program: program.iter().map(OsString::from).collect(),
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            limit: LIMIT,
        }
    }

    /// The same with more words behind.
    pub(super) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// The same within another time.
    pub(super) const fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What it prints on standard output.
    ///
    /// Cancel safe: the program is killed; what it asked of the engine may still happen.
    ///
    /// # Errors
    ///
    /// If it cannot be started, does not end in time, or fails; the error has what it said.
    pub(super) async fn run(self) -> Result<String, Failure> {
        self.run_with(Stdio::null()).await.map(|(output, _)| output)
    }

    /// What it prints on standard output and on standard error, with something to read on standard input.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub(super) async fn run_with(self, input: impl Into<Stdio>) -> Result<(String, String), Failure> {
        let failed = |error: io::Error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let failure = Failure::io(format!("cannot run {}", self.shown()), &error);
            if missing { failure.hint("install Docker and docker-compose") } else { failure }
        };
        let (program, words) =
            self.program.split_first().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        // Files and not pipes: they never fill up, and are there when the time is over.
        let (mut stdout, mut stderr) =
            (tempfile::tempfile().map_err(failed)?, tempfile::tempfile().map_err(failed)?);
        let mut command = Command::new(program);
        command.args(words).args(&self.args).stdin(input);
        command.stdout(stdout.try_clone().map_err(failed)?).stderr(stderr.try_clone().map_err(failed)?);
        let mut running = Running(command.spawn().map_err(failed)?);
        let ended = until(&self.shown(), self.limit, async || running.0.try_wait().map_err(failed)).await;
        let (output, said) = (read(&mut stdout).map_err(failed)?, read(&mut stderr).map_err(failed)?);
        match ended {
            Ok(status) if status.success() => Ok((output, said)),
            Ok(status) => Err(Failure::new(
                Exit::Unavailable,
                format!("{} failed ({status}): {}", self.shown(), end_of(&said, &output)),
            )),
            Err(late) => Err(Failure::new(late.exit(), format!("{late}: {}", end_of(&said, &output)))),
        }
    }

    /// The beginning of the line that a person would have typed.
    fn shown(&self) -> String {
        let words = self.program.iter().chain(&self.args).map(|word| word.to_string_lossy());
        let line = words.collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(160) {
            Some((end, _)) => format!("`{}...`", &line[..end]),
            None => format!("`{line}`"),
        }
    }
}

/// A program that is running; killed if nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The end of what went wrong; of what was printed, if nothing was said of that.
fn end_of(said: &str, printed: &str) -> String {
    let text = if said.trim().is_empty() { printed } else { said };
    let mut start = text.len().saturating_sub(ERROR_BYTES_SHOWN);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let end = text[start..].split_whitespace().collect::<Vec<_>>().join(" ");
    if end.is_empty() { "it said nothing".to_owned() } else { end }
}

/// The program that reads compose files: `docker compose`, or the `docker-compose` of old.
///
/// # Errors
///
/// If there is neither.
pub(super) async fn compose_program() -> Result<&'static [&'static str], Failure> {
    const PROGRAMS: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    for program in PROGRAMS {
        if Call::of(program, ["version"]).run().await.is_ok() {
            return Ok(program);
        }
    }
    Err(Failure::new(Exit::Unavailable, "neither `docker compose` nor `docker-compose` can be run")
        .hint("install one of them: Compose 2, or docker-compose 1.29"))
}

/// Checks that there is an engine to be asked.
///
/// # Errors
///
/// If there is none.
pub async fn check_engine() -> Result<(), Failure> {
    let version = Call::docker(["version", "--format", "{{.Server.Version}}"]).run().await;
    version.map(|_| ()).map_err(|failure| {
        Failure::because(Exit::Unavailable, "no Docker engine can be reached", &failure)
            .hint("start it, and be allowed to use it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_program_prints_is_had() {
        let (output, said) =
            Call::of(&["sh", "-c"], ["echo a; echo b >&2"]).run_with(Stdio::null()).await.unwrap();
        assert_eq!((output.as_str(), said.as_str()), ("a\n", "b\n"));
        let mut input = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut input, b"x").unwrap();
        input.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(Call::of(&["cat"], ["-"]).run_with(input).await.unwrap().0, "x");
    }

    #[tokio::test]
    async fn a_failure_shows_what_was_said() {
        let failure = Call::of(&["sh", "-c"], ["echo why >&2; exit 3"]).run().await.unwrap_err().to_string();
        assert!(failure.contains("exit status: 3") && failure.contains("why"), "{failure}");
        let failure = Call::of(&["sh", "-c"], ["echo out; exit 1"]).run().await.unwrap_err().to_string();
        assert!(failure.ends_with("): out"), "{failure}");
        let none = Call::of(&["/no/such/program"], ["x"]).run().await.unwrap_err();
        assert!(none.to_string().contains("install Docker"), "{none}");
    }

    #[tokio::test]
    async fn what_does_not_end_is_killed_and_named() {
        let call =
            Call::of(&["sh", "-c"], ["echo busy >&2; exec sleep 1000"]).within(Duration::from_millis(300));
        let failure = call.run().await.unwrap_err().to_string();
        assert!(failure.contains("sleep 1000") && failure.contains("not within"), "{failure}");
        assert!(failure.ends_with(": busy"), "{failure}");
    }

    #[test]
    fn long_texts_are_cut_at_letters() {
        let call = Call::of(&["docker"], ["é".repeat(300)]);
        assert!(call.shown().ends_with("é...`"));
        assert!(end_of(&"é ".repeat(2000), "").len() <= ERROR_BYTES_SHOWN);
        assert_eq!(end_of(" \n", ""), "it said nothing");
    }
}
