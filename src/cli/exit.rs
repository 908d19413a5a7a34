//! Exit codes: what a script may rely on.

/// Everything that was asked for is done.
pub const DONE: u8 = 0;
/// A stage failed.
pub const FAILED: u8 = 1;
/// A bad pipeline file, source or command line.
pub const USAGE: u8 = 2;
/// Waiting for people, or a gate is not met.
pub const WAITING: u8 = 3;
/// The store is damaged, full, or cannot be written.
pub const STORE: u8 = 4;
/// A fault in preflow itself.
pub const BUG: u8 = 70;
/// Interrupted; the next run goes on from there.
pub const INTERRUPTED: u8 = 130;
