//! The S-Raft consensus node.
