//! Connections: who knows of whom, and how the end of a process becomes known.

use super::*;

impl World {
    pub(super) fn connect(&mut self, index: usize, peer: usize) {
        let life = self.hosts[peer].life;
        let inputs = self.hosts[index].links[peer].dialled(peer as NodeId + 1, life);
        if let Some(recorder) = &mut self.recorder
            && !inputs.is_empty()
        {
            recorder.connected(index, peer, life, self.now);
        }
        let local = self.hosts[index].local(self.now);
        let node = self.hosts[index].node.as_mut().expect("only a running node dials");
        inputs.into_iter().for_each(|input| node.handle(local, input));
    }

    pub(super) fn dial(&mut self, index: usize, peer: usize) {
        let (here, there) = (&self.hosts[index], &self.hosts[peer]);
        // A process that stands still does not dial, and answers nobody; it, or the mended link,
        // dials again.
        if !here.runs() || there.paused || self.is_separated(index, peer) {
            return;
        }
        if there.node.is_some() {
            let life = there.life;
            self.note(|| format!("{}: connected with {} (life {life})", index + 1, peer + 1));
            self.connect(index, peer);
            self.carry_out(index);
        } else {
            let id = peer as NodeId + 1;
            let link = &mut self.hosts[index].links[peer];
            let closed = link.closed(id);
            let died = link.died(id, LossCause::Refused);
            self.tell(index, closed);
            self.tell(index, died);
        }
    }

    pub(super) fn tell(&mut self, index: usize, input: Option<Input>) {
        if let Some(input) = input {
            self.note(|| format!("{}: {input:?}", index + 1));
            self.input(index, input);
        }
    }

    pub(super) fn redial(&mut self, index: usize, peer: usize) {
        let delay = self.samplers.connect.draw(&mut self.rng);
        self.dial_after(delay, index, peer);
    }

    pub(super) fn redial_all(&mut self, index: usize) {
        for peer in (0..self.hosts.len()).filter(|peer| *peer != index) {
            self.redial(index, peer);
            self.redial(peer, index);
        }
    }

    pub(super) fn dial_after(&mut self, delay: u64, index: usize, peer: usize) {
        self.after(delay, Happening::Dial { node: index as u32, peer: peer as u32 });
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.hosts.len() + to]
    }

    pub(super) fn is_separated(&self, a: usize, b: usize) -> bool {
        self.is_cut(a, b) || self.is_cut(b, a)
    }

    pub(super) fn set_cut(&mut self, cut: &Cut, value: bool) {
        for &from in &cut.from {
            for &to in &cut.to {
                let (from, to) = (from as usize - 1, to as usize - 1);
                let size = self.hosts.len();
                self.cut[from * size + to] = value;
                if cut.both_ways {
                    self.cut[to * size + from] = value;
                }
                if !value {
                    self.redial(from, to);
                    self.redial(to, from);
                }
            }
        }
    }
}
