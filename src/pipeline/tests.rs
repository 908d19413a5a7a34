//! What pipeline files may say, and what is said back when they may not.
//! Knows no kinds.
