//! Kinds as data: what a worker offers.
