//! The `preflow` command. All of it is in `cli`.

use std::process::ExitCode;

/// Graphs of thousands of stages are small pieces of memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    preflow::cli::main().into()
}
