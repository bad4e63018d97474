//! The writes of this node's own clients, from the desk until they are applied.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use sraft_core::{Term, Time};
use tokio::sync::oneshot;

use crate::{
    desk::{Answers, Unserved, Written},
    store::{self, Command, Op, Outcome, RequestId},
};

/// Most writes that are held at a time. It is below what a session of the store remembers, so that
/// none is forgotten while it is waited for.
const MAX_WRITES: usize = store::MAX_PENDING / 2;

/// Most bytes of them.
const MAX_BYTES: usize = 64 << 20;

/// Bytes of writes that are proposed before any of them is applied. What is on its way between two
/// nodes keeps heartbeats waiting.
const WINDOW: usize = 4 << 20;

/// A write that has been proposed and not applied within this time is proposed again: a message may
/// have been lost without any change of leader. The store applies it once all the same.
const RETRY: Duration = Duration::from_secs(1);

/// How often a write is looked at before it is given up.
const LOOKS: u32 = 5;

/// A write that somebody waits for.
struct Write {
    command: Vec<u8>,
    reply: oneshot::Sender<Written>,
    /// Whether it has ever left this place: then it may take effect.
    proposed: bool,
    /// Whether it has been proposed to the present leader.
    under_way: bool,
    looks: u32,
}

/// The writes that somebody waits for.
pub(super) struct Writes {
    session: u64,
    /// Largest request that is taken, in bytes of its command.
    most: usize,
    next: u64,
    pending: BTreeMap<u64, Write>,
    bytes: usize,
    /// Bytes of those that are under way.
    window: usize,
    /// Those that have not been proposed under the present leader.
    fresh: VecDeque<u64>,
    /// When each is looked at next. The interval is the same for all, so the first is due first.
    looks: VecDeque<(Time, u64)>,
}

impl Writes {
    /// For the session of this life of the node.
    pub(super) fn new(session: u64, most: usize) -> Writes {
        Writes {
            session,
            most,
            next: 1,
            pending: BTreeMap::new(),
            bytes: 0,
            window: 0,
            fresh: VecDeque::new(),
            looks: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Takes a write in, or answers at once why not.
    pub(super) fn take(&mut self, now: Time, op: Op, reply: oneshot::Sender<Written>) {
        if self.pending.len() >= MAX_WRITES {
            let _ = reply.send(Err(Unserved::Overloaded));
            return;
        }
        let seq = self.next;
        let oldest = self.pending.first_key_value().map_or(seq, |(oldest, _)| *oldest);
        let id = RequestId { session: self.session, seq };
        let command = Command { id, oldest, op }.encode();
        if command.len() > self.most {
            let refusal = Unserved::TooLarge { bytes: command.len(), most: self.most };
            let _ = reply.send(Err(refusal));
            return;
        }
        if self.bytes + command.len() > MAX_BYTES {
            let _ = reply.send(Err(Unserved::Overloaded));
            return;
        }
        self.next += 1;
        self.bytes += command.len();
        let write = Write { command, reply, proposed: false, under_way: false, looks: 0 };
        self.pending.insert(seq, write);
        self.fresh.push_back(seq);
        self.looks.push_back((now + RETRY, seq));
    }

    /// There is another leader: what the former one was told may be lost.
    pub(super) fn leader_changed(&mut self) {
        self.fresh = self.pending.keys().copied().collect();
        self.pending.values_mut().for_each(|write| write.under_way = false);
        self.window = 0;
    }

    /// The next command to propose, if there is one that may be proposed now. To be called only
    /// while a leader is known.
    pub(super) fn propose(&mut self) -> Option<Vec<u8>> {
        while self.window < WINDOW {
            let seq = self.fresh.pop_front()?;
            let Some(write) = self.pending.get_mut(&seq) else { continue };
            if !write.proposed && write.reply.is_closed() {
                self.remove(seq);
                continue;
            }
            write.proposed = true;
            if !std::mem::replace(&mut write.under_way, true) {
                self.window += write.command.len();
            }
            return Some(write.command.clone());
        }
        None
    }

    /// A request has been applied.
    pub(super) fn applied(
        &mut self,
        id: RequestId,
        outcome: Outcome,
        term: Term,
        answers: &mut Answers,
    ) {
        if id.session == self.session
            && let Some(write) = self.remove(id.seq)
        {
            answers.add(write.reply, Ok((outcome, term)));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.looks.front().map(|(at, _)| *at)
    }

    /// Looks after the writes that have waited for long.
    pub(super) fn look(&mut self, now: Time) {
        while let Some(&(at, seq)) = self.looks.front()
            && at <= now
        {
            self.looks.pop_front();
            let Some(write) = self.pending.get_mut(&seq) else { continue };
            write.looks += 1;
            if write.reply.is_closed() {
                self.remove(seq);
            } else if write.looks >= LOOKS {
                if let Some(write) = self.remove(seq) {
                    let why = if write.proposed { Unserved::TimedOut } else { Unserved::NoLeader };
                    let _ = write.reply.send(Err(why));
                }
            } else {
                if write.under_way {
                    self.fresh.push_back(seq);
                }
                self.looks.push_back((now + RETRY, seq));
            }
        }
    }

    /// The node stops.
    pub(super) fn refuse_all(&mut self) {
        for (_, write) in std::mem::take(&mut self.pending) {
            let _ = write.reply.send(Err(Unserved::Stopping));
        }
        self.fresh.clear();
        self.looks.clear();
    }

    fn remove(&mut self, seq: u64) -> Option<Write> {
        let write = self.pending.remove(&seq)?;
        self.bytes -= write.command.len();
        if write.under_way {
            self.window -= write.command.len();
        }
        Some(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn ask(writes: &mut Writes, key: &'static str) -> oneshot::Receiver<Written> {
        let (reply, answer) = oneshot::channel();
        writes.take(at(0), Op::put(key, "v"), reply);
        answer
    }

    fn proposed(writes: &mut Writes) -> Vec<Command> {
        std::iter::from_fn(|| writes.propose())
            .map(|bytes| Command::decode(&bytes).unwrap())
            .collect()
    }

    #[test]
    fn a_write_keeps_its_number_however_often_it_is_proposed() {
        let mut writes = Writes::new(7, 1000);
        let _answers = [ask(&mut writes, "a"), ask(&mut writes, "b")];
        let first = proposed(&mut writes);
        assert_eq!(
            first.iter().map(|c| (c.id.seq, c.oldest)).collect::<Vec<_>>(),
            [(1, 1), (2, 1)]
        );
        assert!(first.iter().all(|command| command.id.session == 7));
        assert_eq!(proposed(&mut writes), []);
        writes.leader_changed();
        assert_eq!(proposed(&mut writes), first);
        // A message may be lost while the leader stays.
        assert_eq!(writes.next_deadline(), Some(at(1)));
        writes.look(at(1));
        assert_eq!(proposed(&mut writes), first);
    }

    #[test]
    fn whether_it_may_take_effect_is_told() {
        let mut writes = Writes::new(7, 1000);
        let mut sent = ask(&mut writes, "a");
        assert_eq!(proposed(&mut writes).len(), 1);
        let mut kept = ask(&mut writes, "b");
        for second in 1..=4 {
            writes.look(at(second));
        }
        assert!(sent.try_recv().is_err() && kept.try_recv().is_err());
        writes.look(at(5));
        assert_eq!(sent.try_recv().unwrap().unwrap_err(), Unserved::TimedOut);
        assert_eq!(kept.try_recv().unwrap().unwrap_err(), Unserved::NoLeader);
        assert_eq!((writes.len(), writes.bytes), (0, 0));
        // The next one says that nobody waits for those before it.
        let _answer = ask(&mut writes, "c");
        assert_eq!(proposed(&mut writes)[0].oldest, 3);
    }

    #[test]
    fn nobody_waits_for_ever_for_what_nobody_wants_any_more() {
        let mut writes = Writes::new(7, 1000);
        drop(ask(&mut writes, "a"));
        assert_eq!(proposed(&mut writes), []);
        let answer = ask(&mut writes, "b");
        assert_eq!(proposed(&mut writes).len(), 1);
        drop(answer);
        writes.look(at(1));
        assert_eq!((writes.len(), writes.next_deadline()), (0, None));
    }

    #[test]
    fn what_is_under_way_is_bounded_and_makes_room() {
        let mut writes = Writes::new(7, WINDOW);
        let mut answers = Vec::new();
        for _ in 0..6 {
            let (reply, answer) = oneshot::channel();
            writes.take(at(0), Op::put("k", vec![0; WINDOW / 4]), reply);
            answers.push(answer);
        }
        assert_eq!(proposed(&mut writes).len(), 4);
        let view = crate::store::Store::default().view();
        let outcome = view.read(crate::store::Txn::default());
        writes.applied(RequestId { session: 7, seq: 2 }, outcome, 1, &mut Answers::default());
        assert_eq!(proposed(&mut writes)[0].id.seq, 5);
        assert!(proposed(&mut writes).is_empty());
        // A new leader has been told of nothing.
        writes.leader_changed();
        assert_eq!(proposed(&mut writes).len(), 4);
        drop(answers);
        writes.look(at(1));
        assert_eq!((writes.len(), writes.window, writes.bytes), (0, 0, 0));
    }

    #[test]
    fn size_and_number_are_bounded() {
        let mut writes = Writes::new(7, 100);
        let (reply, mut answer) = oneshot::channel();
        writes.take(at(0), Op::put("k", vec![0; 100]), reply);
        let refusal = answer.try_recv().unwrap().unwrap_err();
        assert!(matches!(refusal, Unserved::TooLarge { most: 100, .. }), "{refusal}");
        let mut held = Vec::new();
        for _ in 0..MAX_WRITES {
            held.push(ask(&mut writes, "k"));
        }
        let refusal = ask(&mut writes, "k").try_recv().unwrap().unwrap_err();
        assert_eq!(refusal, Unserved::Overloaded);
        writes.refuse_all();
        assert_eq!(held[0].try_recv().unwrap().unwrap_err(), Unserved::Stopping);
    }
}
