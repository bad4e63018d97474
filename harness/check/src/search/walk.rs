use std::{
    collections::{HashMap, hash_map::Entry},
    time::Instant,
};

use super::{
    Limits, Prefix, Spent,
    course::{Course, Kind, NONE, Op},
    needs::Needs,
    order,
    pending::Pending,
    seen::{Bits, Config, Seen},
};
use crate::model::Model;

/// How a search ended.
#[derive(Debug)]
pub(super) enum End {
    /// In this order of positions in the history.
    Explained(Vec<usize>),
    /// The furthest that was got to. Rule 5 gives up where others would go on for a while.
    Stuck(Prefix),
    Spent(Spent, Option<Prefix>),
}

/// A depth-first search, one frame per return of the history. Its depth is the history's length,
/// so the stack is a vector of its own.
pub(super) struct Walk<'a, M: Model, const N: usize> {
    model: &'a M,
    course: &'a Course<M>,
    limits: Limits,
    needs: Needs<M>,
    states: States<M::State>,
    seen: Seen<N>,
    /// Operations under way that only read, and those that may change something.
    reads: Pending,
    changes: Pending,
    /// The bits of the changes under way: only configurations that agree in these are comparable.
    exact: Bits<N>,
    /// The bits of the writes under way that say that they have to be placed or hidden.
    owed: Bits<N>,
    stack: Vec<Frame<N>>,
    queued: usize,
    steps: u64,
    furthest: Option<Prefix>,
    deepest: usize,
}

/// What is tried at one return: configurations in the order of how many operations they place
/// beyond the first, so that one that makes do with less is tried before those that it excels.
#[derive(Debug)]
pub(super) struct Frame<const N: usize> {
    pub(super) queue: Vec<Node<N>>,
    /// The node whose turn it is.
    pub(super) at: usize,
    /// Whether it has been followed to the next return.
    followed: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Node<const N: usize> {
    pub(super) config: Config<N>,
    /// The node that it follows from, and the operation that was placed.
    pub(super) parent: u32,
    pub(super) op: u32,
}

/// The object's states, by number.
#[derive(Debug)]
struct States<S> {
    all: Vec<S>,
    /// Their numbers among those that operations name.
    named: Vec<u32>,
    numbers: HashMap<S, u32, foldhash::fast::FixedState>,
    bytes: usize,
}

/// How many nodes are tried between two looks at the clock.
const LOOK_EVERY: u64 = 256;

impl<'a, M: Model, const N: usize> Walk<'a, M, N> {
    pub(super) fn new(model: &'a M, course: &'a Course<M>, limits: Limits) -> Self {
        let ops = course.ops.len();
        Walk {
            model,
            course,
            limits,
            needs: Needs::new(model, course),
            states: States {
                all: Vec::new(),
                named: Vec::new(),
                numbers: HashMap::default(),
                bytes: 0,
            },
            seen: Seen::new(),
            reads: Pending::new(ops),
            changes: Pending::new(ops),
            exact: Bits::EMPTY,
            owed: Bits::EMPTY,
            stack: Vec::new(),
            queued: 0,
            steps: 0,
            furthest: None,
            deepest: 0,
        }
    }

    pub(super) fn run(mut self) -> End {
        if self.course.returns.is_empty() {
            return End::Explained(Vec::new());
        }
        let initial = self.model.initial(self.course.ops.iter().map(|op| &op.op));
        let entries: Vec<Config<N>> = initial
            .into_iter()
            .map(|state| Config {
                state: self.states.number(self.model, &self.needs, state),
                bits: Bits::EMPTY,
            })
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
                        return End::Explained(self.placed());
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
                match op.kind {
                    Kind::Read => config.bits.set(op.slot),
                    Kind::Write => config.bits.set(op.owed),
                    Kind::Change | Kind::Unknown => {}
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
    /// its place, or can be put there now.
    fn follow(&mut self, config: &Config<N>) -> Option<Config<N>> {
        let op = &self.course.ops[self.returning() as usize];
        let has_place = match op.kind {
            Kind::Read => !config.bits.has(op.slot),
            Kind::Write => !config.bits.has(op.owed),
            Kind::Change | Kind::Unknown => config.bits.has(op.slot),
        };
        if op.kind == Kind::Write && has_place && self.was_needed(config) {
            return None;
        }
        let mut config = match (has_place, op.kind) {
            (true, _) => *config,
            (false, Kind::Read) => return None,
            (false, _) => self.place(config, op)?,
        };
        config.bits.clear(op.slot);
        Some(config)
    }

    /// Adds what can be placed before the operation that returns.
    fn branch(&mut self, parent: u32, config: &Config<N>) {
        let at = self.stack.len() - 1;
        let returning = self.returning();
        let own = &self.course.ops[returning as usize];
        // A write that may be taken for hidden has its last chance to be seen now.
        let last_chance = own.kind == Kind::Write && !config.bits.has(own.owed);
        let settled = (own.kind == Kind::Read) != config.bits.has(own.slot);
        if settled {
            // Others need no place yet.
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
            if used(cursor) || twin_is_free || (cursor == returning && !last_chance) {
                continue;
            }
            let Some(next) = self.place(config, op) else { continue };
            if self.seen.insert(at, &next, &self.exact) {
                self.stack[at].queue.push(Node { config: next, parent, op: cursor });
                self.queued += 1;
            }
        }
    }

    /// The configuration after placing an operation that is no read.
    fn place(&mut self, config: &Config<N>, op: &Op<M>) -> Option<Config<N>> {
        let next = self.model.step(&self.states.all[config.state as usize], &op.op)?;
        let left = config.state;
        let state = self.states.number(self.model, &self.needs, next);
        let mut config = Config { state, bits: config.bits };
        config.bits.set(op.slot);
        if state != left && self.gives_up(left, &config.bits) {
            return None;
        }
        if op.overwrites {
            // This one, and what hides behind it.
            config.bits.clear_all(&self.owed);
        }
        self.place_reads(&mut config);
        Some(config)
    }

    /// Whether leaving a state would be for ever although it is needed (rule 5). Reads under way
    /// that need it have been placed.
    fn gives_up(&self, state: u32, bits: &Bits<N>) -> bool {
        let (at, state) = (self.stack.len() - 1, self.states.named[state as usize]);
        state != NONE
            && self.needs.is_needed(state, self.course, bits, at)
            && !self.needs.can_be_made(state, self.course, bits, at)
    }

    /// Whether the write that returns was never seen, although its state is needed and nobody else
    /// can make it (rule 5).
    fn was_needed(&self, config: &Config<N>) -> bool {
        let (at, returning) = (self.stack.len() - 1, self.returning());
        let state = self.needs.made_by(returning);
        if state == NONE || config.bits.has(self.course.ops[returning as usize].slot) {
            return false;
        }
        if self.states.named[config.state as usize] == state
            || self.needs.can_be_made(state, self.course, &config.bits, at + 1)
        {
            return false;
        }
        let waits = |read: u32| {
            let slot = self.course.ops[read as usize].slot;
            self.needs.needed_by(read) == state && config.bits.has(slot)
        };
        let mut read = self.reads.after(NONE);
        while read != NONE {
            if waits(read) {
                return true;
            }
            read = self.reads.after(read);
        }
        self.needs.is_needed(state, self.course, &config.bits, at)
    }

    /// Gives every read its place that can have it in this state (rule 1).
    fn place_reads(&self, config: &mut Config<N>) {
        let state = &self.states.all[config.state as usize];
        let mut cursor = self.reads.after(NONE);
        while cursor != NONE {
            let op = &self.course.ops[cursor as usize];
            if config.bits.has(op.slot) && self.model.step(state, &op.op).is_some() {
                config.bits.clear(op.slot);
            }
            cursor = self.reads.after(cursor);
        }
    }

    // ---- the history ---------------------------------------------------------------------

    /// The operation whose return the frame on top looks at.
    fn returning(&self) -> u32 {
        self.course.returns[self.stack.len() - 1].op
    }

    /// The operations called before the return `at` get under way.
    fn call(&mut self, at: usize) {
        for number in self.course.calls(at) {
            self.list(number).push(number);
            self.mark(number, true);
        }
    }

    /// Goes on to the return after that of the frame on top.
    fn advance(&mut self) {
        let number = self.returning();
        self.list(number).take(number);
        self.mark(number, false);
        self.call(self.stack.len());
    }

    /// Takes the frame on top off, and goes back to the return of the one below.
    fn leave(&mut self) {
        self.note();
        let Some(frame) = self.stack.pop() else { return };
        self.queued -= frame.queue.len();
        let at = self.stack.len();
        for number in self.course.calls(at).rev() {
            self.list(number).take(number);
            self.mark(number, false);
        }
        if at > 0 {
            let number = self.returning();
            self.list(number).put_back(number);
            self.mark(number, true);
        }
    }

    fn list(&mut self, number: u32) -> &mut Pending {
        match self.course.ops[number as usize].kind {
            Kind::Read => &mut self.reads,
            Kind::Write | Kind::Change | Kind::Unknown => &mut self.changes,
        }
    }

    /// An operation gets under way, or is not under way any more.
    fn mark(&mut self, number: u32, under_way: bool) {
        let op = &self.course.ops[number as usize];
        let (mask, slot) = match op.kind {
            Kind::Read | Kind::Unknown => return,
            Kind::Write => (&mut self.owed, op.owed),
            Kind::Change => (&mut self.exact, op.slot),
        };
        if under_way { mask.set(slot) } else { mask.clear(slot) }
    }

    // ---- what is told of a failure -------------------------------------------------------

    /// What explains the whole history, when the stack has got to its end.
    fn placed(&self) -> Vec<usize> {
        let order = order::of(self.course, &self.stack, true);
        order.into_iter().map(|op| self.course.ops[op as usize].position).collect()
    }

    /// Keeps the way to the frame on top, if none was longer.
    fn note(&mut self) {
        let depth = self.stack.len();
        let Some(top) = self.stack.last().filter(|_| depth > self.deepest) else { return };
        if top.queue.is_empty() {
            return;
        }
        let placed = order::of(self.course, &self.stack, false);
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
            state: String::new(),
        });
    }
}

impl<S: Clone + Eq + std::hash::Hash> States<S> {
    fn number<M: Model<State = S>>(&mut self, model: &M, needs: &Needs<M>, state: S) -> u32 {
        let next = self.all.len() as u32;
        match self.numbers.entry(state) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let bytes = model.bytes(place.key()) + 2 * size_of::<S>() + size_of::<u32>();
                self.bytes += bytes;
                self.named.push(needs.of(place.key()));
                self.all.push(place.key().clone());
                *place.insert(next)
            }
        }
    }
}
