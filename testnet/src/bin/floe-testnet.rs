//! The `floe-testnet` command: local networks to try Floe on, and to break.

fn main() -> std::process::ExitCode {
    testnet::cli::main()
}
