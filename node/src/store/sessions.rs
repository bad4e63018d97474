//! Which requests have been applied already, so that none is applied twice.
//!
//! A session is a life of a node: the node numbers the requests of its clients, and each command
//! says which number is the lowest that is still waited for. Everything below it is forgotten, and
//! refused for ever. What is remembered is bounded, by rules that look at nothing but the log:
//! numbers within a session, sessions, and bytes per answer.

use imbl::OrdMap;
use sraft_core::Index;

use super::{Outcome, RequestId};

/// Most requests of one session that are remembered. A node must not have more of its clients'
/// writes pending: beyond it, the lowest numbers are given up, whether they were applied or not.
pub const MAX_PENDING: usize = 16_384;

/// Most sessions that are remembered. With one more, the one that has been silent for the longest
/// part of the log is forgotten; a process does not come back with the same boot id.
pub const MAX_SESSIONS: usize = 256;

/// Most requests that are remembered in all sessions together. Beyond it the sessions that have
/// been silent longest give up all of theirs.
const MAX_REMEMBERED: usize = 4 * MAX_PENDING;

/// Largest answer that is remembered, in bytes.
const MAX_ANSWER: usize = 1024;

/// What is remembered of all sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sessions {
    sessions: OrdMap<u64, Session>,
    /// Requests remembered in all of them.
    remembered: usize,
}

/// What is remembered of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Session {
    /// Requests with lower numbers are not applied any more.
    pub floor: u64,
    /// The last entry of the log with a request of this session.
    pub used: Index,
    /// What came of the requests from the floor on that have been applied.
    pub outcomes: OrdMap<u64, Outcome>,
}

/// How a request is met.
#[derive(Debug, PartialEq)]
pub(super) enum Admission {
    /// It has not been applied.
    New,
    /// It has been applied, and this came of it.
    Again(Outcome),
    /// Nobody waits for it any more; it may have been applied.
    Stale,
}

impl Sessions {
    /// What is remembered, session by session.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// With one more session, as a snapshot holds it.
    pub(super) fn restore(&mut self, id: u64, session: Session) {
        self.remembered += session.outcomes.len();
        self.sessions.insert(id, session);
    }

    /// A request has come up in the log, at this index.
    pub(super) fn admit(&mut self, id: RequestId, oldest: u64, index: Index) -> Admission {
        if !self.sessions.contains_key(&id.session) {
            if self.sessions.len() >= MAX_SESSIONS {
                self.forget_session();
            }
            self.sessions.insert(id.session, Session::default());
        }
        let session = self.sessions.get_mut(&id.session).expect("just made sure of");
        session.used = index;
        self.remembered -= session.raise_floor(oldest);
        if id.seq < session.floor {
            return Admission::Stale;
        }
        match session.outcomes.get(&id.seq) {
            Some(outcome) => Admission::Again(outcome.clone()),
            None => Admission::New,
        }
    }

    /// A request that was new has been applied.
    pub(super) fn remember(&mut self, id: RequestId, outcome: &Outcome) {
        let session = self.sessions.get_mut(&id.session).expect("it was admitted");
        session.outcomes.insert(id.seq, outcome.memory(MAX_ANSWER));
        self.remembered += 1;
        if session.outcomes.len() > MAX_PENDING {
            let lowest = session.outcomes.get_min().map_or(0, |(seq, _)| *seq);
            self.remembered -= session.raise_floor(lowest.saturating_add(1));
        }
        while self.remembered > MAX_REMEMBERED {
            let silent = self.silent_longest(|session| !session.outcomes.is_empty());
            let Some(session) = silent.and_then(|silent| self.sessions.get_mut(&silent)) else {
                break;
            };
            let highest = session.outcomes.get_max().map_or(0, |(seq, _)| *seq);
            self.remembered -= session.raise_floor(highest.saturating_add(1));
        }
    }

    fn forget_session(&mut self) {
        let silent = self.silent_longest(|_| true);
        if let Some(session) = silent.and_then(|silent| self.sessions.remove(&silent)) {
            self.remembered -= session.outcomes.len();
        }
    }

    fn silent_longest(&self, which: impl Fn(&Session) -> bool) -> Option<u64> {
        let candidates = self.sessions.iter().filter(|(_, session)| which(session));
        candidates.min_by_key(|(_, session)| session.used).map(|(id, _)| *id)
    }
}

impl Session {
    /// Nothing below this number is waited for any more. Returns how much could be forgotten.
    fn raise_floor(&mut self, floor: u64) -> usize {
        self.floor = self.floor.max(floor);
        let before = self.outcomes.len();
        while self.outcomes.get_min().is_some_and(|(seq, _)| *seq < self.floor) {
            let lowest = self.outcomes.get_min().map_or(0, |(seq, _)| *seq);
            self.outcomes.remove(&lowest);
        }
        before - self.outcomes.len()
    }
}
