//! etcd, from PATH: the best-known implementation of Raft, as a peer to be measured by the same
//! agent, faults and probe.
//!
//! * Timing: `--heartbeat-interval` and `--election-timeout` in whole milliseconds. etcd counts time
//!   in ticks of one heartbeat and draws every timeout from T up to, but without, 2 T, in whole
//!   ticks; so only such a range can be asked for.
//! * It notices a dead leader by silence only, whatever the detector says.
//! * It has no sub-leaders. Told to stop (SIGTERM), its leader hands over.
//! * Its log tells who stands and who wins, to the millisecond, but neither when a leader's first
//!   entry has committed nor which follower has caught up.

mod log;

use std::time::Duration;

use sraft_agent::protocol::{Call, LogFormat};
use sraft_core::{Detector, Protocol, Span, Timing};
use sraft_events::NodeId;
use sraft_report::results::LogFacts;

use super::{Membership, Reader, Start, System, Unfit, in_path};
use crate::plan::Launch;

const PROGRAM: &str = "etcd";
const LOG: &str = "etcd.log";

/// Its heartbeats per election timeout, at least: it refuses to start otherwise.
const LEAST_HEARTBEATS: u32 = 5;

/// Its longest election timeout, likewise.
const LONGEST: Duration = Duration::from_secs(50);

/// The system itself.
#[derive(Debug)]
pub(super) struct Etcd;

impl System for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn start(&self, launch: &Launch, membership: &Membership, node: NodeId, start: Start) -> Call {
        let own = &membership.nodes[node as usize - 1];
        let peers: Vec<String> = (1..)
            .zip(&membership.nodes)
            .map(|(node, at)| format!("{}=http://{}:{}", member(node), at.host, at.peer))
            .collect();
        let peer = format!("http://{}:{}", own.host, own.peer);
        let client = format!("http://{}:{}", own.host, own.client);
        let millis = |time: Duration| time.as_millis().to_string();
        let options = [
            ("name", member(node)),
            ("data-dir", "{dir}/data".to_owned()),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client),
            ("initial-cluster", peers.join(",")),
            ("initial-cluster-token", membership.cluster.clone()),
            ("initial-cluster-state", "new".to_owned()),
            ("heartbeat-interval", millis(launch.timing.heartbeat)),
            ("election-timeout", millis(launch.timing.election_timeout.min)),
            ("pre-vote", launch.timing.pre_vote.to_string()),
            ("logger", "zap".to_owned()),
            ("log-outputs", format!("{{dir}}/{LOG}")),
        ];
        // By way of this program, which ties it to the agent: etcd would outlive it.
        let tied = ["exec", "--die-with-parent", "{agent_pid}", "--", PROGRAM].map(str::to_owned);
        let options = options.into_iter().map(|(name, value)| format!("--{name}={value}"));
        Call::Start {
            node,
            program: None,
            args: tied.into_iter().chain(options).collect(),
            files: Vec::new(),
            fresh: start.fresh,
            log_file: LOG.to_owned(),
            log_format: LogFormat::Text,
            disk: launch.fault.disk(),
        }
    }

    fn fit(&self, timing: &mut Timing, _protocol: Protocol, _size: u32) -> Result<u32, Unfit> {
        let (heartbeat, timeout) = (timing.heartbeat, timing.election_timeout);
        let unfit = |knob, message| Err(Unfit { knob, message });
        let whole =
            |time: Duration| !time.is_zero() && time.subsec_nanos().is_multiple_of(1_000_000);
        if !whole(heartbeat) {
            let message = format!(
                "heartbeat is {}, and etcd knows whole milliseconds only; write 100ms, say",
                Span(heartbeat)
            );
            return unfit("heartbeat", message);
        }
        if timeout.max != timeout.min * 2 || !whole(timeout.min) {
            let least = Span(timeout.min.max(heartbeat * LEAST_HEARTBEATS));
            let message = format!(
                "election_timeout is {timeout}, and etcd always draws from some whole \
                 milliseconds to twice as many; write {least}-{}, say",
                Span(least.0 * 2)
            );
            return unfit("election_timeout", message);
        }
        if timeout.min < heartbeat * LEAST_HEARTBEATS || timeout.min > LONGEST {
            let message = format!(
                "election_timeout is {timeout} with heartbeats of {}: etcd wants \
                 {LEAST_HEARTBEATS} heartbeats at least and {} at most; raise election_timeout or \
                 lower heartbeat",
                Span(heartbeat),
                Span(LONGEST)
            );
            return unfit("election_timeout", message);
        }
        if !timeout.min.as_millis().is_multiple_of(heartbeat.as_millis()) {
            let message = format!(
                "election_timeout is {timeout}, but etcd counts in heartbeats of {}, so it would \
                 wait for less; write a multiple",
                Span(heartbeat)
            );
            return unfit("election_timeout", message);
        }
        timing.detector = Detector::Silence;
        timing.handover = true;
        Ok(0)
    }

    fn knobs(&self) -> &'static [&'static str] {
        &["heartbeat", "election_timeout", "pre_vote"]
    }

    fn only(&self) -> Option<Protocol> {
        Some(Protocol::Raft)
    }

    fn settings(&self, launch: &Launch) -> serde_json::Value {
        let timing = &launch.timing;
        serde_json::json!({
            "system": self.name(),
            "timing": {
                "heartbeat": Span(timing.heartbeat),
                "election_timeout": timing.election_timeout,
                "pre_vote": timing.pre_vote,
            },
        })
    }

    fn log(&self) -> LogFacts {
        LogFacts { bound_us: log::BOUND_NS as f64 / 1e3, ready: false }
    }

    fn reader(&self, membership: &Membership) -> Option<Box<dyn Reader>> {
        Some(Box::new(log::Log::new(membership)))
    }

    fn installed(&self) -> Result<(), String> {
        match in_path(PROGRAM) {
            true => Ok(()),
            false => Err(format!(
                "there is no `{PROGRAM}` in PATH; install it (Debian and Ubuntu: apt-get install \
                 etcd-server; else https://etcd.io/docs/latest/install), or take the variants with \
                 system = \"etcd\" out of the experiment"
            )),
        }
    }
}

/// What a node is called among etcd's members.
fn member(node: NodeId) -> String {
    format!("node-{node}")
}

#[cfg(test)]
mod tests {
    use sraft_core::TimeoutRange;

    use super::*;

    fn fitted(heartbeat: u64, min: u64, max: u64) -> Result<Timing, Unfit> {
        let mut timing = Timing::preset(sraft_core::Preset::Lan);
        timing.heartbeat = Duration::from_millis(heartbeat);
        timing.election_timeout = TimeoutRange::millis(min, max);
        Etcd.fit(&mut timing, Protocol::Raft, 3).map(|_| timing)
    }

    #[test]
    fn timing_that_etcd_cannot_keep_is_refused_with_what_it_can() {
        assert_eq!(fitted(100, 1000, 2000).unwrap().detector, Detector::Silence);
        let mut said = String::new();
        for (heartbeat, min, max) in [
            (100, 300, 1000),
            (100, 1000, 1000),
            (100, 400, 800),
            (0, 1000, 2000),
            (300, 2000, 4000),
        ] {
            let unfit = fitted(heartbeat, min, max).unwrap_err();
            said += &format!("{}: {}\n", unfit.knob, unfit.message);
        }
        insta::assert_snapshot!(said, @r"
        election_timeout: election_timeout is 300ms-1s, and etcd always draws from some whole milliseconds to twice as many; write 500ms-1s, say
        election_timeout: election_timeout is 1s, and etcd always draws from some whole milliseconds to twice as many; write 1s-2s, say
        election_timeout: election_timeout is 400ms-800ms with heartbeats of 100ms: etcd wants 5 heartbeats at least and 50s at most; raise election_timeout or lower heartbeat
        heartbeat: heartbeat is 0s, and etcd knows whole milliseconds only; write 100ms, say
        election_timeout: election_timeout is 2s-4s, but etcd counts in heartbeats of 300ms, so it would wait for less; write a multiple
        ");
    }
}
