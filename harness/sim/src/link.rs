use sraft_core::{Input, NodeId};
use sraft_events::LossCause;

/// What one node's transport knows about its connection with one peer. Processes are told apart by
/// the number of times their node has started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// The process that was connected last.
    pub life: u32,
    pub state: State,
    /// When the last message sent over this link arrives.
    pub last_arrival: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Never,
    Up,
    Lost { dead: bool },
}

impl Link {
    pub(crate) const NEW: Link = Link { life: 0, state: State::Never, last_arrival: 0 };

    /// A new connection has been made, to this process.
    pub(crate) fn dialled(&mut self, peer: NodeId, life: u32) -> Vec<Input> {
        let mut tell = Vec::new();
        if self.state != State::Never && self.life != life {
            tell.extend(self.closed(peer));
            tell.extend(self.died(peer, LossCause::OtherBoot));
        }
        if self.state != State::Up {
            let same_process = self.life == life && self.state == State::Lost { dead: false };
            tell.push(Input::PeerBack { peer, same_process });
            self.state = State::Up;
        }
        self.life = life;
        tell
    }

    /// The connection has closed.
    pub(crate) fn closed(&mut self, peer: NodeId) -> Option<Input> {
        (self.state == State::Up).then(|| {
            self.state = State::Lost { dead: false };
            Input::PeerLost { peer, cause: LossCause::Closed }
        })
    }

    /// The process that was connected is known to be gone.
    pub(crate) fn died(&mut self, peer: NodeId, cause: LossCause) -> Option<Input> {
        (self.state == State::Lost { dead: false }).then(|| {
            self.state = State::Lost { dead: true };
            Input::PeerLost { peer, cause }
        })
    }
}
