//! The `preflow` command. All of it is in `cli`.

fn main() -> std::process::ExitCode {
    preflow::cli::main()
}
