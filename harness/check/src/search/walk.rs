use std::{
    collections::{HashMap, hash_map::Entry},
    time::Instant,
};

use super::{
    Limits, Prefix, Spent,
    course::{Course, NONE},
    pending::Pending,
    seen::{Bits, Config, Seen},
};
use crate::model::Model;

/// How a search ended.
#[derive(Debug)]
pub(super) enum End {
    Explained,
    Stuck(Prefix),
    Spent(Spent, Option<Prefix>),
}

/// A depth-first search, one frame per return of the history. Its depth is the history's length,
/// so the stack is a vector of its own.
pub(super) struct Walk<'a, M: Model, const N: usize> {
    model: &'a M,
    course: &'a Course<'a, M>,
    limits: Limits,
    states: States<M::State>,
    seen: Seen<N>,
    /// Operations under way that only read, and those that may change something.
    reads: Pending,
    changes: Pending,
    /// The bits of those operations under way that must have been placed when they return and that
    /// may change something: only configurations that agree in these can be compared.
    exact: Bits<N>,
    stack: Vec<Frame<N>>,
    queued: usize,
    steps: u64,
    furthest: Option<Prefix>,
    deepest: usize,
}

/// What is tried at one return: configurations in the order of how many operations they place
/// beyond the first, so that one that makes do with less is tried before those that it excels.
#[derive(Debug)]
struct Frame<const N: usize> {
    queue: Vec<Node<N>>,
    /// The node whose turn it is.
    at: usize,
    /// Whether it has been followed to the next return.
    followed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Node<const N: usize> {
    config: Config<N>,
    /// The node that it follows from, and the operation that was placed.
    parent: u32,
    op: u32,
}

/// The object's states, by number.
#[derive(Debug)]
struct States<S> {
    all: Vec<S>,
    numbers: HashMap<S, u32, foldhash::fast::FixedState>,
    bytes: usize,
}

/// How many nodes are tried between two looks at the clock.
const LOOK_EVERY: u64 = 256;

impl<'a, M: Model, const N: usize> Walk<'a, M, N> {
    pub(super) fn new(model: &'a M, course: &'a Course<'a, M>, limits: Limits) -> Self {
        let ops = course.ops.len();
        Walk {
            model,
            course,
            limits,
            states: States { all: Vec::new(), numbers: HashMap::default(), bytes: 0 },
            seen: Seen::new(),
            reads: Pending::new(ops),
            changes: Pending::new(ops),
            exact: Bits::EMPTY,
            stack: Vec::new(),
            queued: 0,
            steps: 0,
            furthest: None,
            deepest: 0,
        }
    }

    pub(super) fn run(mut self) -> End {
        if self.course.returns.is_empty() {
            return End::Explained;
        }
        let initial = self.model.initial(self.course.ops.iter().map(|op| op.op));
        let entries: Vec<Config<N>> = initial
            .into_iter()
            .map(|state| Config { state: self.states.number(self.model, state), bits: Bits::EMPTY })
            .collect();
        self.call(0);
        self.enter(0, &entries);
        while let Some(frame) = self.stack.last_mut() {
            let at = frame.at;
            let Some(node) = frame.queue.get(at).copied() else {
                self.leave();
                continue;
            };
            if !frame.followed {
                frame.followed = true;
                if let Some(config) = self.follow(&node.config) {
                    if self.stack.len() == self.course.returns.len() {
                        return End::Explained;
                    }
                    self.advance();
                    self.enter(self.stack.len(), &[config]);
                }
                continue;
            }
            (frame.at, frame.followed) = (at + 1, false);
            self.branch(at as u32, &node.config);
            self.steps += 1;
            if let Some(spent) = self.spent() {
                self.note();
                return End::Spent(spent, self.furthest);
            }
        }
        match self.furthest {
            Some(prefix) => End::Stuck(prefix),
            None => unreachable!("a search that has begun has got somewhere"),
        }
    }

    fn spent(&self) -> Option<Spent> {
        if !self.steps.is_multiple_of(LOOK_EVERY) {
            return None;
        }
        let queued = self.queued * size_of::<Node<N>>() + self.stack.len() * size_of::<Frame<N>>();
        if self.seen.bytes() + self.states.bytes + queued > self.limits.bytes {
            return Some(Spent::Memory);
        }
        (Instant::now() >= self.limits.end).then_some(Spent::Time)
    }

    // ---- configurations ------------------------------------------------------------------

    /// Begins to look at a return, from these configurations, of which those are left out that
    /// need not be tried. Nothing happens if none is left.
    fn enter(&mut self, at: usize, entries: &[Config<N>]) {
        let mut queue = Vec::with_capacity(1);
        for entry in entries {
            let mut config = *entry;
            for op in self.course.calls(at) {
                let op = &self.course.ops[op as usize];
                if op.reads {
                    config.bits.set(op.slot);
                }
            }
            self.place_reads(&mut config);
            if self.seen.insert(at, &config, &self.exact) {
                queue.push(Node { config, parent: NONE, op: NONE });
            }
        }
        self.queued += queue.len();
        // An empty frame is taken off again at once, and puts the pending operations back.
        self.stack.push(Frame { queue, at: 0, followed: false });
    }

    /// The configuration after the return of the frame on top, if the operation that returns has
    /// its place or can be put there now.
    fn follow(&mut self, config: &Config<N>) -> Option<Config<N>> {
        let op = &self.course.ops[self.returning() as usize];
        let mut config = *config;
        match (op.reads, config.bits.has(op.slot)) {
            // It is still without a place.
            (true, true) => return None,
            (true, false) => {}
            (false, true) => config.bits.clear(op.slot),
            (false, false) => {
                config.state = self.step(config.state, op.op)?;
                self.place_reads(&mut config);
            }
        }
        Some(config)
    }

    /// Adds what can be placed before the operation that returns.
    fn branch(&mut self, parent: u32, config: &Config<N>) {
        let at = self.stack.len() - 1;
        let returning = self.returning();
        let own = &self.course.ops[returning as usize];
        if own.reads != config.bits.has(own.slot) {
            // It has its place. Others need none yet.
            return;
        }
        let mut cursor = NONE;
        loop {
            cursor = self.changes.after(cursor);
            if cursor == NONE {
                break;
            }
            let op = &self.course.ops[cursor as usize];
            let used = |number: u32| config.bits.has(self.course.ops[number as usize].slot);
            let twin_is_free = op.twin != NONE && !used(op.twin);
            if cursor == returning || used(cursor) || twin_is_free {
                continue;
            }
            let Some(state) = self.step(config.state, op.op) else { continue };
            if state == config.state && !op.returns {
                // Using it up for nothing.
                continue;
            }
            let mut next = Config { state, bits: config.bits };
            next.bits.set(op.slot);
            self.place_reads(&mut next);
            if self.seen.insert(at, &next, &self.exact) {
                self.stack[at].queue.push(Node { config: next, parent, op: cursor });
                self.queued += 1;
            }
        }
    }

    /// Gives every read its place that can have it in this state (rule 1).
    fn place_reads(&self, config: &mut Config<N>) {
        let state = &self.states.all[config.state as usize];
        let mut cursor = self.reads.after(NONE);
        while cursor != NONE {
            let op = &self.course.ops[cursor as usize];
            if config.bits.has(op.slot) && self.model.step(state, op.op).is_some() {
                config.bits.clear(op.slot);
            }
            cursor = self.reads.after(cursor);
        }
    }

    fn step(&mut self, state: u32, op: &M::Op) -> Option<u32> {
        let next = self.model.step(&self.states.all[state as usize], op)?;
        Some(self.states.number(self.model, next))
    }

    // ---- the history ---------------------------------------------------------------------

    /// The operation whose return the frame on top looks at.
    fn returning(&self) -> u32 {
        self.course.returns[self.stack.len() - 1].op
    }

    /// The operations called before the return `at` get under way.
    fn call(&mut self, at: usize) {
        for number in self.course.calls(at) {
            let op = &self.course.ops[number as usize];
            if op.reads { &mut self.reads } else { &mut self.changes }.push(number);
            if op.returns && !op.reads {
                self.exact.set(op.slot);
            }
        }
    }

    /// Goes on to the return after that of the frame on top.
    fn advance(&mut self) {
        let number = self.returning();
        let op = &self.course.ops[number as usize];
        if op.reads { &mut self.reads } else { &mut self.changes }.take(number);
        self.exact.clear(op.slot);
        self.call(self.stack.len());
    }

    /// Takes the frame on top off, and goes back to the return of the one below.
    fn leave(&mut self) {
        self.note();
        let Some(frame) = self.stack.pop() else { return };
        self.queued -= frame.queue.len();
        let at = self.stack.len();
        for number in self.course.calls(at).rev() {
            let op = &self.course.ops[number as usize];
            if op.reads { &mut self.reads } else { &mut self.changes }.take(number);
            self.exact.clear(op.slot);
        }
        if at > 0 {
            let number = self.returning();
            let op = &self.course.ops[number as usize];
            if op.reads { &mut self.reads } else { &mut self.changes }.put_back(number);
            if !op.reads {
                self.exact.set(op.slot);
            }
        }
    }

    // ---- what is told of a failure -------------------------------------------------------

    /// Keeps the way to the frame on top, if none was longer.
    fn note(&mut self) {
        let depth = self.stack.len();
        let Some(top) = self.stack.last().filter(|_| depth > self.deepest) else { return };
        let Some(first) = top.queue.first() else { return };
        let state = self.states.all[first.config.state as usize].to_string();
        let placed = self.order();
        self.deepest = depth;
        let stuck = self.course.returns[depth - 1];
        let position = |op: u32| self.course.ops[op as usize].position;
        let returned: Vec<u32> =
            self.course.returns[..depth].iter().map(|returned| returned.op).collect();
        let mut done = vec![false; self.course.ops.len()];
        for op in placed.iter().chain(&returned) {
            done[*op as usize] = true;
        }
        let open = (0..stuck.called).filter(|op| !done[*op as usize]).map(position).collect();
        self.furthest = Some(Prefix {
            placed: placed.into_iter().map(position).collect(),
            stuck: position(stuck.op),
            open,
            state,
        });
    }

    /// The operations in the order in which the stack has placed them.
    fn order(&self) -> Vec<u32> {
        let mut order = Vec::new();
        let mut placed = vec![false; self.course.ops.len()];
        let mut reads: Vec<u32> = Vec::new();
        let mut put = |config: &Config<N>, changed: Option<u32>, reads: &mut Vec<u32>| {
            let changed = changed.filter(|op| !std::mem::replace(&mut placed[*op as usize], true));
            order.extend(changed);
            reads.retain(|read| {
                let waits = config.bits.has(self.course.ops[*read as usize].slot);
                if !waits {
                    order.push(*read);
                }
                waits
            });
        };
        let mut before = None;
        for (at, frame) in self.stack.iter().enumerate() {
            let Some(entry) = frame.queue.first() else { break };
            reads.extend(self.course.calls(at).filter(|op| self.course.ops[*op as usize].reads));
            let top = at + 1 == self.stack.len();
            // The nodes from an entry to the one that the frame above goes on from.
            let mut way = Vec::new();
            let mut cursor = if top { 0 } else { frame.at };
            loop {
                let node = &frame.queue[cursor];
                way.push(node);
                if node.parent == NONE {
                    break;
                }
                cursor = node.parent as usize;
            }
            let first = way.last().map_or(entry, |node| *node);
            put(&first.config, before, &mut reads);
            for node in way.iter().rev().skip(1) {
                put(&node.config, Some(node.op), &mut reads);
            }
            let returning = self.course.returns[at].op;
            before = Some(returning).filter(|op| !self.course.ops[*op as usize].reads);
        }
        order
    }
}

impl<S: Clone + Eq + std::hash::Hash> States<S> {
    fn number<M: Model<State = S>>(&mut self, model: &M, state: S) -> u32 {
        let next = self.all.len() as u32;
        match self.numbers.entry(state) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let bytes = model.bytes(place.key()) + 2 * size_of::<S>() + size_of::<u32>();
                self.bytes += bytes;
                self.all.push(place.key().clone());
                *place.insert(next)
            }
        }
    }
}
