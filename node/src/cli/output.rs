//! The only way to standard output and standard error: data on one, everything else on the other.
//!
//! Nothing here panics on a closed pipe, as the printing macros do.

use std::{
    fmt,
    io::{self, Write as _},
};

use serde::Serialize;

use super::failure::Failure;

/// Where and how a command gives its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// One JSON document instead of text.
    pub json: bool,
}

impl Output {
    /// Prints the result of a command: `document` as JSON, or `text`.
    ///
    /// # Errors
    ///
    /// If standard output takes no more.
    pub fn data(self, document: &impl Serialize, text: impl fmt::Display) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string(document).map_err(io::Error::from);
            json.and_then(|json| write(format_args!("{json}\n"))).map_err(Failure::stdout)
        } else {
            let text = text.to_string();
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            write(format_args!("{text}{end}")).map_err(Failure::stdout)
        }
    }
}

/// Prints text as it is.
///
/// # Errors
///
/// If standard output takes no more.
pub fn raw(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text).and_then(|()| stdout.flush()).map_err(Failure::stdout)
}

/// Tells the user something that is not the result. Where nobody listens, nothing is said.
pub fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn write(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_fmt(text)?;
    stdout.flush()
}

/// Rows of cells as aligned columns: the first to the left, the others to the right.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading over each column.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let cell = if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
                line.push_str(&cell);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number of bytes as people read it.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            bytes @ 0..1024 => format!("{bytes} B"),
            bytes => indicatif::BinaryBytes(bytes).to_string(),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_blank_ends() {
        let mut table = Table::new(&["node", "shards", ""]);
        table.row(["a-long-name".to_owned(), "2".to_owned(), String::new()]);
        table.row(["é".to_owned(), "13".to_owned(), "x".to_owned()]);
        assert_eq!(table.to_string(), "node         shards\na-long-name       2\né                13  x\n");
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(Bytes(0).to_string(), "0 B");
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes(64 << 20).to_string(), "64.00 MiB");
    }
}
