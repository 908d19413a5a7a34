//! The `preflow` command. All of it is in `cli`.

fn main() {}
