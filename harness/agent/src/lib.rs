//! The host-side helper of the harness. (Interface first; the rest follows.)
pub mod protocol;
