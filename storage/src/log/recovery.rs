//! Deciding, file by file, what was stored, what is damaged and what is a torn write.
//!
//! The rule is in the documentation of [`crate::log`].

use std::{
    io::{self, IoSlice},
    ops::Range,
};

use super::{
    LogFile, RECORDS_START,
    record::Header,
    scan::{Item, Scanner},
};

/// Bytes of a tail written again at a step.
const COPY_BYTES: u64 = 1 << 20;

/// What is known of a file before it is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Where to start.
    pub(crate) from: u64,
    /// Everything before this was durable.
    pub(crate) proven: u64,
}

/// What replaying a file found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// Where the file ends now.
    pub(crate) end: u64,
    /// Parts that hold no record and once did.
    pub(crate) damage: Vec<Range<u64>>,
    /// Bytes cut off the end.
    pub(crate) torn_bytes: u64,
    /// Records were searched for in what is left, so it may be read otherwise once the file is longer.
    pub(crate) is_searched: bool,
}

/// Calls `sink` with each record of the file in order, then cuts a torn write off its end and makes what is left
/// durable. `newest` says that no newer file exists.
///
/// # Errors
/// That of the disk or of `sink`. Replaying again is harmless.
pub(crate) fn replay<E: From<io::Error>>(
    log: &LogFile,
    bounds: Bounds,
    newest: bool,
    mut sink: impl FnMut(Header) -> Result<(), E>,
) -> Result<Replayed, E> {
    let mut scanner = Scanner::new(log, bounds.from)?;
    let len = log.file.len()?;
    let mut proven = if newest { bounds.proven.max(RECORDS_START) } else { len };
    // Items of the last batch, held back until a later record proves that they were durable.
    let mut held: Vec<Item> = Vec::new();
    let mut damage = Vec::new();
    while let Some(item) = scanner.next()? {
        if let Item::Record(header) = &item {
            proven = proven.max(header.batch_start);
        }
        held.push(item);
        if held.first().is_some_and(|first| start_of(first) < proven) {
            let unproven = held.iter().position(|item| start_of(item) >= proven).unwrap_or(held.len());
            for item in held.drain(..unproven) {
                settle(item, &mut damage, &mut sink)?;
            }
        }
    }
    if !newest {
        return Ok(Replayed { end: len, damage, torn_bytes: 0, is_searched: scanner.searched().is_some() });
    }
    let mut end = held.first().map_or(len, start_of);
    let tail_start = end;
    for item in held {
        let Item::Record(header) = item else { break };
        if !log.is_whole(&header)? {
            break;
        }
        end = header.end();
        sink(header)?;
    }
    secure(log, tail_start..end, len)?;
    let is_searched = scanner.searched().is_some_and(|at| at < end);
    Ok(Replayed { end, damage, torn_bytes: len - end, is_searched })
}

fn start_of(item: &Item) -> u64 {
    match item {
        Item::Record(header) => header.offset,
        Item::Damage(range) => range.start,
    }
}

/// Passes on an item that is known to have been durable.
fn settle<E>(
    item: Item,
    damage: &mut Vec<Range<u64>>,
    sink: &mut impl FnMut(Header) -> Result<(), E>,
) -> Result<(), E> {
    match item {
        Item::Record(header) => sink(header)?,
        Item::Damage(range) => damage.push(range),
    }
    Ok(())
}

/// Cuts the file at the end of `tail` and makes all of it durable. The tail is written again, in place and
/// unchanged, because after a failed sync the system may hold it in memory only and believe it is on the disk.
fn secure(log: &LogFile, tail: Range<u64>, len: u64) -> io::Result<()> {
    if tail.is_empty() && tail.end == len {
        return Ok(());
    }
    if tail.end < len {
        log.file.truncate(tail.end)?;
    }
    let mut at = tail.start;
    while at < tail.end {
        let bytes = log.bytes(at, COPY_BYTES.min(tail.end - at))?;
        log.file.write_at(at, &[IoSlice::new(&bytes)])?;
        at = at.saturating_add(COPY_BYTES);
    }
    log.file.sync()
}
