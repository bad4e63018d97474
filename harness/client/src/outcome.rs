//! What is known of an operation once it is over.
//!
//! An operation is sent once. Whether it took effect is then decided by one rule, the same for
//! every system, and in doubt the answer is *unknown*: a history with too many unknown operations
//! proves less, one in which an operation counts as failed and took effect all the same accuses a
//! correct system.
//!
//! # The rule
//!
//! | what came | outcome |
//! |---|---|
//! | an answer | ok |
//! | no connection to any endpoint, or lost before the request was put into it | failed |
//! | the connection lost, or the stream reset, after that | unknown |
//! | no answer within the deadline | unknown |
//! | a gRPC status from the server | by its code, below |
//!
//! | gRPC status | outcome | because |
//! |---|---|---|
//! | `INVALID_ARGUMENT` | failed | refused by validation |
//! | `FAILED_PRECONDITION` | failed | refused before it was proposed (`not leader`, `not capable`) |
//! | `RESOURCE_EXHAUSTED` | failed | refused for room: too large, too many requests, no space |
//! | `PERMISSION_DENIED`, `UNAUTHENTICATED` | failed | refused at the door |
//! | `NOT_FOUND`, `ALREADY_EXISTS` | failed | the request names what is not (or is) there |
//! | `UNAVAILABLE`, saying exactly `etcdserver: no leader` | failed | said by a member that knows no leader and has proposed nothing |
//! | `UNAVAILABLE` otherwise | unknown | etcd says it for time-outs and leader changes in flight |
//! | `DEADLINE_EXCEEDED`, `CANCELLED`, `ABORTED` | unknown | given up on the way |
//! | `UNKNOWN`, `INTERNAL`, `DATA_LOSS` | unknown | they say nothing of how far it got |
//! | `OUT_OF_RANGE`, `UNIMPLEMENTED` | unknown | our own side says the same of an answer that it cannot read |
//!
//! A code counts only if the server said it: the same codes are also made up for a stream that was
//! reset or a connection that broke, and those are unknown.

use std::error::Error;

use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use crate::wire::Broken;

/// What is known of an operation once it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was answered: it took effect, durably.
    Ok,
    /// It certainly did not take effect, and never will.
    Failed,
    /// It may have taken effect, or may yet.
    Unknown,
}

impl Outcome {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        }
    }
}

/// What a member says that has no leader to give a request to.
const NO_LEADER: &str = "etcdserver: no leader";

/// The verdict on an operation that has not been answered as it should.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nobody has seen it; it may be sent elsewhere.
    Unsent,
    /// It is over.
    Over {
        outcome: Outcome,
        /// Whether the server said so, rather than the connection's end.
        answered: bool,
        /// A few words that are the same for all of its kind.
        kind: &'static str,
    },
}

/// Applies the rule of this module.
pub(crate) fn judge(status: &Status) -> Verdict {
    // A status that came over the wire has no source: only those made here have.
    let source = status.source();
    if let Some(Broken::Unsent) = source.and_then(|source| source.downcast_ref()) {
        return Verdict::Unsent;
    }
    if source.is_some() {
        let (outcome, answered) = (Outcome::Unknown, false);
        return Verdict::Over { outcome, answered, kind: "connection lost" };
    }
    let (outcome, kind) = match status.code() {
        Code::InvalidArgument => (Outcome::Failed, "INVALID_ARGUMENT"),
        Code::FailedPrecondition => (Outcome::Failed, "FAILED_PRECONDITION"),
        Code::ResourceExhausted => (Outcome::Failed, "RESOURCE_EXHAUSTED"),
        Code::PermissionDenied => (Outcome::Failed, "PERMISSION_DENIED"),
        Code::Unauthenticated => (Outcome::Failed, "UNAUTHENTICATED"),
        Code::NotFound => (Outcome::Failed, "NOT_FOUND"),
        Code::AlreadyExists => (Outcome::Failed, "ALREADY_EXISTS"),
        Code::Unavailable if status.message() == NO_LEADER => (Outcome::Failed, "no leader"),
        Code::Unavailable => (Outcome::Unknown, "UNAVAILABLE"),
        Code::DeadlineExceeded => (Outcome::Unknown, "DEADLINE_EXCEEDED"),
        Code::Cancelled => (Outcome::Unknown, "CANCELLED"),
        Code::Aborted => (Outcome::Unknown, "ABORTED"),
        Code::Internal => (Outcome::Unknown, "INTERNAL"),
        Code::DataLoss => (Outcome::Unknown, "DATA_LOSS"),
        Code::OutOfRange => (Outcome::Unknown, "OUT_OF_RANGE"),
        Code::Unimplemented => (Outcome::Unknown, "UNIMPLEMENTED"),
        // OK is no error and never gets here.
        Code::Unknown | Code::Ok => (Outcome::Unknown, "UNKNOWN"),
    };
    Verdict::Over { outcome, answered: true, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: &Status) -> Option<(Outcome, bool)> {
        match judge(status) {
            Verdict::Unsent => None,
            Verdict::Over { outcome, answered, .. } => Some((outcome, answered)),
        }
    }

    #[test]
    fn every_code_has_its_outcome() {
        let failed = [3, 5, 6, 7, 8, 9, 16];
        for code in 1..=16 {
            let expected = if failed.contains(&code) { Outcome::Failed } else { Outcome::Unknown };
            let status = Status::new(Code::from_i32(code), "why");
            assert_eq!(outcome(&status), Some((expected, true)), "{status}");
        }
        let said = |text| outcome(&Status::unavailable(text)).unwrap().0;
        assert_eq!(said("etcdserver: no leader"), Outcome::Failed);
        for text in [
            "etcdserver: request timed out",
            "etcdserver: request timed out, possibly due to previous leader failure",
            "etcdserver: leader changed",
            "there was no leader at first",
        ] {
            assert_eq!(said(text), Outcome::Unknown, "{text}");
        }
    }

    #[test]
    fn what_was_not_sent_is_told_from_what_was() {
        assert_eq!(outcome(&Status::from_error(Box::new(Broken::Unsent))), None);
        // A code that our own side made up for a broken stream is not the server's word.
        let mut status = Status::resource_exhausted("h2 protocol error: enhance your calm");
        status.set_source(std::sync::Arc::new(std::io::Error::other("reset")));
        assert_eq!(outcome(&status), Some((Outcome::Unknown, false)));
    }
}
