//! The text of a table.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use crate::protocol::{Effect, Flow, Hook};

/// What the queues of [`super::delay`] know delayed packets by.
pub(super) const MARK: u32 = 0x5afd;

/// Longest lease, so that the text stays within what `nft` takes for a time.
const LONGEST_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Which packets a set of addresses belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    hook: Hook,
    v6: bool,
    /// On connections that the receiver has dialled, where the sender's port is the known one.
    answers: bool,
}

impl Place {
    fn set(self) -> String {
        let hook = if self.hook == Hook::In { "in" } else { "out" };
        let family = if self.v6 { "6" } else { "4" };
        format!("{hook}{family}_{}", if self.answers { "answers" } else { "messages" })
    }
}

/// The table as `nft -f` takes it.
///
/// Its chains come before all others (priority raw, and before connection tracking), so that what
/// other rules would do to these packets makes no difference; whatever is not meant goes on to
/// them.
pub(super) fn text(
    name: &str,
    flows: &[Flow],
    effect: Effect,
    lease: Duration,
) -> Result<String, String> {
    if flows.is_empty() {
        return Err("there are no flows to act on".to_owned());
    }
    if lease.is_zero() || lease > LONGEST_LEASE {
        return Err(format!(
            "a lease of {lease:?} makes no sense; it has to end, within {LONGEST_LEASE:?}"
        ));
    }
    let verdict = match effect {
        Effect::Drop => "drop".to_owned(),
        Effect::Loss { per_mille } if (1..1000).contains(&per_mille) => {
            format!("numgen random mod 1000 < {per_mille} drop")
        }
        Effect::Loss { per_mille } => {
            return Err(format!(
                "{per_mille} in a thousand cannot be lost by lot; from 1 to 999 can"
            ));
        }
        Effect::Delay { .. } => format!("meta mark set {MARK:#x}"),
    };
    let mut sets: BTreeMap<Place, Vec<String>> = BTreeMap::new();
    for flow in flows {
        let Flow { from, to, hook, answers } = *flow;
        if from.is_ipv4() != to.is_ipv4() {
            return Err(format!("nothing travels from {from} to {to}: the families differ"));
        }
        if from.ip() == to.ip() {
            return Err(format!(
                "{from} and {to} share an address, so rules cannot tell the nodes apart; give each \
                 node an address of its own"
            ));
        }
        if hook == Hook::In && matches!(effect, Effect::Delay { .. }) {
            return Err("packets can only be held back where they leave".to_owned());
        }
        let place = Place { hook, v6: from.is_ipv6(), answers: false };
        let element = |port: u16| format!("{} . {} . {port}", from.ip(), to.ip());
        sets.entry(place).or_default().push(element(to.port()));
        if answers {
            sets.entry(Place { answers: true, ..place }).or_default().push(element(from.port()));
        }
    }
    let mut text = format!("table inet {name} {{\n");
    let lease = lease.as_millis();
    for (place, elements) in &sets {
        let (set, kind) = (place.set(), if place.v6 { "ipv6_addr" } else { "ipv4_addr" });
        let elements = elements.join(", ");
        let _ = writeln!(
            text,
            "  set {set} {{ type {kind} . {kind} . inet_service; flags timeout; timeout \
             {lease}ms; elements = {{ {elements} }}; }}"
        );
    }
    for (hook, chain) in [(Hook::In, "input"), (Hook::Out, "output")] {
        let places: Vec<&Place> = sets.keys().filter(|place| place.hook == hook).collect();
        if places.is_empty() {
            continue;
        }
        let _ = writeln!(text, "  chain {chain} {{");
        let _ = writeln!(text, "    type filter hook {chain} priority -300; policy accept;");
        for place in places {
            let family = if place.v6 { "ip6" } else { "ip" };
            let port = if place.answers { "sport" } else { "dport" };
            let set = place.set();
            let _ =
                writeln!(text, "    {family} saddr . {family} daddr . tcp {port} @{set} {verdict}");
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    Ok(text)
}

/// A table with everything that may be asked for.
pub(super) fn trial() -> String {
    let at = |last| (IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 5000).into();
    let flow = |hook| Flow { from: at(1), to: at(2), hook, answers: true };
    let flows = [flow(Hook::In), flow(Hook::Out)];
    text("sraft_trial", &flows, Effect::Loss { per_mille: 1 }, Duration::from_secs(1))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(from: &str, to: &str, hook: Hook, answers: bool) -> Flow {
        Flow { from: from.parse().unwrap(), to: to.parse().unwrap(), hook, answers }
    }

    fn written(flows: &[Flow], effect: Effect) -> String {
        text("t", flows, effect, Duration::from_millis(12_500)).unwrap_or_else(|why| why)
    }

    #[test]
    fn a_cut_both_ways_names_every_packet_between_two_nodes() {
        let flows = [
            flow("10.88.0.11:5000", "10.88.0.12:5001", Hook::Out, true),
            flow("10.88.0.12:5001", "10.88.0.11:5000", Hook::In, true),
            flow("[fd00::1]:5000", "[fd00::2]:5001", Hook::Out, false),
        ];
        assert_eq!(
            written(&flows, Effect::Drop),
            "table inet t {\n  \
               set in4_messages { type ipv4_addr . ipv4_addr . inet_service; flags timeout; timeout 12500ms; elements = { 10.88.0.12 . 10.88.0.11 . 5000 }; }\n  \
               set in4_answers { type ipv4_addr . ipv4_addr . inet_service; flags timeout; timeout 12500ms; elements = { 10.88.0.12 . 10.88.0.11 . 5001 }; }\n  \
               set out4_messages { type ipv4_addr . ipv4_addr . inet_service; flags timeout; timeout 12500ms; elements = { 10.88.0.11 . 10.88.0.12 . 5001 }; }\n  \
               set out4_answers { type ipv4_addr . ipv4_addr . inet_service; flags timeout; timeout 12500ms; elements = { 10.88.0.11 . 10.88.0.12 . 5000 }; }\n  \
               set out6_messages { type ipv6_addr . ipv6_addr . inet_service; flags timeout; timeout 12500ms; elements = { fd00::1 . fd00::2 . 5001 }; }\n  \
               chain input {\n    \
                 type filter hook input priority -300; policy accept;\n    \
                 ip saddr . ip daddr . tcp dport @in4_messages drop\n    \
                 ip saddr . ip daddr . tcp sport @in4_answers drop\n  \
               }\n  \
               chain output {\n    \
                 type filter hook output priority -300; policy accept;\n    \
                 ip saddr . ip daddr . tcp dport @out4_messages drop\n    \
                 ip saddr . ip daddr . tcp sport @out4_answers drop\n    \
                 ip6 saddr . ip6 daddr . tcp dport @out6_messages drop\n  \
               }\n}\n"
        );
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let here = "127.0.0.1:5000";
        assert!(written(&[], Effect::Drop).contains("no flows"));
        let shared = flow(here, "127.0.0.1:5001", Hook::In, true);
        assert!(written(&[shared], Effect::Drop).contains("share an address"));
        let mixed = flow(here, "[::1]:5001", Hook::In, true);
        assert!(written(&[mixed], Effect::Drop).contains("families"));
        let good = flow(here, "127.0.0.2:5001", Hook::In, true);
        assert!(written(&[good], Effect::Loss { per_mille: 0 }).contains("cannot be lost by lot"));
        assert!(written(&[good], Effect::Loss { per_mille: 250 }).contains("mod 1000 < 250 drop"));
        let delay = Effect::Delay { delay_us: 1, jitter_us: 0 };
        assert!(written(&[good], delay).contains("where they leave"));
        assert!(text("t", &[good], Effect::Drop, Duration::ZERO).is_err());
    }
}
