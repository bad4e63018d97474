use sraft_events::{CampaignKind, DesignationReason, StepDownReason};

use super::*;

/// A cluster that is told of record by record.
#[derive(Default)]
struct Told {
    view: View,
    now: u64,
}

impl Told {
    fn by(&mut self, source: Source, event: Event) -> &mut Told {
        self.now += 1;
        let (mono_ns, wall_ns) = (self.now, 0);
        self.view.fold(&Record { source, seq: 0, mono_ns, wall_ns, event });
        self
    }

    fn node(&mut self, node: NodeId, event: Event) -> &mut Told {
        self.by(Source::Node(node), event)
    }

    fn agent(&mut self, event: Event) -> &mut Told {
        self.by(Source::Agent("local".into()), event)
    }

    fn starts(&mut self, node: NodeId) -> &mut Told {
        self.agent(Event::ProcessStarted { node, pid: 1 }).node(
            node,
            Event::NodeStarted {
                node,
                schema: 1,
                version: String::new(),
                cluster: String::new(),
                boot_id: 1,
                pid: 1,
                members: vec![],
                sub_leaders: 0,
                term: 0,
                last_index: 0,
            },
        )
    }

    fn connects(&mut self, node: NodeId, size: u64) -> &mut Told {
        for peer in (1..=size).filter(|peer| *peer != node) {
            self.node(node, Event::PeerConnected { peer, boot_id: 1 });
            self.node(peer, Event::PeerConnected { peer: node, boot_id: 1 });
        }
        self
    }

    fn leads(&mut self, leader: NodeId, term: Term, size: u64) -> &mut Told {
        let campaign = CampaignKind::Election;
        self.node(leader, Event::Elected { term, campaign, rank: None, votes: 2 });
        self.node(leader, Event::Ready { term, index: 1 });
        for peer in (1..=size).filter(|peer| *peer != leader) {
            self.node(peer, Event::LeaderAccepted { leader, term });
            self.node(leader, Event::FollowerSynced { peer, term, match_index: 1 });
        }
        self
    }

    fn designates(&mut self, leader: NodeId, term: Term, epoch: u64, primary: NodeId) -> &mut Told {
        let (ranks, reason) = (vec![primary], DesignationReason::First);
        self.node(leader, Event::Designated { term, epoch, ranks, reason });
        self.node(primary, Event::RankChanged { leader, term, epoch, rank: Some(0) })
    }

    fn settled() -> Told {
        let mut told = Told::default();
        told.starts(1).starts(2).starts(3).connects(1, 3).connects(2, 3);
        told.leads(2, 5, 3).designates(2, 5, 1, 3);
        assert_eq!(told.view.missing(3, 1), None);
        told
    }

    fn missing(&self) -> String {
        self.view.missing(3, 1).unwrap_or_default()
    }
}

const KILLED: Event = Event::ProcessExited { node: 2, pid: 1, code: None, signal: Some(9) };

#[test]
fn a_trial_waits_for_everything_that_it_needs() {
    let mut told = Told::default();
    let mut said = Vec::new();
    said.push(told.starts(1).starts(2).missing());
    said.push(told.starts(3).missing());
    let (term, campaign) = (1, CampaignKind::Election);
    let elected = Event::Elected { term, campaign, rank: None, votes: 2 };
    said.push(told.node(2, elected).missing());
    said.push(told.node(2, Event::Ready { term, index: 1 }).missing());
    said.push(told.leads(2, 1, 3).missing());
    said.push(told.connects(1, 3).missing());
    said.push(told.connects(2, 3).missing());
    said.push(told.designates(2, 1, 1, 3).missing());
    insta::assert_snapshot!(said.join("\n"), @r"
node 3 to start
a leader
leader 2 to be ready
node 1 and 3 to catch up with leader 2
node 1, 2 and 3 to connect to every other
node 2 and 3 to connect to every other
1 sub-leaders
");
}

#[test]
fn a_killed_leader_leads_no_more_and_its_successor_does() {
    let mut told = Told::settled();
    let old = told.view.leader().unwrap();
    assert_eq!(old, Leader { node: 2, term: 5 });
    told.agent(KILLED);
    assert_eq!(told.view.leader(), None);
    assert_eq!(told.view.successor(old, 3, &[2]), None);
    let (term, campaign, rank) = (6, CampaignKind::Promotion, Some(0));
    told.node(3, Event::Elected { term, campaign, rank, votes: 2 });
    told.node(3, Event::Ready { term, index: 9 });
    assert_eq!(told.view.successor(old, 3, &[2]), None, "node 1 does not know it yet");
    told.node(1, Event::LeaderAccepted { leader: 3, term });
    let new = Leader { node: 3, term };
    assert_eq!(told.view.successor(old, 3, &[2]), Some(new));
    assert_eq!(told.view.ranks(), [0; 0], "the designation was the old leader's");
    assert_eq!(told.missing(), "node 2 to start");
}

#[test]
fn a_host_that_is_reset_takes_its_node_along_whatever_that_still_says() {
    let mut told = Told::settled();
    let old = told.view.leader().unwrap();
    told.agent(Event::FaultApplied { node: 2, pid: 1, action: FaultAction::Reboot });
    assert_eq!((told.view.leader(), told.view.is_up(2)), (None, false));
    // It is told of before it happens.
    told.connects(2, 3).node(2, Event::FollowerSynced { peer: 1, term: 5, match_index: 2 });
    told.leads(3, 6, 3).designates(3, 6, 1, 1);
    assert_eq!(told.view.successor(old, 3, &[2]), Some(Leader { node: 3, term: 6 }));
    let boot = sraft_events::Boot { id: "b".to_owned(), zero_wall_ns: 0 };
    let host = "two".to_owned();
    told.by(Source::Harness, Event::HostRebooted { host, nodes: vec![2], boot });
    told.starts(2);
    assert_eq!(told.missing(), "node 2 to catch up with leader 3");
}

#[test]
fn what_an_old_leader_says_late_changes_nothing() {
    let mut told = Told::settled();
    told.leads(3, 6, 3).designates(3, 6, 1, 1);
    assert_eq!(told.view.missing(3, 1), None);
    let at = told.view.last_change();
    told.node(2, Event::FollowerLost { peer: 1, term: 5, disconnected: true });
    told.node(2, Event::SteppedDown { term: 5, reason: StepDownReason::HigherTerm });
    let campaign = CampaignKind::Election;
    told.node(2, Event::Elected { term: 5, campaign, rank: None, votes: 2 });
    assert_eq!(told.view.missing(3, 1), None);
    assert_eq!(told.view.last_change(), at);
}

#[test]
fn a_paused_leader_still_leads_until_another_does() {
    let mut told = Told::settled();
    let act = |action| Event::FaultApplied { node: 2, pid: 1, action };
    told.agent(act(FaultAction::Pause));
    assert_eq!(told.view.leader(), Some(Leader { node: 2, term: 5 }));
    assert_eq!(told.missing(), "node 2 to be resumed");
    told.leads(3, 6, 3).designates(3, 6, 1, 1);
    told.agent(act(FaultAction::Resume));
    told.node(2, Event::SteppedDown { term: 5, reason: StepDownReason::HigherTerm });
    assert_eq!(told.view.leader(), Some(Leader { node: 3, term: 6 }));
    assert_eq!(told.view.missing(3, 1), None);
}

#[test]
fn a_restarted_node_has_to_connect_and_catch_up_again() {
    let mut told = Told::settled();
    told.agent(Event::ProcessExited { node: 1, pid: 1, code: None, signal: Some(9) });
    told.node(2, Event::FollowerLost { peer: 1, term: 5, disconnected: true });
    assert!(!told.view.is_synced(1));
    told.starts(1);
    assert_eq!(told.missing(), "node 1 to catch up with leader 2");
    told.node(1, Event::LeaderAccepted { leader: 2, term: 5 });
    told.node(2, Event::FollowerSynced { peer: 1, term: 5, match_index: 3 });
    assert_eq!(told.missing(), "node 1 to connect to every other");
    told.connects(1, 3);
    assert_eq!(told.view.missing(3, 1), None);
    assert_eq!(told.view.last_change(), told.now);
}

#[test]
fn nobody_waits_for_what_a_log_does_not_tell() {
    let view = View::of(LogFacts { bound_us: 500.0, ready: false });
    let mut told = Told { view, ..Told::default() };
    told.starts(1).starts(2).starts(3).connects(1, 3).connects(2, 3);
    let elected =
        |term| Event::Elected { term, campaign: CampaignKind::Election, rank: None, votes: 2 };
    told.node(2, elected(5)).node(1, Event::LeaderAccepted { leader: 2, term: 5 });
    let missing = |told: &Told| told.view.missing(3, 0).unwrap_or_default();
    assert_eq!(missing(&told), "node 3 to catch up with leader 2");
    told.node(3, Event::LeaderAccepted { leader: 2, term: 5 });
    assert_eq!(missing(&told), "");
    let old = told.view.leader().unwrap();
    told.agent(KILLED).node(3, elected(6));
    assert_eq!(told.view.successor(old, 3, &[2]), None, "node 1 does not know it yet");
    told.node(1, Event::LeaderAccepted { leader: 3, term: 6 });
    assert_eq!(told.view.successor(old, 3, &[2]), Some(Leader { node: 3, term: 6 }));
}
