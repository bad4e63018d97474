use super::{
    course::{Course, Kind, NONE},
    walk::Frame,
};
use crate::model::Model;

/// The operations in the order in which the frames of a search have placed them: up to the last
/// frame, or `whole`, with what is placed at its return.
pub(super) fn of<M: Model, const N: usize>(
    course: &Course<M>,
    stack: &[Frame<N>],
    whole: bool,
) -> Vec<u32> {
    let ops = &course.ops;
    let mut order = Order { seen: Vec::new(), placed: vec![false; ops.len()] };
    // Reads and writes under way that have no place in the order yet.
    let (mut reads, mut writes): (Vec<u32>, Vec<(u32, usize)>) = (Vec::new(), Vec::new());
    // Writes that were never seen, each with the place in the order before which it hides.
    let mut hidden: Vec<(usize, u32)> = Vec::new();
    let mut before = None;
    for (at, frame) in stack.iter().enumerate() {
        for number in course.calls(at) {
            match ops[number as usize].kind {
                Kind::Read => reads.push(number),
                // What it hides behind comes later than all that has been placed so far,
                // except the operation that returned last: it is placed below.
                Kind::Write => writes.push((number, order.seen.len() + before.iter().len())),
                Kind::Change | Kind::Unknown => {}
            }
        }
        let top = at + 1 == stack.len() && !whole;
        // The nodes from an entry to the one that the frame above goes on from.
        let mut way = Vec::new();
        let mut cursor = if top { 0 } else { frame.at as u32 };
        while let Some(node) = frame.queue.get(cursor as usize) {
            way.push(node);
            cursor = node.parent;
        }
        for node in way.iter().rev() {
            let changed = if node.op == NONE { before.take() } else { Some(node.op) };
            order.put(changed);
            reads.retain(|read| {
                let waits = node.config.bits.has(ops[*read as usize].slot);
                if !waits {
                    order.put(Some(*read));
                }
                waits
            });
        }
        if top {
            break;
        }
        let returning = course.returns[at].op;
        let own = &ops[returning as usize];
        let last = way.first().map(|node| &node.config);
        let unplaced = !order.placed[returning as usize];
        match own.kind {
            Kind::Write if unplaced && last.is_some_and(|last| !last.bits.has(own.owed)) => {
                let from = writes.iter().find(|(write, _)| *write == returning);
                let from = from.map_or(0, |(_, from)| *from);
                let behind = order.seen[from..].iter().position(|op| ops[*op as usize].overwrites);
                hidden.push((from + behind.unwrap_or(0), returning));
            }
            Kind::Write | Kind::Change if unplaced => before = Some(returning),
            _ => {}
        }
        writes.retain(|(write, _)| *write != returning);
    }
    order.put(before);
    hidden.sort_by_key(|(place, _)| *place);
    let mut hidden = hidden.into_iter().peekable();
    let mut whole = Vec::new();
    for (place, op) in order.seen.into_iter().enumerate() {
        while let Some((_, write)) = hidden.next_if(|(behind, _)| *behind <= place) {
            whole.push(write);
        }
        whole.push(op);
    }
    whole
}

/// Operations as a search has placed them.
struct Order {
    seen: Vec<u32>,
    placed: Vec<bool>,
}

impl Order {
    fn put(&mut self, op: Option<u32>) {
        let op = op.filter(|op| !std::mem::replace(&mut self.placed[*op as usize], true));
        self.seen.extend(op);
    }
}
