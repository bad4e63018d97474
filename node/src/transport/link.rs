//! What is known about the connections with one peer, and what of it the core is told.
//!
//! With each peer there are two connections: the one this node has dialled, on which it sends, and
//! the one the peer has dialled, on which it receives. A peer is *back* once the dialled one
//! stands; it is *lost* as soon as either breaks. Each loss is told once, and so is each thing
//! that becomes known about it.

use sraft_core::{Input, NodeId};
use sraft_events::LossCause;

/// What has happened to a connection with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The peer has answered the handshake on the connection that this node dialled.
    Dialled {
        /// The peer's boot id.
        boot_id: u64,
    },
    /// The connection that this node dialled has broken.
    DialledLost,
    /// Nothing listens at the peer's address.
    NothingListens,
    /// The peer has dialled this node.
    Accepted {
        /// The peer's boot id.
        boot_id: u64,
    },
    /// The connection that the peer dialled has broken, and it had not been replaced.
    AcceptedLost,
}

/// What is known about one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// The process that was connected last.
    boot_id: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It has not been connected yet.
    #[default]
    Never,
    /// It is connected.
    Up,
    /// It was; `dead` once its process is known to be gone.
    Lost { dead: bool },
}

impl Link {
    /// Whether the peer is connected.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Takes a change in and says what to tell the core, in order.
    pub fn change(&mut self, peer: NodeId, change: Change) -> Vec<Input> {
        let mut tell = Vec::new();
        match change {
            Change::Dialled { boot_id } => {
                self.met(peer, boot_id, &mut tell);
                if self.state != State::Up {
                    let same_process =
                        self.boot_id == Some(boot_id) && self.state == State::Lost { dead: false };
                    tell.push(Input::PeerBack { peer, same_process });
                    self.state = State::Up;
                }
                self.boot_id = Some(boot_id);
            }
            // Only a doubt: a second process that was given the peer's id by mistake says the same.
            // What answers at the peer's own address decides.
            Change::Accepted { boot_id } => {
                if self.boot_id.is_some_and(|known| known != boot_id) {
                    self.lost(peer, &mut tell);
                }
            }
            Change::DialledLost | Change::AcceptedLost => self.lost(peer, &mut tell),
            Change::NothingListens => self.died(peer, LossCause::Refused, &mut tell),
        }
        tell
    }

    /// A process has answered; if it is another one than before, that one is dead.
    fn met(&mut self, peer: NodeId, boot_id: u64, tell: &mut Vec<Input>) {
        if self.boot_id.is_some_and(|known| known != boot_id) {
            self.lost(peer, tell);
            self.died(peer, LossCause::OtherBoot, tell);
        }
    }

    fn lost(&mut self, peer: NodeId, tell: &mut Vec<Input>) {
        if self.state == State::Up {
            self.state = State::Lost { dead: false };
            tell.push(Input::PeerLost { peer, cause: LossCause::Closed });
        }
    }

    fn died(&mut self, peer: NodeId, cause: LossCause, tell: &mut Vec<Input>) {
        if self.state == (State::Lost { dead: false }) {
            self.state = State::Lost { dead: true };
            tell.push(Input::PeerLost { peer, cause });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Change::*, *};

    fn told(link: &mut Link, changes: &[Change]) -> Vec<String> {
        let inputs = changes.iter().flat_map(|change| link.change(4, *change));
        inputs
            .map(|input| match input {
                Input::PeerLost { peer: 4, cause } => format!("lost {cause}"),
                Input::PeerBack { peer: 4, same_process: true } => "same".to_owned(),
                Input::PeerBack { peer: 4, same_process: false } => "new".to_owned(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_killed_process_is_lost_once_and_dead_once() {
        let mut link = Link::default();
        assert_eq!(told(&mut link, &[NothingListens, Accepted { boot_id: 1 }]), [""; 0]);
        assert_eq!(told(&mut link, &[Dialled { boot_id: 1 }]), ["new"]);
        let killed = [AcceptedLost, DialledLost, NothingListens, NothingListens];
        assert_eq!(told(&mut link, &killed), ["lost closed", "lost refused"]);
        assert_eq!(told(&mut link, &[Accepted { boot_id: 2 }, Dialled { boot_id: 2 }]), ["new"]);
        assert_eq!(told(&mut link, &[DialledLost]), ["lost closed"]);
    }

    #[test]
    fn a_broken_connection_is_a_false_alarm() {
        let mut link = Link::default();
        told(&mut link, &[Dialled { boot_id: 1 }]);
        let broken = [DialledLost, Dialled { boot_id: 1 }, Dialled { boot_id: 1 }];
        assert_eq!(told(&mut link, &broken), ["lost closed", "same"]);
    }

    #[test]
    fn another_process_in_the_peers_place_proves_the_death() {
        let mut link = Link::default();
        told(&mut link, &[Dialled { boot_id: 1 }]);
        assert_eq!(
            told(&mut link, &[DialledLost, Dialled { boot_id: 2 }]),
            ["lost closed", "lost other_boot", "new"]
        );
        // It may be the peer that is first, even before the loss has been noticed.
        assert_eq!(
            told(&mut link, &[Accepted { boot_id: 3 }, DialledLost, Dialled { boot_id: 3 }]),
            ["lost closed", "lost other_boot", "new"]
        );
        // An impostor does not prove anything.
        assert_eq!(
            told(&mut link, &[Accepted { boot_id: 9 }, Dialled { boot_id: 3 }]),
            ["lost closed", "same"]
        );
    }

    #[test]
    fn a_process_once_found_dead_does_not_come_back() {
        let mut link = Link::default();
        told(&mut link, &[Dialled { boot_id: 1 }, DialledLost, NothingListens]);
        // It was alive after all (its port was unreachable for a moment): a loss, not an alarm.
        assert_eq!(told(&mut link, &[Dialled { boot_id: 1 }]), ["new"]);
    }
}
