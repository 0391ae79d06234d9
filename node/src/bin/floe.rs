//! The `floe` command: one storage node, or a client of a network.

fn main() -> std::process::ExitCode {
    node::cli::main()
}
