//! What is started on the hosts.

pub(crate) mod sraft;
