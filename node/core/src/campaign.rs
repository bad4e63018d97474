//! The candidate: when a node holds the leader for gone, how it stands, and how that ends.

use std::{collections::BTreeMap, time::Duration};

use sraft_events::{CampaignKind, CampaignOutcome, Event, Evidence, NodeId, Refusal, Term};

use crate::{
    HardState, Message, Node, RequestVote, TimeoutRange, VoteReply,
    mutation::Mutation,
    node::{Alarm, State},
};

/// A campaign, or the pre-vote for it.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Campaign {
    pub kind: CampaignKind,
    pub rank: Option<u32>,
    /// The term it stands in, or would stand in.
    pub term: Term,
    evidence: Evidence,
    /// What each voter said; a candidate's own vote appears once it is durable.
    answers: BTreeMap<NodeId, Result<(), Refusal>>,
}

impl Campaign {
    fn granted(&self) -> usize {
        self.answers.values().filter(|answer| answer.is_ok()).count()
    }

    fn refused(&self) -> usize {
        self.answers.len() - self.granted()
    }
}

impl Node {
    /// The rank with which this node may promote itself: a later term than those of the ranks
    /// before it has not been used up, and no later leader is known.
    pub(crate) fn rank(&self) -> Option<u32> {
        let designation = self.designation.as_ref()?;
        let rank = designation.ranks.iter().position(|&node| node == self.config.id)? as u32;
        let reserved = designation.term + 1 + Term::from(rank);
        (self.may_promote && self.hard_state.term < reserved).then_some(rank)
    }

    /// The range of this node's silence timeout.
    pub(crate) fn silence_timeout(&self) -> TimeoutRange {
        let ranked = self.rank().and_then(|rank| self.config.rank_timeouts.get(rank as usize));
        ranked.copied().unwrap_or(self.config.timeout)
    }

    /// The leader's process is certainly dead. The Primary stands now, every further rank one
    /// stagger later, everybody else after all of them and a random wait.
    pub(crate) fn leader_died(&mut self) {
        if !self.config.connection_evidence || !matches!(self.state, State::Follower) {
            return;
        }
        self.emit(Event::Suspected {
            leader: self.leader,
            term: self.hard_state.term,
            evidence: Evidence::Connection,
        });
        let wait = match self.rank() {
            Some(rank) => self.config.stagger * rank,
            None => {
                let spread = TimeoutRange { min: Duration::ZERO, max: self.config.timeout.width() };
                self.config.stagger * self.config.sub_leaders() as u32 + self.draw(spread)
            }
        };
        // Who relies on leases must wait for them all the same.
        let free = self.promise.map_or(self.now, |promise| promise.until);
        let at = self.alarm.at.min((self.now + wait).max(free));
        self.alarm = Alarm { at, evidence: Evidence::Connection };
        if at <= self.now {
            self.alarm_due();
        }
    }

    /// The alarm has gone off on a node that does not lead.
    pub(crate) fn alarm_due(&mut self) {
        let evidence = self.alarm.evidence;
        match std::mem::replace(&mut self.state, State::Follower) {
            State::PreCandidate(campaign) => {
                self.campaign_failed(&campaign, true, CampaignOutcome::TimedOut);
                if campaign.kind != CampaignKind::Election {
                    return;
                }
            }
            State::Candidate(campaign) => {
                self.campaign_failed(&campaign, false, CampaignOutcome::TimedOut);
                // The timeout of an election was random already: stand again at once. A promotion
                // had a fixed one, and falls back to waiting with the others.
                if campaign.kind != CampaignKind::Election {
                    return;
                }
            }
            State::Follower if evidence == Evidence::Silence => {
                self.emit(Event::Suspected {
                    leader: self.leader,
                    term: self.hard_state.term,
                    evidence,
                });
            }
            State::Follower => {}
            State::Leader(_) => unreachable!("a leader has no alarm"),
        }
        let campaign = self.next_campaign(evidence);
        match evidence {
            Evidence::Silence if self.config.pre_vote => self.ask_pre_vote(campaign),
            Evidence::Silence | Evidence::Connection | Evidence::Handover => self.stand(campaign),
        }
    }

    /// The leader asks this node to take over.
    pub(crate) fn timeout_now(&mut self, from: NodeId, term: Term) {
        if term != self.hard_state.term
            || self.leader != Some(from)
            || !matches!(self.state, State::Follower)
        {
            return;
        }
        let evidence = Evidence::Handover;
        self.emit(Event::Suspected { leader: self.leader, term, evidence });
        let campaign = self.next_campaign(evidence);
        self.stand(Campaign { kind: CampaignKind::Transfer, ..campaign });
    }

    /// A sub-leader takes the term that is reserved for its rank, so that ranks never meet in one
    /// term; everybody else takes a term above all reserved ones.
    fn next_campaign(&self, evidence: Evidence) -> Campaign {
        let rank = self.rank();
        let (kind, term) = match (&self.designation, rank) {
            (Some(designation), Some(rank)) => {
                (CampaignKind::Promotion, designation.term + 1 + Term::from(rank))
            }
            _ => {
                let unreserved = self.led_term + 1 + self.config.sub_leaders() as Term;
                (CampaignKind::Election, unreserved.max(self.hard_state.term + 1))
            }
        };
        Campaign { kind, rank, term, evidence, answers: BTreeMap::new() }
    }

    /// How long a campaign may take.
    fn campaign_timeout(&mut self, kind: CampaignKind) -> Duration {
        match kind {
            CampaignKind::Election => self.draw(self.config.timeout),
            CampaignKind::Promotion | CampaignKind::Transfer => {
                let rtt = self.designation.as_ref().map_or(0, |d| d.largest_rtt_us);
                self.config.promotion_timeout.max(Duration::from_micros(rtt) * 3)
            }
        }
    }

    fn ask_pre_vote(&mut self, mut campaign: Campaign) {
        let timeout = self.campaign_timeout(campaign.kind);
        self.alarm = Alarm { at: self.now + timeout, evidence: Evidence::Silence };
        self.emit(Event::PreVoteStarted {
            term: campaign.term,
            campaign: campaign.kind,
            rank: campaign.rank,
        });
        campaign.answers.insert(self.config.id, Ok(()));
        self.ask_votes(&campaign, true);
        self.state = State::PreCandidate(campaign);
        self.count_votes();
    }

    fn stand(&mut self, mut campaign: Campaign) {
        assert!(campaign.term > self.hard_state.term, "a candidate takes a new term");
        if campaign.rank.is_some() {
            // Once per designation: whatever comes of this, the rank is spent.
            self.may_promote = false;
            self.stood_under = self.designation.as_ref().map(|d| (d.term, d.epoch));
        }
        self.set_hard_state(HardState { term: campaign.term, voted_for: Some(self.config.id) });
        self.leader = None;
        self.heard = None;
        let timeout = self.campaign_timeout(campaign.kind);
        self.alarm = Alarm { at: self.now + timeout, evidence: Evidence::Silence };
        self.emit(Event::CampaignStarted {
            term: campaign.term,
            campaign: campaign.kind,
            rank: campaign.rank,
            evidence: campaign.evidence,
        });
        campaign.answers.clear();
        self.ask_votes(&campaign, false);
        self.state = State::Candidate(campaign);
    }

    /// Asks everybody. A claim may leave before the candidate's own vote is durable, since that
    /// vote is counted only once it is; but it must not boast of entries that a crash could take
    /// away, so with a tail still on its way to the disk the claim waits for the disk.
    fn ask_votes(&mut self, campaign: &Campaign, pre_vote: bool) {
        let request = RequestVote {
            term: campaign.term,
            pre_vote,
            campaign: campaign.kind,
            rank: campaign.rank,
            last_index: self.log.last_index(),
            last_term: self.log.last_term(),
        };
        let durable = self.durable_index() == self.log.last_index();
        for peer in self.peers() {
            let message = Message::RequestVote(request.clone());
            if durable {
                self.send(peer, message);
            } else {
                self.send_when_durable(peer, message);
            }
        }
    }

    pub(crate) fn vote_replied(&mut self, from: NodeId, reply: &VoteReply) {
        let campaign = match &mut self.state {
            State::PreCandidate(campaign) if reply.pre_vote => campaign,
            State::Candidate(campaign) if !reply.pre_vote => campaign,
            _ => return self.learn_term(reply.term),
        };
        if reply.for_term != campaign.term {
            return self.learn_term(reply.term);
        }
        campaign.answers.insert(from, reply.refusal.map_or(Ok(()), Err));
        if !reply.pre_vote || reply.refusal.is_some() {
            self.emit(Event::VoteReceived {
                voter: from,
                term: reply.for_term,
                pre_vote: reply.pre_vote,
                refusal: reply.refusal,
            });
        }
        if reply.refusal.is_some() {
            self.learn_term(reply.term);
        }
        self.count_votes();
    }

    /// The candidate's own vote counts from now on (if it is this term's that is durable).
    pub(crate) fn own_vote_durable(&mut self) {
        if !self.hard_state_durable() {
            return;
        }
        if let State::Candidate(campaign) = &mut self.state {
            campaign.answers.insert(self.config.id, Ok(()));
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let majority = self.config.majority();
        let cannot_win = self.config.members.len() - majority + 1;
        match &self.state {
            State::PreCandidate(campaign) if campaign.granted() >= majority => {
                let campaign = campaign.clone();
                self.stand(campaign);
            }
            // Without its own durable vote it must not lead, whatever the others say: it could
            // come back from a crash, win the same term again, and write another log in it.
            State::Candidate(campaign)
                if campaign.granted() >= majority
                    && (campaign.answers.contains_key(&self.config.id)
                        || self.config.flawed(Mutation::LeadWithoutOwnVote)) =>
            {
                let campaign = campaign.clone();
                self.lead(&campaign, campaign.granted() as u32);
            }
            State::PreCandidate(campaign) if campaign.refused() >= cannot_win => {
                let campaign = campaign.clone();
                self.state = State::Follower;
                self.campaign_failed(&campaign, true, CampaignOutcome::Refused);
            }
            State::Candidate(campaign) if campaign.refused() >= cannot_win => {
                let campaign = campaign.clone();
                self.state = State::Follower;
                self.campaign_failed(&campaign, false, CampaignOutcome::Refused);
            }
            _ => {}
        }
    }

    /// A campaign has come to nothing. The node waits like any follower without a rank; after a
    /// mere pre-vote it gets its rank back when it hears the leader that granted it.
    fn campaign_failed(&mut self, campaign: &Campaign, pre_vote: bool, outcome: CampaignOutcome) {
        self.emit(Event::CampaignFailed {
            term: campaign.term,
            campaign: campaign.kind,
            pre_vote,
            outcome,
        });
        self.may_promote = false;
        // Raft's candidate waits out its election timeout (5.2); neither a refusal nor another
        // candidate's higher term shortens or prolongs that.
        let waits_out = !pre_vote
            && campaign.kind == CampaignKind::Election
            && outcome != CampaignOutcome::TimedOut;
        if !waits_out {
            self.arm(self.config.timeout);
        }
    }

    /// Another leader, or a higher term, came first.
    pub(crate) fn campaign_superseded(&mut self, campaign: &Campaign, pre_vote: bool) {
        self.campaign_failed(campaign, pre_vote, CampaignOutcome::Superseded);
    }

    /// A higher term in an answer makes anyone a follower (paper, 5.1).
    pub(crate) fn learn_term(&mut self, term: Term) {
        if term > self.hard_state.term {
            self.follow_term(term);
        }
    }
}
