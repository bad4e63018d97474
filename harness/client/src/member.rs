//! One endpoint: its connections, and what is known of it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::{address::Address, clock, operation::Kv, wire::Wire};

/// First wait before a lost or refused connection is tried again.
const BACK_OFF: Duration = Duration::from_millis(10);

/// Longest wait between two attempts to connect.
const LONGEST_BACK_OFF: Duration = Duration::from_millis(250);

/// An endpoint.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) address: Address,
    state: Mutex<State>,
    /// Wakes who asks for its status.
    pub(crate) ask: Notify,
}

#[derive(Debug)]
struct State {
    wires: Vec<Option<Wire>>,
    /// The connection to use next.
    next: usize,
    /// When the first request was sent of which, and since which, nothing was heard.
    unheard_since: Option<u64>,
    /// Its id in its cluster; 0 until it has said so.
    id: u64,
    /// Whether every connection has been tried once.
    tried: bool,
    /// Why the last attempt to connect failed.
    refusal: Option<String>,
}

impl Member {
    pub(crate) fn new(address: Address, connections: usize) -> Member {
        let state = State {
            wires: vec![None; connections],
            next: 0,
            unheard_since: None,
            id: 0,
            tried: false,
            refusal: None,
        };
        Member { address, state: Mutex::new(state), ask: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one of its connections for as long as it is polled; `changed` is told of each gain and
    /// loss.
    pub(crate) async fn keep(&self, connection: usize, changed: impl Fn()) {
        let mut wait = BACK_OFF;
        loop {
            let attempt = Wire::connect(&self.address).await;
            let refusal = match &attempt {
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            };
            {
                let mut state = self.state();
                state.tried = true;
                state.refusal = refusal;
            }
            if let Ok((wire, work)) = attempt {
                {
                    let mut state = self.state();
                    state.wires[connection] = Some(wire);
                    state.unheard_since = None;
                }
                changed();
                let began = clock::now();
                work.await;
                self.state().wires[connection] = None;
                // One that lasted is worth a quick attempt.
                if clock::now() - began > LONGEST_BACK_OFF.as_nanos() as u64 {
                    wait = BACK_OFF;
                }
            }
            changed();
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_BACK_OFF);
        }
    }

    /// A client of one of its connections, if it has one: each in turn.
    pub(crate) fn client(&self) -> Option<Kv> {
        self.wire().map(|wire| Kv::with_origin(wire, self.address.origin().clone()))
    }

    pub(crate) fn wire(&self) -> Option<Wire> {
        let mut state = self.state();
        let count = state.wires.len();
        let first = state.next;
        let at = (0..count)
            .map(|step| (first + step) % count)
            .find(|at| state.wires[*at].as_ref().is_some_and(Wire::is_open))?;
        state.next = (at + 1) % count;
        state.wires[at].clone()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.state().wires.iter().flatten().any(Wire::is_open)
    }

    /// Whether it has been given requests and has said nothing since, not even to those, for this
    /// long (nanoseconds).
    pub(crate) fn is_silent(&self, now: u64, after: u64) -> bool {
        self.state().unheard_since.is_some_and(|since| now.saturating_sub(since) > after)
    }

    /// Since when nothing was heard, if it was given something to answer.
    pub(crate) fn unheard_since(&self) -> Option<u64> {
        self.state().unheard_since
    }

    /// It is given a request.
    pub(crate) fn told(&self, now: u64) {
        self.state().unheard_since.get_or_insert(now);
    }

    /// It has said something, whatever it was.
    pub(crate) fn heard(&self) {
        self.state().unheard_since = None;
    }

    pub(crate) fn id(&self) -> u64 {
        self.state().id
    }

    pub(crate) fn set_id(&self, id: u64) {
        self.state().id = id;
    }

    /// Whether an attempt to connect has been made and has come to something.
    pub(crate) fn is_tried(&self) -> bool {
        self.state().tried
    }

    /// Why the last attempt to connect failed, if it did.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.state().refusal.clone()
    }
}
