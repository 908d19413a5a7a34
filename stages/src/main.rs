//! The worker: performs one task, or describes what it can do.

fn main() {}
