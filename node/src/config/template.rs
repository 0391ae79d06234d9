//! Writes a configuration with the explanations of the example.

use std::fmt::Write as _;

use super::NodeConfig;

/// The documented example; a test keeps it true.
pub(super) const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Renders a configuration: the example, line by line, with the values replaced. A key without a default is a comment in the
/// example, and becomes a line once it has a value.
pub(super) fn render(config: &NodeConfig) -> String {
    let values = toml::Table::try_from(config).expect("texts, numbers and lists of them are TOML");
    let mut section: Option<&str> = None;
    let mut text = String::with_capacity(EXAMPLE.len());
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = Some(name);
        }
        let key = line.strip_prefix("# ").unwrap_or(line).split_once(" = ").map(|(key, _)| key);
        let table = section.map_or(Some(&values), |name| values.get(name)?.as_table());
        match key.and_then(|key| Some((key, table?.get(key)?))) {
            Some((key, value)) => writeln!(text, "{key} = {value}"),
            None => writeln!(text, "{line}"),
        }
        .expect("a text takes what is written to it");
    }
    text
}
