//! What tells two states of a node apart, for a model checker that asks whether it has been here
//! before.

use std::hash::{Hash, Hasher};

use super::{Disk, Node};
use crate::leader::Follower;

/// Everything that decides how the node goes on, apart from its configuration and its generator:
/// two nodes of one configuration that hash alike answer the same inputs alike, up to what they
/// draw at random. Instants are taken as they are, so whoever compares nodes this way keeps the
/// clock still, or accepts that states at different times differ.
impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // No `..`: a new field has to be thought about here.
        let Node {
            config,
            now,
            rng: _,
            hard_state,
            log,
            commit,
            snapshot,
            incoming,
            disk,
            state: role,
            alarm,
            leader,
            heard,
            led_term,
            designation,
            may_promote,
            stood_under,
            connected,
            doubts,
            promise,
            reads,
            held,
            output,
        } = self;
        (config.id, now, hard_state, log, commit, role, alarm, leader, heard).hash(state);
        (led_term, designation, may_promote, stood_under, connected, doubts).hash(state);
        (snapshot, incoming, promise, reads).hash(state);
        // Tickets are only ever compared with the durable one: what counts is how far they lie
        // beyond it, not how many writes there have been since the start.
        let Disk {
            issued,
            hard_state: hard_state_ticket,
            durable,
            durable_index,
            writes,
            snapshots,
            next_hard_state,
            next_snapshot,
            next_entries,
        } = disk;
        let beyond = |ticket: &u64| ticket.saturating_sub(*durable);
        (beyond(issued), beyond(hard_state_ticket), durable_index).hash(state);
        (next_hard_state, next_snapshot, next_entries).hash(state);
        (writes.len(), snapshots.len(), held.len()).hash(state);
        snapshots.iter().for_each(|(ticket, own)| (beyond(ticket), own).hash(state));
        writes.iter().for_each(|(ticket, last)| (beyond(ticket), last).hash(state));
        held.iter().for_each(|(ticket, envelope)| (beyond(ticket), envelope).hash(state));
        // Events are left out: they are for the log, and nothing follows from them.
        (&output.messages, &output.install, &output.committed, &output.reads).hash(state);
    }
}

impl Hash for Follower {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Follower {
            match_index,
            next_index,
            probing,
            probe_sent,
            inflight,
            next_seq,
            heartbeats,
            unanswered,
            last_reply,
            rtt,
            synced,
            acknowledged,
            sending,
            awaits,
            told,
        } = self;
        (match_index, next_index, probing, probe_sent, inflight, next_seq).hash(state);
        (heartbeats, unanswered, last_reply, rtt.map(f64::to_bits), synced).hash(state);
        (acknowledged, sending, awaits, told).hash(state);
    }
}
