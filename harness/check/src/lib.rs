//! Whether a history of operations is linearizable.
