//! All tests that need libtorch, in one program.

mod ahead;
mod algorithms;
mod compute;
mod data;
mod evaluation;
mod forms;
mod formulas;
mod golden;
mod harness;
mod invariants;
mod judge;
mod kinds;
mod labels;
mod logging;
mod losses;
mod models;
mod parity;
mod registry;
mod resume;
mod reward;
mod rewards;
mod sample;
mod tables;
mod tokens;
