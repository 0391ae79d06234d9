//! What fuzzing begins with and what it has found, through the same functions, in the tests that land a change.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use testnet::fuzz::{Seed, Target, targets};

/// The variable that has the seeds written.
const WRITE: &str = "FUZZ_SEEDS";
/// All seeds together stay small enough to be kept beside the code.
const SEEDS_BYTES_MAX: u64 = 300 << 10;

fn folder(kind: &str, target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target.name)
}

/// The files of a folder by their names; none if there is no folder.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn what_real_encoders_write_is_accepted() {
    let mut refused = Vec::new();
    for target in targets() {
        let seeds = (target.seeds)();
        let names: BTreeSet<&str> = seeds.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), seeds.len(), "{}: names of seeds", target.name);
        assert!(!seeds.is_empty(), "{}: no seed", target.name);
        for (name, bytes) in &seeds {
            assert!(bytes.len() <= target.bytes_max, "{}/{name} has {} bytes", target.name, bytes.len());
            if !(target.run)(bytes) {
                refused.push(format!("{}/{name}", target.name));
            }
        }
        if std::env::var_os(WRITE).is_some_and(|value| value == "write") {
            write(target, &seeds);
        }
    }
    assert!(refused.is_empty(), "refused: {refused:?}");
}

fn write(target: &Target, seeds: &[Seed]) {
    let folder = folder("seeds", target);
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in seeds {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

#[test]
fn the_seeds_that_are_kept_are_accepted() {
    let mut total = 0;
    for target in targets() {
        let seeds = files(&folder("seeds", target));
        assert!(!seeds.is_empty(), "{}: no seeds; {WRITE}=write makes them", target.name);
        for (name, bytes) in seeds {
            total += u64::try_from(bytes.len()).unwrap();
            let accepted = (target.run)(&bytes);
            assert!(accepted, "{}/{name} is refused: if its format has changed, {WRITE}=write", target.name);
        }
    }
    assert!(total <= SEEDS_BYTES_MAX, "{total} bytes of seeds");
}

#[test]
fn what_crashed_once_does_no_more() {
    for target in targets() {
        for (name, bytes) in files(&folder("crashes", target)) {
            // Accepted or refused: what counts is that it returns.
            println!("{}/{name}", target.name);
            (target.run)(&bytes);
        }
    }
}

/// A byte changed, a piece cut out or doubled, at every place of every seed that is short: what fuzzing tries first.
#[test]
fn seeds_with_a_change_are_accepted_or_refused() {
    for target in targets() {
        for (_, bytes) in files(&folder("seeds", target)) {
            let step = bytes.len().div_ceil(40).max(1);
            for at in (0..bytes.len()).step_by(step) {
                let mut changed = bytes.clone();
                changed[at] ^= 0x81;
                (target.run)(&changed);
                (target.run)(&bytes[..at]);
                let doubled = [&bytes[..at], &bytes[at / 2..]].concat();
                (target.run)(&doubled[..doubled.len().min(target.bytes_max)]);
            }
        }
    }
}

/// Each folder is that of a target, and each target has a name of its own.
#[test]
fn folders_are_those_of_targets() {
    let names: BTreeSet<String> = targets().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), targets().count(), "names of targets");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for kind in ["seeds", "crashes"] {
        for entry in fs::read_dir(root.join(kind)).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(names.contains(&name), "testnet/fuzz/{kind}/{name} is of no target");
        }
    }
}
