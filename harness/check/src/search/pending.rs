use super::course::NONE;

/// The operations under way, in the order of their calls: a doubly linked list in which what was
/// taken out last can be put back in constant time, because it still knows its neighbours (Knuth's
/// dancing links, as Lowe's and other checkers use them).
#[derive(Clone, Debug)]
pub(super) struct Pending {
    next: Vec<u32>,
    prev: Vec<u32>,
}

impl Pending {
    /// An empty list for operations with numbers below `ops`.
    pub(super) fn new(ops: usize) -> Pending {
        // The last place is the head, which is before the first and after the last.
        let alone = vec![ops as u32; ops + 1];
        Pending { next: alone.clone(), prev: alone }
    }

    fn head(&self) -> u32 {
        (self.next.len() - 1) as u32
    }

    /// Adds an operation at the end.
    pub(super) fn push(&mut self, op: u32) {
        let (head, last) = (self.head(), self.prev[self.head() as usize]);
        self.next[last as usize] = op;
        self.prev[op as usize] = last;
        self.next[op as usize] = head;
        self.prev[head as usize] = op;
    }

    /// Takes an operation out.
    pub(super) fn take(&mut self, op: u32) {
        let (prev, next) = (self.prev[op as usize], self.next[op as usize]);
        self.next[prev as usize] = next;
        self.prev[next as usize] = prev;
    }

    /// Puts back the operation that was taken out last.
    pub(super) fn put_back(&mut self, op: u32) {
        let (prev, next) = (self.prev[op as usize], self.next[op as usize]);
        self.next[prev as usize] = op;
        self.prev[next as usize] = op;
    }

    /// The operation after `op`, the first one after [`NONE`]; [`NONE`] at the end.
    pub(super) fn after(&self, op: u32) -> u32 {
        let next = self.next[if op == NONE { self.head() } else { op } as usize];
        if next == self.head() { NONE } else { next }
    }
}
