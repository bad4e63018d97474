use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Index, NodeId, Term};

/// What happened. In JSON the variant's name stands in the field `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    // ---- a node's life -------------------------------------------------------------------
    /// A node has restored its durable state and is about to listen.
    NodeStarted {
        /// The node.
        node: NodeId,
        /// Version of this schema.
        schema: u32,
        /// Version of the program.
        version: String,
        /// Name of the cluster it belongs to.
        cluster: String,
        /// Drawn anew by every process, so that a restarted node is told from a paused one.
        boot_id: u64,
        /// The process id.
        pid: u32,
        /// Every member of the cluster, this node included.
        members: Vec<NodeId>,
        /// Sub-leaders that a leader of this cluster designates; 0 is original Raft.
        sub_leaders: u32,
        /// The durable term.
        term: Term,
        /// The last durable log index.
        last_index: Index,
    },
    /// A node ends of its own will.
    NodeStopped {
        /// Why, for a human.
        reason: String,
    },

    // ---- connections ---------------------------------------------------------------------
    /// The connection to a peer stands and its handshake was accepted.
    PeerConnected {
        /// The peer.
        peer: NodeId,
        /// The peer's boot id.
        boot_id: u64,
    },
    /// A connection to a peer was lost, or its process was found dead.
    PeerLost {
        /// The peer.
        peer: NodeId,
        /// What is known about the loss.
        cause: LossCause,
    },
    /// A lost connection turned out to be only that: the same process answered again.
    FalseAlarm {
        /// The peer.
        peer: NodeId,
    },
    /// A connection was refused in the handshake, by us or by the other side.
    ConnectionRefused {
        /// The other side's address.
        remote: String,
        /// Why, for a human.
        reason: String,
    },

    // ---- suspicion, campaigns, votes -----------------------------------------------------
    /// The node holds the leader for gone.
    Suspected {
        /// The leader it followed, if it knew one.
        leader: Option<NodeId>,
        /// The node's term.
        term: Term,
        /// Why.
        evidence: Evidence,
    },
    /// The node asks whether it could win, without touching its term (dissertation, 9.6).
    PreVoteStarted {
        /// The term it would stand in.
        term: Term,
        /// The campaign that would follow.
        campaign: CampaignKind,
        /// Its rank, if it is a sub-leader that would promote itself.
        rank: Option<u32>,
    },
    /// The node stands: it has taken the term and asks for votes.
    CampaignStarted {
        /// The term.
        term: Term,
        /// The kind of campaign.
        campaign: CampaignKind,
        /// The rank of the promotion.
        rank: Option<u32>,
        /// What made it stand.
        evidence: Evidence,
    },
    /// The node answered a vote request (a pre-vote's is not recorded).
    VoteCast {
        /// Who asked.
        candidate: NodeId,
        /// For which term.
        term: Term,
        /// For which kind of campaign.
        campaign: CampaignKind,
        /// Empty if the vote was granted, else why not.
        refusal: Option<Refusal>,
    },
    /// An answer to a vote request has arrived (a pre-vote's only if it is a refusal).
    VoteReceived {
        /// Who answered.
        voter: NodeId,
        /// For which term.
        term: Term,
        /// Whether it was only a pre-vote.
        pre_vote: bool,
        /// Empty if the vote was granted, else why not.
        refusal: Option<Refusal>,
    },
    /// A campaign (pre-vote included) ended without this node becoming leader.
    CampaignFailed {
        /// The term it stood or would have stood in.
        term: Term,
        /// The kind of campaign.
        campaign: CampaignKind,
        /// Whether it did not get beyond the pre-vote.
        pre_vote: bool,
        /// How it ended.
        outcome: CampaignOutcome,
    },
    /// The node has its majority and is leader.
    Elected {
        /// The term.
        term: Term,
        /// How it got there.
        campaign: CampaignKind,
        /// The rank of the promotion.
        rank: Option<u32>,
        /// Votes counted, its own included.
        votes: u32,
    },
    /// The leader's no-op has committed: it serves.
    Ready {
        /// The term.
        term: Term,
        /// The no-op's index.
        index: Index,
    },
    /// A node has accepted the first AppendEntries of a leader in a term.
    LeaderAccepted {
        /// The leader.
        leader: NodeId,
        /// The term.
        term: Term,
    },
    /// A leader is leader no more.
    SteppedDown {
        /// The term it led.
        term: Term,
        /// Why.
        reason: StepDownReason,
    },

    // ---- designation and replication, as the leader sees them ----------------------------
    /// The leader has named sub-leaders.
    Designated {
        /// The leader's term.
        term: Term,
        /// Counts the designations of one term from 1.
        epoch: u64,
        /// The sub-leaders, Primary first.
        ranks: Vec<NodeId>,
        /// What made it designate.
        reason: DesignationReason,
    },
    /// A follower has learned its rank, or that it has none.
    RankChanged {
        /// The leader that granted it.
        leader: NodeId,
        /// That leader's term.
        term: Term,
        /// The designation's epoch.
        epoch: u64,
        /// 0 is the Primary; empty is none.
        rank: Option<u32>,
    },
    /// A follower is connected and holds all that the leader has committed.
    FollowerSynced {
        /// The follower.
        peer: NodeId,
        /// The leader's term.
        term: Term,
        /// The index up to which its log is known to be durable.
        match_index: Index,
    },
    /// A follower that was synced is not any more.
    FollowerLost {
        /// The follower.
        peer: NodeId,
        /// The leader's term.
        term: Term,
        /// Whether its connection is gone (else it just does not answer).
        disconnected: bool,
    },
    /// A leader has asked another node to take over.
    HandoverStarted {
        /// That node.
        to: NodeId,
        /// The term of the leader that hands over.
        term: Term,
    },

    // ---- snapshots -----------------------------------------------------------------------
    /// A snapshot of the node's own state machine is durable, and its log has been cut.
    SnapshotTaken {
        /// The last log index that it covers.
        index: Index,
        /// Its size.
        bytes: u64,
    },
    /// A leader has begun to send a follower a snapshot: the log that it lacks is no more.
    SnapshotSent {
        /// The follower.
        peer: NodeId,
        /// The last log index that the snapshot covers.
        index: Index,
    },
    /// A follower has got a snapshot from its leader and put it in the place of its state and its
    /// log.
    SnapshotInstalled {
        /// The last log index that it covers.
        index: Index,
        /// That entry's term.
        term: Term,
        /// Its size.
        bytes: u64,
    },

    // ---- what the agent does -------------------------------------------------------------
    /// The agent has started a node's process.
    ProcessStarted {
        /// The node.
        node: NodeId,
        /// Its process id.
        pid: u32,
    },
    /// The agent is about to act on a node: stamped just before the signal is sent, or whatever else
    /// is done.
    FaultApplied {
        /// The node.
        node: NodeId,
        /// Its process id.
        pid: u32,
        /// What is done to it.
        action: FaultAction,
    },
    /// What the last `fault_applied` of these nodes announced has been done: between that stamp
    /// and this one the links of a node were cut, or mended, its disk slowed down or filled. Signals
    /// need no such record: they are sent in less time than it takes to read the clock twice.
    FaultInForce {
        /// The nodes.
        nodes: Vec<NodeId>,
        /// What was done.
        action: FaultAction,
    },
    /// The agent has seen a process end (its pidfd became readable).
    ProcessExited {
        /// The node.
        node: NodeId,
        /// Its process id.
        pid: u32,
        /// Its exit code, if it exited.
        code: Option<i32>,
        /// The signal that ended it, if one did.
        signal: Option<i32>,
    },

    /// A host that was reset is up again, and its agent has been replaced. Everything on it had ended
    /// when the fault struck, and its monotonic clock has begun anew.
    HostRebooted {
        /// The host.
        host: String,
        /// The nodes that run there.
        nodes: Vec<NodeId>,
        /// What it is up by now.
        boot: Boot,
    },

    // ---- what the harness does -----------------------------------------------------------
    /// A run begins, or goes on after `--resume`.
    RunStarted {
        /// Version of this schema.
        schema: u32,
        /// Name of the experiment.
        experiment: String,
        /// Whether it goes on where an earlier process stopped.
        resumed: bool,
    },
    /// A fresh cluster has been started for a block of trials.
    ClusterStarted {
        /// The matrix cell, empty without a matrix.
        cell: String,
        /// The variant.
        variant: String,
        /// The block.
        block: u32,
        /// Number of nodes.
        size: u32,
    },
    /// A trial begins: the cluster is settled.
    TrialStarted {
        /// The trial's number in the plan, from 1; 0 for a warm-up.
        trial: u64,
        /// Whether its figures are to be left out of everything.
        warmup: bool,
        /// The matrix cell, empty without a matrix.
        cell: String,
        /// The variant.
        variant: String,
        /// The block.
        block: u32,
        /// The fault's kind as in the experiment.
        fault: String,
        /// The fault's target as in the experiment.
        target: String,
        /// The leader when the trial began.
        leader: NodeId,
        /// Its term.
        term: Term,
        /// Its sub-leaders, Primary first.
        ranks: Vec<NodeId>,
        /// The nodes that the fault strikes.
        victims: Vec<NodeId>,
    },
    /// A trial has ended.
    TrialEnded {
        /// The trial's number in the plan, from 1; 0 for a warm-up.
        trial: u64,
        /// What the harness says of it (it never says `inconsistent`: measuring does).
        verdict: Verdict,
        /// Why it is not `ok`.
        reason: Option<String>,
        /// The record by which the cluster was whole again, on the reference host's clock,
        /// nanoseconds.
        restored_mono_ns: Option<u64>,
        /// Messages that all nodes sent from the fault until the new leader was ready; only where
        /// somebody counts them, as the simulator does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        messages: Option<u64>,
    },
    /// The clock of a host has been compared with that of the reference: the first host that the
    /// trial's fault does not reboot. Every trial that runs on more than this machine has one such
    /// record for each host soon after its start and shortly before its end.
    ClockMeasured {
        /// The host; `harness` is where the harness runs.
        host: String,
        /// The nodes that run there, and so read the same clock.
        nodes: Vec<NodeId>,
        /// What is to be added to the host's `CLOCK_MONOTONIC` to have the reference's,
        /// nanoseconds.
        offset_ns: i64,
        /// How far from it the true offset can be, nanoseconds.
        bound_ns: u64,
        /// The least round trip of the comparison, nanoseconds.
        rtt_ns: u64,
        /// The boot of the host whose clock it was: the next one counts from zero again. Empty for
        /// `harness`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot: Option<Boot>,
    },
    /// The cluster of a block has been stopped.
    ClusterStopped {},
}

/// From one start of a host's kernel to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// What Linux calls it: `/proc/sys/kernel/random/boot_id`.
    pub id: String,
    /// What the wall clock showed when the monotonic clock began, nanoseconds since 1970. Every
    /// record has stamps of both, so it can be told in which boot it was written.
    pub zero_wall_ns: u64,
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vmeta])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word that stands for it in records and tables.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// What is known about a lost peer.
    LossCause {
        /// The connection closed; whether the process died is not known yet.
        Closed = "closed",
        /// The peer's host refused a new connection: nothing listens there any more.
        Refused = "refused",
        /// Another process answered in the peer's place: the one we knew is dead.
        OtherBoot = "other_boot",
    }
}

words! {
    /// Why a node holds the leader for gone.
    Evidence {
        /// Nothing was heard for the node's timeout.
        Silence = "silence",
        /// The leader's process was found dead after its connection closed.
        Connection = "connection",
        /// The leader asked the node to take over.
        Handover = "handover",
    }
}

words! {
    /// The kinds of campaign by which leadership passes.
    CampaignKind {
        /// An ordinary election.
        Election = "election",
        /// A sub-leader takes over.
        Promotion = "promotion",
        /// The old leader handed over.
        Transfer = "handover",
    }
}

words! {
    /// How a campaign ended that was not won.
    CampaignOutcome {
        /// A majority refused.
        Refused = "refused",
        /// No majority had answered in time.
        TimedOut = "timed_out",
        /// Another leader, or a higher term, came first.
        Superseded = "superseded",
    }
}

words! {
    /// Why a vote was refused.
    Refusal {
        /// The voter knows a higher term.
        StaleTerm = "stale_term",
        /// The voter has given its vote of that term to another.
        AlreadyVoted = "already_voted",
        /// The candidate's log is behind the voter's.
        LogBehind = "log_behind",
        /// The voter hears a leader that lives.
        LeaderAlive = "leader_alive",
    }
}

words! {
    /// Why a leader stepped down.
    StepDownReason {
        /// It has learned of a higher term.
        HigherTerm = "higher_term",
        /// No majority had acknowledged for the lease.
        NoQuorum = "no_quorum",
    }
}

words! {
    /// What made a leader designate.
    DesignationReason {
        /// The first of its term.
        First = "first",
        /// A sub-leader was lost.
        Lost = "lost",
        /// A follower came (back) while ranks were free.
        Free = "free",
        /// A challenger had been clearly nearer for long enough.
        Nearer = "nearer",
    }
}

words! {
    /// What an agent does to a node.
    FaultAction {
        /// SIGKILL.
        Kill = "kill",
        /// SIGTERM: a leader hands over.
        Stop = "stop",
        /// SIGSTOP.
        Pause = "pause",
        /// SIGCONT.
        Resume = "resume",
        /// Every message to it, from it, or both, is lost.
        Isolate = "isolate",
        /// It is parted from a majority, alone or with others.
        Partition = "partition",
        /// Some of its links are cut, but a majority is left to it.
        Link = "link",
        /// A share of its packets is lost.
        Loss = "loss",
        /// Its packets are held back.
        Delay = "delay",
        /// Its writes are few in a second.
        SlowDisk = "slow-disk",
        /// There is no room left on its disk: it stops at the next write that needs some.
        DiskFull = "disk-full",
        /// Its host is reset at once, without a shutdown, as a failure of power would.
        Reboot = "reboot",
        /// Its links, or its disk, are as they were.
        Heal = "heal",
    }
}

impl FaultAction {
    /// Whether it ends what another action began.
    pub fn undoes(self) -> bool {
        matches!(self, FaultAction::Resume | FaultAction::Heal)
    }

    /// Whether it takes the node away from the cluster, so that a leader has to be replaced. What
    /// only troubles a node does not call for another leader: if there is one all the same, the
    /// change is spurious.
    pub fn severs(self) -> bool {
        match self {
            FaultAction::Kill
            | FaultAction::Stop
            | FaultAction::Pause
            | FaultAction::Isolate
            | FaultAction::Partition
            | FaultAction::DiskFull
            | FaultAction::Reboot => true,
            FaultAction::Resume
            | FaultAction::Link
            | FaultAction::Loss
            | FaultAction::Delay
            | FaultAction::SlowDisk
            | FaultAction::Heal => false,
        }
    }
}

words! {
    /// What is to be thought of a trial.
    Verdict {
        /// Everything was observed.
        Ok = "ok",
        /// The trial's time-out came first: it took at least that long.
        Censored = "censored",
        /// Its witnesses contradict one another.
        Inconsistent = "inconsistent",
        /// It is not a trial of what was asked (the leader changed before the fault, ...).
        Invalid = "invalid",
    }
}
