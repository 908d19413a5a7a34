//! Text for people, the same on every page and terminal: numbers, times and sizes in few letters,
//! and whatever hides in the words of others made visible. Does not know where it appears.

pub mod markdown;

mod amounts;
mod hidden;
mod numbers;
mod shown;

pub use amounts::{bytes, duration, price, seconds};
pub use hidden::{clean, hides, marked, picture};
pub use numbers::{counted, figure, number, percent, rounded, tick, two_places, whole};
pub use shown::{Shown, changes, mark_changes};
