//! Flaws that tests put into the core on purpose. A checker that passes a core with one of them is
//! broken. Without the feature `mutants` none of this is compiled into anything.

use crate::Config;

/// A way in which the protocol can be got wrong: the reference prototype's flaws and the classic
/// mistakes of Raft implementations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "mutants"), allow(unreachable_pub, reason = "published with the feature"))]
pub enum Mutation {
    /// A vote is granted without a look at the candidate's log.
    GrantWithoutLogCheck,
    /// A vote is granted and not recorded.
    GrantWithoutRecord,
    /// A leader takes the length of its log for its commit index.
    CommitLogLength,
    /// A voter cuts its own log to the candidate's length before it compares them.
    TruncateBeforeVote,
    /// A leader commits entries of older terms by counting who holds them (Raft paper, figure 8).
    CommitOlderTerms,
    /// Replies leave before what they promise is durable.
    ReplyBeforeDurable,
    /// A candidate leads before its own vote is durable.
    LeadWithoutOwnVote,
    /// Acknowledgements that wait for the disk are not dropped when the term changes.
    KeepHeldReplies,
    /// A leader serves a read without asking anybody whether it still leads.
    ReadUnconfirmed,
    /// A leader takes answers to messages that it sent before the read for confirmation.
    ReadConfirmedBefore,
    /// A new leader serves reads before it knows what its predecessors have committed.
    ReadBeforeReady,
    /// A voter lets a leader be deposed that may still serve reads by its lease.
    VoteDespiteLease,
    /// A follower acknowledges a snapshot before it is durable.
    InstallNotDurable,
    /// A follower that takes a snapshot of its own drops the log's end with its beginning.
    SnapshotDropsTail,
}

impl Config {
    /// Whether this flaw is to be shown: never, but in tests of the checkers.
    #[inline(always)]
    pub(crate) fn flawed(&self, mutation: Mutation) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutation == Some(mutation);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = mutation;
            false
        }
    }
}
