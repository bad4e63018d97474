//! What a message promises must be covered by what its sender's disk holds.

use sraft_core::{Appended, Envelope, HardState, Message, Node, NodeId};

use super::{COVERED, Checker, DURABILITY, ELECTION_SAFETY, ONE_VOTE, Verdict, ensure};
use crate::disk::Disk;

impl Checker {
    /// Whoever receives this must be able to count on it after a crash of the sender.
    pub(super) fn promise(
        &mut self,
        id: NodeId,
        node: &Node,
        disk: &Disk,
        envelope: &Envelope,
    ) -> Verdict {
        let durable = disk.hard_state;
        let covered = |holds: bool, what: &str| {
            ensure(holds, COVERED, || {
                let last = disk.last();
                format!(
                    "node {id} sends {envelope:?}: {what}; durable are {durable:?} and the log up \
                     to {}@{}",
                    last.0, last.1
                )
            })
        };
        match &envelope.message {
            // The term and the candidate's own vote may still be on their way to the disk.
            // A request that waited for the disk may speak of a log that is no more, but never
            // of a better one than the disk holds.
            Message::RequestVote(request) => covered(
                (request.last_term, request.last_index) <= (disk.last().1, disk.last().0),
                "it boasts of entries that are not durable",
            ),
            Message::VoteReply(reply) => {
                covered(reply.term <= durable.term, "its term is not durable")?;
                if reply.pre_vote || reply.refusal.is_some() {
                    return Ok(());
                }
                let to = envelope.to;
                let promised = *self.votes.entry((id, reply.for_term)).or_insert(to);
                ensure(promised == to, ONE_VOTE, || {
                    format!("node {id} votes for {promised} and {to} in term {}", reply.for_term)
                })?;
                covered(
                    durable == HardState { term: reply.for_term, voted_for: Some(to) },
                    "the vote is not durable",
                )
            }
            Message::AppendEntries(append) => {
                let leader = self.leaders.get(&append.term);
                ensure(leader == Some(&id), ELECTION_SAFETY, || {
                    format!("node {id} leads in term {}, but {leader:?} was elected", append.term)
                })?;
                ensure(append.commit <= self.committed(), DURABILITY, || {
                    format!("node {id} tells of {} commits, more than there are", append.commit)
                })?;
                covered(
                    durable == HardState { term: append.term, voted_for: Some(id) },
                    "the leader's own vote is not durable",
                )
            }
            Message::AppendReply(reply) => {
                covered(reply.term <= durable.term, "its term is not durable")?;
                let Ok(Appended { match_index }) = reply.result else { return Ok(()) };
                // In a batch the node may have gone on to a term with another log; what this
                // reply speaks of is then only on the disk.
                // What the log has no more, on the disk or in memory, is committed.
                let committed = self.committed.get((match_index as usize).wrapping_sub(1));
                let held = node.log().term_at(match_index).or(committed.map(|known| known.term));
                let agrees = node.status().term != reply.term
                    || match_index <= disk.covered()
                    || disk.term_at(match_index) == held;
                covered(
                    match_index <= disk.last().0 && agrees,
                    "the entries it acknowledges are not durable",
                )
            }
            Message::TimeoutNow { term } => {
                covered(*term <= durable.term, "its term is not durable")
            }
            Message::InstallSnapshot(install) => {
                let leader = self.leaders.get(&install.term);
                ensure(leader == Some(&id), ELECTION_SAFETY, || {
                    let term = install.term;
                    format!("node {id} leads in term {term}, but {leader:?} was elected")
                })
            }
            Message::InstallReply(reply) => {
                covered(reply.term <= durable.term, "its term is not durable")
            }
            Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. }
            | Message::Forward { .. } => Ok(()),
        }
    }
}
