//! How much one document may hold: a file of others must not take all memory or time.

/// Longest file that is read, included files alike.
pub const MAX_BYTES: u64 = 2 * 1024 * 1024;
/// Deepest nesting of lists and maps.
pub const MAX_DEPTH: usize = 48;
/// What aliases may add to a document.
pub const MAX_REPLAYED: usize = 200_000;

/// Files that one document may include, each counted as often as it is included.
pub const MAX_INCLUDES: usize = 1000;
/// Their bytes in all.
pub const MAX_INCLUDED_BYTES: usize = 8 * 1024 * 1024;
