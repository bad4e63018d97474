//! Sending a snapshot to a follower that lacks what the log has no more (Raft paper, section 7).
//!
//! It goes in pieces, a few at a time; heartbeats go on meanwhile. The follower says after each
//! piece how far it has got without a gap. If it gets no further for a while, the leader goes on
//! from there: after loss, and from the beginning if the follower has started anew.

use std::time::Duration;

use sraft_events::{Event, NodeId};

use super::progress::Sending;
use crate::{InstallReply, InstallSnapshot, Message, Node, node::State};

/// Most pieces on their way to one follower.
const WINDOW: u64 = 4;

/// After so many heartbeats (or round trips, if they take longer) without progress pieces are lost.
const PATIENCE: u32 = 3;

impl Node {
    /// Begins to send the newest snapshot to a follower to which the log does not reach back.
    pub(crate) fn begin_install(&mut self, peer: NodeId) {
        let snapshot = self.snapshot.clone().expect("a snapshot covers what the log has no more");
        let (now, index) = (self.now, snapshot.last_index);
        let State::Leader(leadership) = &mut self.state else { return };
        let follower = leadership.followers.get_mut(&peer).expect("every peer is a follower");
        follower.sending = Some(Box::new(Sending::new(snapshot, now)));
        follower.probe_from(0);
        let was_synced = std::mem::take(&mut follower.synced);
        let term = leadership.term;
        self.emit(Event::SnapshotSent { peer, index });
        self.send_piece(peer, true);
        self.send_pieces(peer);
        if was_synced {
            // It could not take over before it has caught up.
            self.emit(Event::FollowerLost { peer, term, disconnected: false });
            self.designate();
        }
    }

    /// Sends as many pieces as there is room for on the way.
    fn send_pieces(&mut self, peer: NodeId) {
        while self.send_piece(peer, false) {}
    }

    /// Sends the next piece; an empty one if need be, to ask how far the follower is.
    fn send_piece(&mut self, peer: NodeId, anyway: bool) -> bool {
        let connected = self.connected[&peer];
        let chunk = self.config.snapshot_chunk_bytes.max(1);
        let State::Leader(leadership) = &mut self.state else { return false };
        let follower = leadership.followers.get_mut(&peer).expect("every peer is a follower");
        let Some(sending) = &mut follower.sending else { return false };
        let on_their_way = (sending.sent - sending.acked).div_ceil(chunk as u64);
        let room = sending.sent < sending.size() && on_their_way < WINDOW;
        if !connected || !(room || anyway) {
            return false;
        }
        let start = sending.sent as usize;
        let end = sending.snapshot.data.len().min(start + chunk);
        let piece = InstallSnapshot {
            term: leadership.term,
            seq: follower.next_seq,
            last_index: sending.snapshot.last_index,
            last_term: sending.snapshot.last_term,
            size: sending.size(),
            offset: sending.sent,
            data: sending.snapshot.data[start..end].to_vec(),
        };
        sending.sent = end as u64;
        follower.next_seq += 1;
        self.send(peer, Message::InstallSnapshot(piece));
        true
    }

    /// The connection stands again: what was on its way is lost.
    pub(crate) fn resume_install(&mut self, peer: NodeId) {
        let now = self.now;
        let State::Leader(leadership) = &mut self.state else { return };
        let follower = leadership.followers.get_mut(&peer).expect("every peer is a follower");
        if let Some(sending) = &mut follower.sending {
            sending.sent = sending.acked;
            sending.progress = now;
            self.send_piece(peer, true);
            self.send_pieces(peer);
        }
    }

    /// At a heartbeat: a follower that has not got on for a while is sent again what it lacks.
    pub(crate) fn send_again_if_stalled(&mut self, peer: NodeId) {
        let (now, heartbeat) = (self.now, self.config.heartbeat);
        let State::Leader(leadership) = &self.state else { return };
        let follower = &leadership.followers[&peer];
        let Some(sending) = &follower.sending else { return };
        let rtt = Duration::from_nanos(follower.rtt.unwrap_or(0.0) as u64);
        if now.since(sending.progress) >= heartbeat.max(rtt) * PATIENCE {
            self.resume_install(peer);
        }
    }

    pub(crate) fn install_replied(&mut self, from: NodeId, reply: &InstallReply) {
        self.learn_term(reply.term);
        let now = self.now;
        let State::Leader(leadership) = &mut self.state else { return };
        if (reply.term, reply.for_term) != (leadership.term, leadership.term) {
            return;
        }
        let follower = leadership.followers.get_mut(&from).expect("every peer is a follower");
        follower.last_reply = Some(now);
        follower.unanswered = 0;
        if let Some(sending) = &mut follower.sending
            && sending.snapshot.last_index == reply.last_index
            && reply.seq > sending.acked_seq
        {
            let received = reply.received.min(sending.size());
            if received != sending.acked {
                sending.progress = now;
            }
            if received < sending.acked {
                // It has started anew, and lost what it had.
                sending.sent = received;
            }
            sending.acked_seq = reply.seq;
            sending.acked = received;
            sending.sent = sending.sent.max(received);
            self.send_pieces(from);
        }
        self.confirm_lead(from, reply.seq);
    }

    /// The log has been cut after a snapshot of this node.
    pub(crate) fn log_compacted(&mut self) {
        let (first_index, last_index) = (self.log.first_index(), self.log.last_index());
        let State::Leader(leadership) = &mut self.state else { return };
        for (peer, follower) in &mut leadership.followers {
            let idle = !self.connected[peer] || !follower.responsive();
            // An older snapshot is kept only for those who are getting it.
            if idle && follower.sending.take().is_some() || follower.next_index < first_index {
                // Perhaps it has more than is known: it shall say so itself.
                follower.probe_from(last_index + 1);
            }
        }
    }
}
