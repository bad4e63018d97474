//! The list of members, and which of them is this node.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr, ToSocketAddrs, UdpSocket},
    str::FromStr,
};

use sraft_core::NodeId;

/// Most members of a cluster: more would not be told from a mistake.
pub const MAX_MEMBERS: usize = 255;

/// A host, by name or by number, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Host name or IP address (IPv6 without brackets).
    pub host: String,
    /// Port, never 0.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port } = self;
        if host.parse::<Ipv6Addr>().is_ok() {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
        let port = match port.parse::<u16>() {
            Ok(port) if port != 0 => port,
            _ => return Err(format!("`{port}` is not a port from 1 to 65535")),
        };
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(inner)) if inner.parse::<Ipv6Addr>().is_ok() => inner,
            None => host,
            Some(_) => return Err(format!("`{host}` is not an IPv6 address in brackets")),
        };
        let name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        // Digits and dots alone are meant as a number, and a wrong number resolves to nothing.
        let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
        if host.is_empty() {
            return Err("it has no host".to_owned());
        } else if host.parse::<IpAddr>().is_err() && (numeric || !host.chars().all(name)) {
            return Err(format!("`{host}` is neither a host name nor an IP address"));
        }
        Ok(Address { host: host.to_owned(), port })
    }
}

/// Why a list of members is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeersError {
    /// There is none.
    #[error(
        "no peers: name every node with --peers HOST:PORT,HOST:PORT,... (or RAFT_PEERS, or `peers` in the configuration file)"
    )]
    Missing,
    /// An entry makes no sense.
    #[error("--peers: entry {place}, `{entry}`: {what}; write HOST:PORT or ID=HOST:PORT")]
    BadEntry {
        /// Its place, from 1.
        place: usize,
        /// The entry.
        entry: String,
        /// What is wrong.
        what: String,
    },
    /// Two entries are the same.
    #[error("--peers: {0} is listed twice; list every node once, or the quorum would be wrong")]
    Duplicate(String),
    /// Some entries have numbers and some have not.
    #[error("--peers: number all of the entries (1=HOST:PORT,2=HOST:PORT) or none of them")]
    HalfNumbered,
    /// Too many.
    #[error("--peers: {0} entries are more than {MAX_MEMBERS}")]
    TooMany(usize),
    /// The node's id is not in the list.
    #[error("--node-id {id} is not in the list of peers ({list}); {remedy}")]
    UnknownId {
        /// The id.
        id: NodeId,
        /// What is there.
        list: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It cannot be told which entry is this node.
    #[error("cannot tell which of the peers ({list}) is this node: {what}; say it with --node-id")]
    WhoAmI {
        /// What is there.
        list: String,
        /// Why not.
        what: String,
    },
    /// `--port` contradicts the list.
    #[error(
        "--port {port}, but node {id} is listed as {listed}; correct one of the two, or number the entries of --peers (1=HOST:PORT,...) and leave this node's own entry out"
    )]
    OtherPort {
        /// The port asked for.
        port: u16,
        /// The node.
        id: NodeId,
        /// Its entry.
        listed: Address,
    },
    /// The node is not in a numbered list and has no port.
    #[error(
        "node {0} is not among the peers and has no port of its own; add it to --peers or give --port"
    )]
    NoPort(NodeId),
}

/// Every member of the cluster as far as it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerList {
    entries: BTreeMap<NodeId, Address>,
    numbered: bool,
}

/// Which member this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// This node's id.
    pub id: NodeId,
    /// This node's own entry, if it is listed.
    pub own: Option<Address>,
    /// The port it listens on.
    pub port: u16,
    /// The other members.
    pub others: BTreeMap<NodeId, Address>,
}

impl PeerList {
    /// Reads a list. Entries are `HOST:PORT`, whose ids are their places counted from 1, or all of
    /// them `ID=HOST:PORT`.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse<'a>(list: impl IntoIterator<Item = &'a str>) -> Result<PeerList, PeersError> {
        let texts: Vec<&str> =
            list.into_iter().map(str::trim).filter(|text| !text.is_empty()).collect();
        if texts.is_empty() {
            return Err(PeersError::Missing);
        }
        if texts.len() > MAX_MEMBERS {
            return Err(PeersError::TooMany(texts.len()));
        }
        let numbered = texts.iter().filter(|text| text.contains('=')).count();
        if numbered != 0 && numbered != texts.len() {
            return Err(PeersError::HalfNumbered);
        }
        let mut entries: BTreeMap<NodeId, Address> = BTreeMap::new();
        for (position, text) in texts.iter().enumerate() {
            let place = position + 1;
            let wrong = |what| PeersError::BadEntry { place, entry: (*text).to_owned(), what };
            let (id, address) = match text.split_once('=') {
                None => (place as NodeId, *text),
                Some((id, address)) => match id.trim().parse() {
                    Ok(id) if id != 0 => (id, address.trim()),
                    _ => return Err(wrong(format!("`{id}` is not an id (1, 2, ...)"))),
                },
            };
            let address: Address = address.parse().map_err(wrong)?;
            if entries.values().any(|known| *known == address) {
                return Err(PeersError::Duplicate(address.to_string()));
            }
            if entries.insert(id, address).is_some() {
                return Err(PeersError::Duplicate(format!("node {id}")));
            }
        }
        Ok(PeerList { entries, numbered: numbered != 0 })
    }

    /// Finds out which entry is this node: the one of `node_id`, else the only one that has an
    /// address of this machine (`is_local`) and, if a port is given, that port.
    ///
    /// # Errors
    /// None or several come into question, or what was given contradicts the list.
    pub fn membership(
        &self,
        node_id: Option<NodeId>,
        port: Option<u16>,
        is_local: impl Fn(&str) -> bool,
    ) -> Result<Membership, PeersError> {
        let id = match node_id {
            Some(id) => id,
            None => self.find(port, is_local)?,
        };
        let mut others = self.entries.clone();
        let own = others.remove(&id);
        let port = match (&own, port) {
            (Some(own), None) => own.port,
            (Some(own), Some(port)) if own.port == port => port,
            (Some(listed), Some(port)) => {
                return Err(PeersError::OtherPort { port, id, listed: listed.clone() });
            }
            // In a list without numbers the places would shift, so a node that is not in it has
            // no place; and a list that silently left a node out would lower the quorum.
            (None, _) if !self.numbered => {
                let remedy = "ids are places in the list, counted from 1";
                return Err(PeersError::UnknownId { id, list: self.to_string(), remedy });
            }
            (None, _) if id == 0 => {
                let remedy = "ids count from 1";
                return Err(PeersError::UnknownId { id, list: self.to_string(), remedy });
            }
            (None, Some(port)) => port,
            (None, None) => return Err(PeersError::NoPort(id)),
        };
        Ok(Membership { id, own, port, others })
    }

    fn find(
        &self,
        port: Option<u16>,
        is_local: impl Fn(&str) -> bool,
    ) -> Result<NodeId, PeersError> {
        let mine: Vec<(NodeId, &Address)> = self
            .entries
            .iter()
            .filter(|(_, address)| port.is_none_or(|port| port == address.port))
            .filter(|(_, address)| is_local(&address.host))
            .map(|(id, address)| (*id, address))
            .collect();
        let what = match (mine.as_slice(), port) {
            ([(id, _)], _) => return Ok(*id),
            ([], Some(port)) => format!("none has port {port} and an address of this machine"),
            ([], None) => "none has an address of this machine".to_owned(),
            ([(_, one), (_, other), ..], _) => {
                format!("{one} and {other} are both addresses of this machine")
            }
        };
        Err(PeersError::WhoAmI { list: self.to_string(), what })
    }
}

impl fmt::Display for PeerList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (id, address)) in self.entries.iter().enumerate() {
            write!(f, "{}{id}={address}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Whether a host is this machine: whether a socket can be bound to one of its addresses.
pub fn is_local(host: &str) -> bool {
    (host, 0)
        .to_socket_addrs()
        .is_ok_and(|mut all| all.any(|address| UdpSocket::bind(address).is_ok()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> Result<PeerList, PeersError> {
        PeerList::parse(text.split(','))
    }

    fn local(host: &str) -> bool {
        host == "10.0.0.2" || host == "127.0.0.1"
    }

    #[test]
    fn a_list_that_contains_the_node_counts_it_once() {
        let peers = list("10.0.0.1:5000,10.0.0.2:5000, 10.0.0.3:5000").unwrap();
        let me = peers.membership(None, None, local).unwrap();
        assert_eq!((me.id, me.port), (2, 5000));
        assert_eq!(me.others.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(peers.membership(Some(3), None, local).unwrap().id, 3);
    }

    #[test]
    fn nodes_of_one_machine_are_told_apart_by_their_ports() {
        let peers = list("127.0.0.1:5001,127.0.0.1:5002").unwrap();
        assert_eq!(peers.membership(None, Some(5002), local).unwrap().id, 2);
        let error = peers.membership(None, None, local).unwrap_err();
        assert!(error.to_string().contains("--node-id"), "{error}");
        let error = peers.membership(None, Some(5003), local).unwrap_err();
        assert!(error.to_string().contains("5003"), "{error}");
        let error = peers.membership(Some(1), Some(5002), local).unwrap_err();
        assert!(matches!(error, PeersError::OtherPort { .. }), "{error}");
    }

    #[test]
    fn a_numbered_list_may_leave_the_node_out() {
        let peers = list("1=a:1,3=c:3").unwrap();
        let me = peers.membership(Some(2), Some(7), local).unwrap();
        assert_eq!((me.id, me.own, me.port, me.others.len()), (2, None, 7, 2));
        assert_eq!(peers.membership(Some(2), None, local), Err(PeersError::NoPort(2)));
        let plain = list("a:1,c:3").unwrap();
        let error = plain.membership(Some(3), Some(7), local).unwrap_err();
        assert!(matches!(error, PeersError::UnknownId { id: 3, .. }), "{error}");
    }

    #[test]
    fn bad_lists_are_refused_with_the_entry() {
        let cases = [
            ("", "no peers"),
            ("a:1,b", "`b`: it has no port"),
            ("a:1,b:0", "`0` is not a port"),
            ("a:1,b:65536", "`65536` is not a port"),
            ("a:1,b:x", "`x` is not a port"),
            (":5000", "it has no host"),
            ("300.1.1.1:5000", "neither a host name nor an IP address"),
            ("a b:5000", "neither a host name nor an IP address"),
            ("[::1:5000", "not an IPv6 address in brackets"),
            ("a:1,b:2,a:1", "a:1 is listed twice"),
            ("1=a:1,1=b:2", "node 1 is listed twice"),
            ("1=a:1,b:2", "number all"),
            ("0=a:1", "`0` is not an id"),
        ];
        for (text, part) in cases {
            let error = list(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains('\n'));
        }
        assert!(list("[::1]:5000,example.org:1").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_an_error(text in ".{0,60}") {
            if let Ok(peers) = list(&text) {
                prop_assert_eq!(list(&peers.to_string()).unwrap().entries, peers.entries);
            }
        }
    }
}
