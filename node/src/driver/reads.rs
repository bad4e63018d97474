//! The linearizable reads of this node's own clients, from the desk until they may be served.

use std::{collections::BTreeMap, time::Duration};

use sraft_core::{Index, Term, Time};
use tokio::sync::oneshot;

use crate::{
    desk::{Answers, Unserved, Viewed},
    store::View,
};

/// Most reads that are held at a time.
const MAX_READS: usize = 16_384;

/// How long a read is held.
const HOLD: Duration = Duration::from_secs(5);

/// How long to wait before a read that got no index is asked again, if nothing changes.
const PAUSE: Duration = Duration::from_millis(5);

/// Reads that share the question whether they may be served.
#[derive(Default)]
struct Group {
    since: Option<Time>,
    replies: Vec<oneshot::Sender<Viewed>>,
}

impl Group {
    fn add(&mut self, since: Time, reply: oneshot::Sender<Viewed>) {
        self.since.get_or_insert(since);
        self.replies.push(reply);
    }

    fn merge(&mut self, other: Group) {
        self.since = self.since.into_iter().chain(other.since).min();
        self.replies.extend(other.replies);
    }
}

/// The reads that somebody waits for.
#[derive(Default)]
pub(super) struct Reads {
    next: u64,
    /// They have to be asked (again).
    waiting: Group,
    not_before: Option<Time>,
    /// The core has been asked.
    asked: BTreeMap<u64, Group>,
    /// They may be served once this much is applied.
    confirmed: BTreeMap<Index, Group>,
}

impl Reads {
    pub(super) fn len(&self) -> usize {
        self.groups().map(|group| group.replies.len()).sum()
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        let asked = self.asked.values().chain(self.confirmed.values());
        std::iter::once(&self.waiting).chain(asked)
    }

    /// Takes a read in, or answers at once why not.
    pub(super) fn take(&mut self, now: Time, reply: oneshot::Sender<Viewed>) {
        if self.len() >= MAX_READS {
            let _ = reply.send(Err(Unserved::Overloaded));
        } else {
            self.waiting.add(now, reply);
        }
    }

    /// There is another leader.
    pub(super) fn leader_changed(&mut self) {
        self.not_before = None;
    }

    /// The number under which to ask the core for all that wait, if any do. To be called only
    /// while a leader is known.
    pub(super) fn ask(&mut self, now: Time) -> Option<u64> {
        self.waiting.replies.retain(|reply| !reply.is_closed());
        if self.waiting.replies.is_empty() {
            self.waiting.since = None;
            return None;
        }
        if self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.next += 1;
        self.asked.insert(self.next, std::mem::take(&mut self.waiting));
        Some(self.next)
    }

    /// The core has answered.
    pub(super) fn answered(&mut self, now: Time, id: u64, index: Option<Index>) {
        let Some(group) = self.asked.remove(&id) else { return };
        match index {
            Some(index) => self.confirmed.entry(index).or_default().merge(group),
            None => {
                self.waiting.merge(group);
                self.not_before = Some(now + PAUSE);
            }
        }
    }

    /// Serves what may be served when so much is applied.
    pub(super) fn serve(
        &mut self,
        applied: Index,
        term: Term,
        view: impl FnOnce() -> View,
        answers: &mut Answers,
    ) {
        if self.confirmed.first_key_value().is_none_or(|(index, _)| *index > applied) {
            return;
        }
        let later = self.confirmed.split_off(&(applied + 1));
        let view = view();
        for group in std::mem::replace(&mut self.confirmed, later).into_values() {
            for reply in group.replies {
                answers.add(reply, Ok((view.clone(), term)));
            }
        }
    }

    /// When to look at them; `leader` says whether one is known.
    pub(super) fn next_deadline(&self, leader: bool) -> Option<Time> {
        let oldest = self.groups().filter_map(|group| group.since).min().map(|at| at + HOLD);
        let again = self.not_before.filter(|_| leader && self.waiting.since.is_some());
        oldest.into_iter().chain(again).min()
    }

    /// Gives up the reads that have waited for too long.
    pub(super) fn look(&mut self, now: Time) {
        if self.not_before.is_some_and(|at| at <= now) {
            self.not_before = None;
        }
        let late = |group: &Group| group.since.is_some_and(|since| since + HOLD <= now);
        let mut given_up = Vec::new();
        if late(&self.waiting) {
            given_up.push(std::mem::take(&mut self.waiting));
        }
        given_up.extend(self.asked.extract_if(.., |_, group| late(group)).map(|(_, group)| group));
        let confirmed = self.confirmed.extract_if(.., |_, group| late(group));
        given_up.extend(confirmed.map(|(_, group)| group));
        for reply in given_up.into_iter().flat_map(|group| group.replies) {
            let _ = reply.send(Err(Unserved::NoLeader));
        }
    }

    /// The node stops.
    pub(super) fn refuse_all(&mut self) {
        let all = std::mem::take(self);
        let groups = all.asked.into_values().chain(all.confirmed.into_values());
        for reply in groups.chain([all.waiting]).flat_map(|group| group.replies) {
            let _ = reply.send(Err(Unserved::Stopping));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn ask(reads: &mut Reads, now: Time) -> oneshot::Receiver<Viewed> {
        let (reply, answer) = oneshot::channel();
        reads.take(now, reply);
        answer
    }

    fn serve(reads: &mut Reads, applied: Index) {
        let mut answers = Answers::default();
        reads.serve(applied, 1, || Store::default().view(), &mut answers);
        answers.send();
    }

    #[test]
    fn reads_share_a_question_and_wait_until_enough_is_applied() {
        let mut reads = Reads::default();
        let mut first = [ask(&mut reads, at(0)), ask(&mut reads, at(1))];
        assert_eq!(reads.ask(at(1)), Some(1));
        let mut later = ask(&mut reads, at(2));
        assert_eq!(reads.ask(at(2)), Some(2));
        assert_eq!(reads.ask(at(2)), None);
        reads.answered(at(3), 2, Some(9));
        reads.answered(at(3), 1, Some(7));
        serve(&mut reads, 6);
        assert_eq!(reads.len(), 3);
        serve(&mut reads, 8);
        assert!(first.iter_mut().all(|answer| answer.try_recv().unwrap().is_ok()));
        assert!(later.try_recv().is_err());
        serve(&mut reads, 9);
        assert!(later.try_recv().unwrap().is_ok());
        assert_eq!(reads.next_deadline(true), None);
    }

    #[test]
    fn a_read_without_an_index_is_asked_again() {
        let mut reads = Reads::default();
        let mut answer = ask(&mut reads, at(0));
        assert_eq!(reads.ask(at(0)), Some(1));
        reads.answered(at(0), 1, None);
        // Not at once, or the two would keep each other busy.
        assert_eq!(reads.ask(at(0)), None);
        assert_eq!(reads.next_deadline(true), Some(at(5)));
        reads.look(at(5));
        assert_eq!(reads.ask(at(5)), Some(2));
        reads.answered(at(6), 2, None);
        reads.leader_changed();
        assert_eq!(reads.ask(at(6)), Some(3));
        // An answer to a question that is no longer open changes nothing.
        reads.answered(at(6), 2, Some(1));
        assert_eq!(reads.next_deadline(true), Some(at(5000)));
        reads.look(at(5000));
        assert_eq!(answer.try_recv().unwrap().unwrap_err(), Unserved::NoLeader);
    }

    #[test]
    fn the_node_stops() {
        let mut reads = Reads::default();
        let mut answers = [ask(&mut reads, at(0)), ask(&mut reads, at(0))];
        reads.ask(at(0));
        let mut last = ask(&mut reads, at(0));
        reads.refuse_all();
        for answer in answers.iter_mut().chain([&mut last]) {
            assert_eq!(answer.try_recv().unwrap().unwrap_err(), Unserved::Stopping);
        }
    }
}
