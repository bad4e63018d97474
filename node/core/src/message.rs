use serde::{Deserialize, Serialize};
use sraft_events::{CampaignKind, Refusal};

use crate::{Designation, Entry, Index, Term};

/// The highest term that is taken from a peer. One election a nanosecond would need 146 years to
/// get there, so a higher one comes from broken memory; and whoever followed it to the end of the
/// numbers would have no term left to stand in.
pub(crate) const MAX_TERM: Term = 1 << 62;

/// The highest index that a snapshot may end at, for the same reason.
pub(crate) const MAX_INDEX: Index = 1 << 62;

/// What nodes say to one another. A message has no sender field: the transport vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Asks for a vote, or whether one would be given.
    RequestVote(RequestVote),
    /// Answers it.
    VoteReply(VoteReply),
    /// Replicates entries; empty, it is the heartbeat.
    AppendEntries(AppendEntries),
    /// Answers it.
    AppendReply(AppendReply),
    /// The leader of the term asks the receiver to take over at once (dissertation, 3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// A command that reached a follower.
    Forward {
        /// The command.
        #[serde(with = "serde_bytes")]
        command: Vec<u8>,
    },
    /// A piece of a snapshot.
    InstallSnapshot(InstallSnapshot),
    /// Answers it, until the snapshot is durable: that is told with an [`AppendReply`].
    InstallReply(InstallReply),
    /// A follower asks its leader from which index on a read would be linearizable (dissertation,
    /// 6.4).
    ReadIndex {
        /// Counts what the follower asks, and is never used again, not even by its next process.
        id: u64,
    },
    /// Answers it.
    ReadIndexReply {
        /// Repeats the request's.
        id: u64,
        /// Empty if the receiver of the request could not find out: it does not lead.
        index: Option<Index>,
    },
}

impl Message {
    /// The term that it would have the receiver take note of.
    pub(crate) fn term(&self) -> Term {
        match self {
            Message::RequestVote(request) => request.term,
            Message::VoteReply(reply) => reply.term,
            Message::AppendEntries(append) => append.term,
            Message::AppendReply(reply) => reply.term,
            Message::TimeoutNow { term } => *term,
            Message::InstallSnapshot(install) => install.term,
            Message::InstallReply(reply) => reply.term,
            Message::Forward { .. }
            | Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. } => 0,
        }
    }
}

/// A candidate's claim (Raft paper, figure 2). A promotion is no other message: it differs in who
/// stands, when, and in which term, and every voter treats it as Raft treats any candidate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestVote {
    /// The term the candidate stands in, or would stand in.
    pub term: Term,
    /// Whether it only asks if it could win (dissertation, 9.6).
    pub pre_vote: bool,
    /// The kind of campaign.
    pub campaign: CampaignKind,
    /// The candidate's rank, if this is a promotion.
    pub rank: Option<u32>,
    /// Index of the last *durable* entry of the candidate's log: it may come back from a crash
    /// with no more than that.
    pub last_index: Index,
    /// That entry's term.
    pub last_term: Term,
}

/// A voter's answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VoteReply {
    /// The voter's term.
    pub term: Term,
    /// The term that the request was for.
    pub for_term: Term,
    /// Whether the request was a pre-vote.
    pub pre_vote: bool,
    /// Empty if granted.
    pub refusal: Option<Refusal>,
}

/// Replication (Raft paper, figure 2), with the leader's designation on board.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// Counts the leader's messages to this follower; the answer repeats it.
    pub seq: u64,
    /// Index of the entry before the first one here.
    pub prev_index: Index,
    /// That entry's term.
    pub prev_term: Term,
    /// The entries, in order and without gaps.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: Index,
    /// Who is to replace the leader; empty while it has designated nobody.
    pub designation: Option<Designation>,
}

/// A follower's answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AppendReply {
    /// The follower's term; higher than the leader's if the leader is stale.
    pub term: Term,
    /// The term of the request. The same leader may have led before, and its messages of that time
    /// may still be answered: such an answer says nothing about the present.
    pub for_term: Term,
    /// Repeats the request's.
    pub seq: u64,
    /// Whether the logs fitted.
    pub result: Result<Appended, Conflict>,
}

/// The follower's log agrees with the leader's and is durable up to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Appended {
    /// Highest index known to agree *and* to be durable on the follower.
    pub match_index: Index,
}

/// The follower's log does not contain the entry before the new ones (Raft paper, end of 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Conflict {
    /// The `prev_index` that did not fit.
    pub prev_index: Index,
    /// The term of the follower's entry there; empty if its log is shorter.
    pub term: Option<Term>,
    /// First index of that term in the follower's log, or one past its end.
    pub first_index: Index,
}

/// A piece of a snapshot for a follower that lacks what the log has no more (Raft paper, figure 13).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// Counts the leader's messages to this follower, together with its [`AppendEntries`].
    pub seq: u64,
    /// The last log index that the snapshot covers.
    pub last_index: Index,
    /// That entry's term.
    pub last_term: Term,
    /// Size of the whole snapshot in bytes.
    pub size: u64,
    /// Where in it this piece belongs.
    pub offset: u64,
    /// The piece. An empty one asks how much has arrived.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// How much of a snapshot a follower has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstallReply {
    /// The follower's term; higher than the leader's if the leader is stale.
    pub term: Term,
    /// The term of the request.
    pub for_term: Term,
    /// Repeats the request's.
    pub seq: u64,
    /// Names the snapshot.
    pub last_index: Index,
    /// So many bytes from its beginning have arrived.
    pub received: u64,
}
