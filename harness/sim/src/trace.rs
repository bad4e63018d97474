use std::{collections::VecDeque, fmt};

use sraft_core::Time;

/// Lines that are kept.
const KEPT: usize = 400;

/// A readable account of the last events.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: VecDeque<(u64, Time, String)>,
}

impl Trace {
    pub(crate) fn push(&mut self, event: u64, at: Time, line: String) {
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back((event, at, line));
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(event, at, line)| writeln!(f, "#{event} {at} {line}"))
    }
}
