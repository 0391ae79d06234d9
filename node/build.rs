//! Says which commit is built: whoever upgrades wants to know which program a node runs.

#![allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

use std::process::Command;

/// Names the commit where there is no repository, as in an archive of the sources.
const COMMIT_VARIABLE: &str = "FLOE_COMMIT";

fn main() {
    let version = env!("CARGO_PKG_VERSION");
    let named = std::env::var(COMMIT_VARIABLE).ok();
    // Who develops would wait for this crate, and all behind it, after each commit.
    let is_for_operators = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let is_named = named.is_some();
    let commit = named.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]).filter(|_| is_for_operators));
    let version = commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=FLOE_VERSION={version}");
    println!("cargo::rerun-if-env-changed={COMMIT_VARIABLE}");
    println!("cargo::rerun-if-changed=build.rs");
    // Each change of HEAD, to whatever it points, is a line there.
    let log = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]);
    if let Some(log) = log.filter(|_| is_for_operators && !is_named) {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// What git prints, if it can be asked.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
