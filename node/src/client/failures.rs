//! Who is to blame when something could not be had, for a person to read.

use std::fmt;

use protocol::message::REASON_BYTES_MAX;

/// Members that are named when an answer could not be had; the rest is counted.
const NAMED_MAX: usize = 3;

/// Members that gave nothing that can be used, and why; those that lied first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Name and reason of each.
    liars: Vec<(String, String)>,
    others: Vec<(String, String)>,
}

impl Failures {
    pub(super) fn lied(&mut self, name: &str, why: impl fmt::Display) {
        put(&mut self.liars, name, why);
    }

    pub(super) fn failed(&mut self, name: &str, why: impl fmt::Display) {
        put(&mut self.others, name, why);
    }

    /// Names of the members whose word was refused: what they said does not verify.
    pub fn liars(&self) -> impl Iterator<Item = &str> {
        self.liars.iter().map(|(name, _)| name.as_str())
    }

    /// A member failed; or lied, if only a liar fails so.
    pub(super) fn blame(&mut self, name: &str, why: impl fmt::Display, is_lie: bool) {
        if is_lie { self.lied(name, why) } else { self.failed(name, why) }
    }

    /// A member failed before, and does no more.
    pub(super) fn forget(&mut self, name: &str) {
        for list in [&mut self.liars, &mut self.others] {
            list.retain(|(other, _)| other != name);
        }
    }

    /// True if no member failed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.liars.is_empty() && self.others.is_empty()
    }
}

/// The last that a member did counts.
fn put(list: &mut Vec<(String, String)>, name: &str, why: impl fmt::Display) {
    let why = printable(&why.to_string());
    match list.iter_mut().find(|(other, _)| other == name) {
        Some((_, old)) => *old = why,
        None => list.push((name.to_owned(), why)),
    }
}

/// A text that a member wrote, of which a terminal takes nothing for a command, and which fits into a line or two.
pub(super) fn printable(text: &str) -> String {
    let mut printable = String::new();
    for char in text.chars().map(|char| if char.is_control() { ' ' } else { char }) {
        if printable.len() + char.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        printable.push(char);
    }
    printable
}

/// `; a: why; b: why; and 3 more`, or nothing.
impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_all = self.liars.len() + self.others.len();
        for (name, why) in self.liars.iter().chain(&self.others).take(NAMED_MAX) {
            write!(f, "; {name}: {why}")?;
        }
        match n_all.saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
