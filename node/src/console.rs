//! The human lines of `--debug`, in the words that users of the Python prototype look for.

use std::fmt::Write;

use sraft_core::{Event, NodeId, Term, Time};
use sraft_events::CampaignKind;

/// Turns events into lines.
#[derive(Debug)]
pub struct Console {
    node: NodeId,
    stood: Option<(Term, Time)>,
}

impl Console {
    /// For the events of this node.
    pub fn new(node: NodeId) -> Console {
        Console { node, stood: None }
    }

    /// The line or lines, joined by a line feed, that say what happened at `at`; empty for events
    /// that are of interest to the event log only.
    pub fn line(&mut self, at: Time, event: &Event) -> Option<String> {
        let me = self.node;
        Some(match event {
            Event::NodeStarted { cluster, members, sub_leaders, term, last_index, .. } => {
                let protocol = if *sub_leaders == 0 { "original Raft" } else { "S-Raft" };
                format!(
                    "[Node {me}] Started: cluster {cluster}, {} members, {protocol}, term {term}, \
                     log up to {last_index}",
                    members.len()
                )
            }
            Event::NodeStopped { reason } => format!("[Node {me}] Stopped: {reason}"),
            Event::PeerConnected { peer, .. } => format!("[Node {me}] Connected to Node {peer}"),
            Event::PeerLost { peer, cause } => {
                format!("[Node {me}] Lost the connection to Node {peer} ({cause})")
            }
            Event::FalseAlarm { peer } => {
                format!("[Node {me}] Node {peer} is alive: only its connection was lost")
            }
            Event::ConnectionRefused { remote, reason } => {
                format!("[Node {me}] Connection with {remote} refused: {reason}")
            }
            Event::Suspected { leader, term, evidence } => match leader {
                Some(leader) => {
                    format!("[Node {me}] Leader {leader} of term {term} is gone ({evidence})")
                }
                None => format!("[Node {me}] No leader in term {term} ({evidence})"),
            },
            Event::CampaignStarted { term, campaign, rank, .. } => {
                self.stood = Some((*term, at));
                match campaign {
                    CampaignKind::Promotion => format!(
                        "[S-RAFT INSTANT PROMOTION] Node {me} ({}) claims leadership, Term: {term}",
                        rank_name(rank.unwrap_or(0))
                    ),
                    CampaignKind::Election => {
                        format!("[ELECTION START] Node {me} stands, Term: {term}")
                    }
                    CampaignKind::Transfer => {
                        format!("[HANDOVER] Node {me} takes over, Term: {term}")
                    }
                }
            }
            Event::CampaignFailed { term, campaign, outcome, .. } => {
                let tag = match campaign {
                    CampaignKind::Promotion => "[INSTANT PROMOTION FAILED]",
                    CampaignKind::Election => "[ELECTION FAILED]",
                    CampaignKind::Transfer => "[HANDOVER FAILED]",
                };
                format!("{tag} Node {me}, Term: {term}: {outcome}")
            }
            Event::Elected { term, campaign, votes, .. } => {
                let took = match self.stood.take() {
                    Some((stood, since)) if stood == *term => {
                        format!(", Time: {:.1}ms", at.since(since).as_secs_f64() * 1e3)
                    }
                    _ => String::new(),
                };
                match campaign {
                    CampaignKind::Promotion => format!(
                        "[INSTANT PROMOTION SUCCESS] Node {me} -> LEADER\n  Term: {term}, \
                         ACKs: {votes}{took}"
                    ),
                    CampaignKind::Election => format!(
                        "[ELECTION SUCCESS] Node {me} -> LEADER\n  Term: {term}, \
                         Votes: {votes}{took}"
                    ),
                    CampaignKind::Transfer => format!(
                        "[HANDOVER SUCCESS] Node {me} -> LEADER\n  Term: {term}, \
                         Votes: {votes}{took}"
                    ),
                }
            }
            Event::Ready { term, .. } => format!("[Leader {me}] Ready, Term: {term}"),
            Event::LeaderAccepted { leader, term } => {
                format!("[Node {me}] Follows Leader {leader}, Term: {term}")
            }
            Event::SteppedDown { term, reason } => {
                format!("[Node {me}] Leader no more, Term: {term} ({reason})")
            }
            Event::Designated { ranks, .. } => {
                let mut line = format!("[Leader {me}] Sub-leaders assigned: ");
                if ranks.is_empty() {
                    line.push_str("none");
                }
                for (rank, node) in ranks.iter().enumerate() {
                    let comma = if rank == 0 { "" } else { ", " };
                    let _ = write!(line, "{comma}{}={node}", rank_name(rank as u32));
                }
                line
            }
            Event::RankChanged { leader, rank, .. } => match rank {
                Some(rank) => {
                    format!("[Node {me}] Sub-leader of Leader {leader}: {}", rank_name(*rank))
                }
                None => format!("[Node {me}] Sub-leader of Leader {leader} no more"),
            },
            Event::HandoverStarted { to, term } => {
                format!("[Leader {me}] Hands over to Node {to}, Term: {term}")
            }
            _ => return None,
        })
    }
}

fn rank_name(rank: u32) -> String {
    match rank {
        0 => "Primary".to_owned(),
        1 => "Secondary".to_owned(),
        _ => format!("Rank {rank}"),
    }
}

#[cfg(test)]
mod tests {
    use sraft_events::{CampaignOutcome, DesignationReason, Evidence};

    use super::*;

    #[test]
    fn the_lines_that_users_of_the_prototype_look_for() {
        let mut console = Console::new(2);
        let stands = |term, campaign, rank| Event::CampaignStarted {
            term,
            campaign,
            rank,
            evidence: Evidence::Silence,
        };
        let wins = |term, campaign, rank| Event::Elected { term, campaign, rank, votes: 3 };
        let script = [
            (0, stands(4, CampaignKind::Promotion, Some(0))),
            (430_000, wins(4, CampaignKind::Promotion, Some(0))),
            (
                500_000,
                Event::Designated {
                    term: 4,
                    epoch: 1,
                    ranks: vec![5, 1],
                    reason: DesignationReason::First,
                },
            ),
            (600_000, stands(5, CampaignKind::Election, None)),
            (1_860_000, wins(5, CampaignKind::Election, None)),
            (2_000_000, stands(6, CampaignKind::Promotion, Some(1))),
            (
                3_000_000,
                Event::CampaignFailed {
                    term: 6,
                    campaign: CampaignKind::Promotion,
                    pre_vote: false,
                    outcome: CampaignOutcome::TimedOut,
                },
            ),
            (4_000_000, stands(7, CampaignKind::Transfer, None)),
            // Its own start is unknown, so no time is made up.
            (5_000_000, wins(8, CampaignKind::Transfer, None)),
        ];
        let lines: Vec<String> = script
            .iter()
            .filter_map(|(at, event)| console.line(Time::from_nanos(*at), event))
            .collect();
        assert_eq!(
            lines.join("\n"),
            "\
[S-RAFT INSTANT PROMOTION] Node 2 (Primary) claims leadership, Term: 4
[INSTANT PROMOTION SUCCESS] Node 2 -> LEADER
  Term: 4, ACKs: 3, Time: 0.4ms
[Leader 2] Sub-leaders assigned: Primary=5, Secondary=1
[ELECTION START] Node 2 stands, Term: 5
[ELECTION SUCCESS] Node 2 -> LEADER
  Term: 5, Votes: 3, Time: 1.3ms
[S-RAFT INSTANT PROMOTION] Node 2 (Secondary) claims leadership, Term: 6
[INSTANT PROMOTION FAILED] Node 2, Term: 6: timed_out
[HANDOVER] Node 2 takes over, Term: 7
[HANDOVER SUCCESS] Node 2 -> LEADER
  Term: 8, Votes: 3"
        );
    }

    #[test]
    fn nobody_is_told_of_single_votes() {
        let event = Event::VoteReceived { voter: 1, term: 2, pre_vote: false, refusal: None };
        assert_eq!(Console::new(2).line(Time::ZERO, &event), None);
    }
}
