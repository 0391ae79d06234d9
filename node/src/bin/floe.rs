//! The `floe` command: one storage node, or a client of a network.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
