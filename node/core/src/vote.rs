//! The voter: whom it votes for, and what it does when it cannot tell yet.
//!
//! A voter grants exactly when Raft's would (paper, 5.2 and 5.4.1): the candidate's term is at
//! least its own, it has given no other vote in that term, and the candidate's log is at least as
//! up to date. The kind of campaign plays no part in that.
//!
//! One rule stands before it: who hears a living leader does not let it be deposed (dissertation,
//! 4.2.3), unless that leader asked for it. But a voter may have missed, by some microseconds,
//! what the candidate has already seen: the leader's connection closing, or the last instant of
//! its silence. Instead of guessing, it keeps the request as a *doubt* until the next thing it
//! learns decides: the leader is heard (refused), its connection closes or the smallest timeout
//! passes (judged like any other).
//!
//! Where leaders serve reads by lease ([`Config::read_lease`]), "who hears a living leader" is no
//! longer a matter of good manners but a promise: see [`Node::promise_lease`].

use sraft_events::{CampaignKind, Event, NodeId, Refusal};

use crate::{
    HardState, Message, Node, RequestVote, Time, VoteReply, mutation::Mutation, node::State,
};

/// Not to help anybody but a certain leader to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Promise {
    /// The leader; empty if it is forgotten.
    to: Option<NodeId>,
    pub until: Time,
}

impl Node {
    pub(crate) fn vote_requested(&mut self, from: NodeId, request: RequestVote) {
        // A message that overtook a later one of the same candidate is of no use to it.
        self.doubts.remove(&from);
        let deposes_living_leader = request.campaign != CampaignKind::Transfer
            && request.term > self.hard_state.term
            && self.leader != Some(from)
            && self.hears_leader();
        if deposes_living_leader || self.breaks_promise(from, &request) {
            if matches!(self.state, State::Leader(_)) {
                self.refuse(from, &request, Refusal::LeaderAlive);
            } else {
                self.doubts.insert(from, request);
            }
            return;
        }
        self.judge(from, &request);
    }

    /// Decides on a request by Raft's rules.
    fn judge(&mut self, from: NodeId, request: &RequestVote) {
        if self.config.flawed(Mutation::TruncateBeforeVote) {
            self.cut_log(request.last_index);
        }
        let decision = self.decide(from, request);
        if request.pre_vote {
            match decision {
                Ok(()) => self.reply(from, request, None),
                Err(refusal) => self.refuse(from, request, refusal),
            }
            return;
        }
        if request.term > self.hard_state.term {
            self.follow_term(request.term);
        }
        match decision {
            Ok(()) => {
                if self.hard_state.voted_for != Some(from)
                    && !self.config.flawed(Mutation::GrantWithoutRecord)
                {
                    self.set_hard_state(HardState { voted_for: Some(from), ..self.hard_state });
                }
                self.arm(self.silence_timeout());
                self.reply(from, request, None);
            }
            Err(refusal) => self.refuse(from, request, refusal),
        }
    }

    /// Raft's decision, without its consequences.
    fn decide(&self, from: NodeId, request: &RequestVote) -> Result<(), Refusal> {
        let HardState { term, voted_for } = self.hard_state;
        if request.term < term {
            return Err(Refusal::StaleTerm);
        }
        if request.term == term && voted_for.is_some_and(|vote| vote != from) {
            return Err(Refusal::AlreadyVoted);
        }
        if request.term == term && self.leader.is_some_and(|leader| leader != from) {
            // The term has its leader; it was elected without this node's vote.
            return Err(Refusal::AlreadyVoted);
        }
        if (request.last_term, request.last_index) < (self.log.last_term(), self.log.last_index())
            && !self.config.flawed(Mutation::GrantWithoutLogCheck)
        {
            return Err(Refusal::LogBehind);
        }
        Ok(())
    }

    fn refuse(&mut self, to: NodeId, request: &RequestVote, refusal: Refusal) {
        self.reply(to, request, Some(refusal));
    }

    fn reply(&mut self, to: NodeId, request: &RequestVote, refusal: Option<Refusal>) {
        if !request.pre_vote {
            self.emit(Event::VoteCast {
                candidate: to,
                term: request.term,
                campaign: request.campaign,
                refusal,
            });
        }
        let reply = Message::VoteReply(VoteReply {
            term: self.hard_state.term,
            for_term: request.term,
            pre_vote: request.pre_vote,
            refusal,
        });
        self.send_when_term_durable(to, reply);
    }

    /// Whether this node has good reason to think that the leader lives: it leads itself and a
    /// majority has answered lately, or it is connected to the leader and has heard it lately.
    /// "Lately" is the smallest timeout in use.
    fn hears_leader(&self) -> bool {
        match (&self.state, self.leader, self.heard) {
            (State::Leader(_), _, _) => self.quorum_silence() < self.config.smallest_timeout(),
            (_, Some(leader), Some(heard)) => {
                self.connected.get(&leader).is_some_and(|&connected| connected)
                    && self.now.since(heard) < self.config.smallest_timeout()
            }
            _ => false,
        }
    }

    /// When doubts are to be settled at the latest.
    pub(crate) fn doubts_end(&self) -> Option<Time> {
        if self.doubts.is_empty() {
            return None;
        }
        let end = self.heard.map_or(self.now, |heard| heard + self.config.smallest_timeout());
        Some(self.promise.map_or(end, |promise| end.max(promise.until)))
    }

    /// A leader that serves reads by its lease counts on this node, from the moment it has heard
    /// that leader: it must not help anybody else to lead for the smallest timeout.
    pub(crate) fn promise_lease(&mut self, to: Option<NodeId>) {
        if self.config.read_lease && !self.config.flawed(Mutation::VoteDespiteLease) {
            let until = self.now + self.config.smallest_timeout();
            self.promise = Some(Promise { to, until });
        }
    }

    /// Whether a promise has yet to be kept.
    pub(crate) fn is_bound(&self) -> bool {
        self.promise.is_some_and(|promise| self.now < promise.until)
    }

    /// Whether to vote as asked would break a promise. What the node was told in between makes no
    /// difference, neither a higher term nor that the leader's connection is closed, nor that the
    /// old leader wants it so: that message may be older than the leader of now.
    fn breaks_promise(&self, from: NodeId, request: &RequestVote) -> bool {
        let HardState { term, voted_for } = self.hard_state;
        let given = request.term == term && voted_for == Some(from);
        self.is_bound()
            && self.promise.is_some_and(|promise| promise.to != Some(from))
            && request.term >= term
            && !given
    }

    /// The leader was heard: whoever wanted to depose it is refused.
    pub(crate) fn dispel_doubts(&mut self) {
        for (from, request) in std::mem::take(&mut self.doubts) {
            self.refuse(from, &request, Refusal::LeaderAlive);
        }
    }

    /// The leader is not to be counted on any more: its challengers are judged, lowest term first
    /// so that a later one is not refused for a term that an earlier one would have moved past.
    pub(crate) fn settle_doubts(&mut self) {
        let mut doubts: Vec<_> = std::mem::take(&mut self.doubts).into_iter().collect();
        doubts.sort_by_key(|(from, request)| (request.term, *from));
        for (from, request) in doubts {
            self.judge(from, &request);
        }
    }
}
