//! Whether what clients saw can be explained by one copy of the data.
//!
//! ```text
//! model     what an object does: a register, a key-value store
//! history   operations with their instants, as clients recorded them
//! search    history + model -> linearizable, or a counter-example, or undecided
//! drawing   counter-example -> timeline, SVG
//! jepsen    histories in two formats of Jepsen's logs
//! ops       a probe's ops.csv
//! run       records and operations of a whole run -> its safety verdicts
//! ```
//!
//! ```
//! use std::sync::Arc;
//! use sraft_check::{Budget, Operation, Register, Verdict, check};
//! use sraft_check::model::{Action, RegisterOp};
//! let op = |process, call, back, action| {
//!     let op = RegisterOp { key: Arc::from("x"), action };
//!     Operation { process, call, back: Some(back), op }
//! };
//! let history = [
//!     op(1, 0, 10, Action::Write(Arc::from("a"))),
//!     op(2, 20, 30, Action::Read(None)), // the write had ended, so this read is stale
//! ];
//! let checked = check(&Register::absent(), &history, &Budget::default());
//! assert!(matches!(checked.verdict(), Verdict::NotLinearizable));
//! ```

pub mod drawing;
pub mod history;
pub mod jepsen;
pub mod model;
pub mod ops;
pub mod run;
pub mod search;

pub use history::Operation;
pub use model::{KeyValue, Model, Register};
pub use search::{Budget, Checked, Verdict, check};
