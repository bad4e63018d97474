//! The configuration of a node that stays up.

use serde::Serialize;
use sraft_core::{NodeId, Preset, Protocol, TimingKnobs};

use crate::inventory::Host;

/// What all nodes have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cluster<'a> {
    pub(super) name: &'a str,
    pub(super) protocol: Protocol,
    pub(super) preset: Preset,
    pub(super) hosts: &'a [Host],
}

#[derive(Serialize)]
struct Node<'a> {
    cluster: &'a str,
    protocol: Protocol,
    node_id: NodeId,
    peers: Vec<String>,
    client_port: u16,
    admin_port: u16,
    timing: TimingKnobs,
}

impl Cluster<'_> {
    /// The configuration file of the node on a host.
    pub(super) fn of(&self, host: &Host) -> String {
        let peers = self.hosts.iter().map(|host| match host.addr.contains(':') {
            true => format!("{}=[{}]:{}", host.node, host.addr, host.port),
            false => format!("{}={}:{}", host.node, host.addr, host.port),
        });
        let node = Node {
            cluster: self.name,
            protocol: self.protocol,
            node_id: host.node,
            peers: peers.collect(),
            client_port: host.client_port,
            admin_port: host.admin_port(),
            timing: TimingKnobs { preset: Some(self.preset), ..TimingKnobs::default() },
        };
        toml::to_string(&node).expect("plain data can be written as TOML")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::inventory::Inventory;

    #[test]
    fn a_node_gets_everybodys_addresses_and_its_own_ports() {
        let text = "[[host]]\nssh = \"10.0.0.1\"\n[[host]]\nssh = \"b\"\naddr = \"fd00::2\"\nclient_port = 2379\n";
        let inventory = Inventory::parse(Path::new("hosts.toml"), text).unwrap();
        let cluster = Cluster {
            name: "lab",
            protocol: Protocol::Raft,
            preset: Preset::Lan,
            hosts: &inventory.hosts,
        };
        insta::assert_snapshot!(cluster.of(&inventory.hosts[1]), @r#"
        cluster = "lab"
        protocol = "raft"
        node_id = 2
        peers = ["1=10.0.0.1:5000", "2=[fd00::2]:5000"]
        client_port = 2379
        admin_port = 2380

        [timing]
        preset = "lan"
        "#);
    }
}
