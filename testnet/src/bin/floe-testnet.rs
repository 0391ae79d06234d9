//! The `floe-testnet` command: local networks to try Floe on, and to break.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    testnet::cli::main()
}
