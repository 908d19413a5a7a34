//! The `preflow` command. All of it is in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    preflow::cli::main().into()
}
