//! The binary as a user meets it: a directory, a pipeline, one command after another.

mod bad_input;
mod damage;
mod interrupt;
mod rerun;
mod space;
