//! What a node says of itself over its admin port, asked on its own host.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sraft_events::NodeId;

use super::{
    NodeState,
    place::{CONFIG, Place},
};

/// How long the answer may take: the node itself gives up after three seconds.
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);

/// Longest answer, in bytes.
const LONGEST: u64 = 1 << 20;

/// The parts of a node's /status that are shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// Name of its cluster.
    pub(crate) cluster: String,
    /// `leader`, `follower`, ...
    pub(crate) role: String,
    /// Its rank among the sub-leaders, if it is one.
    pub(crate) rank: Option<u32>,
    /// Whether it leads and may serve.
    pub(crate) ready: bool,
    /// Whether it is stopping.
    pub(crate) stopping: bool,
    /// Its term.
    pub(crate) term: u64,
    /// The leader that it knows.
    pub(crate) leader: Option<NodeId>,
    /// Its commit index.
    pub(crate) commit_index: u64,
    /// Time since it started, seconds.
    pub(crate) uptime_seconds: f64,
    /// The other nodes.
    pub(crate) peers: Vec<Peer>,
}

/// Another node, as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Its id.
    pub(crate) id: NodeId,
    /// Whether there is a connection.
    pub(crate) connected: bool,
}

/// How the node of a host's folder is.
pub(super) fn of(dir: &Path) -> NodeState {
    let place = Place::below(dir);
    let started = place.started();
    let mut state = NodeState {
        unit: started.as_ref().and_then(|started| started.unit.clone()),
        restart: started.as_ref().map(|started| started.restart),
        config: started.map(|started| started.config),
        ..NodeState::default()
    };
    if let Some((process, _)) = place.process() {
        state.process = Some(process);
        match ask(&place) {
            Ok(said) => state.said = Some(said),
            Err(why) => state.silent = Some(why),
        }
    }
    state
}

/// Asks the node of a folder.
pub(super) fn ask(place: &Place) -> Result<Said, String> {
    let (host, port) = admin(place).ok_or_else(|| {
        format!("{} does not say where the node listens", place.file(CONFIG).display())
    })?;
    // A node whose address is none of its host's listens everywhere.
    let body = get(&host, port, "/status")
        .or_else(|why| get("127.0.0.1", port, "/status").map_err(|_| why))?;
    serde_json::from_str(&body).map_err(|error| format!("its status makes no sense: {error}"))
}

/// Where the node's configuration says that it is asked: address and admin port.
fn admin(place: &Place) -> Option<(String, u16)> {
    let config: toml::Table = std::fs::read_to_string(place.file(CONFIG)).ok()?.parse().ok()?;
    let port = config.get("admin_port")?.as_integer()?;
    let entry = format!("{}=", config.get("node_id")?.as_integer()?);
    let mut peers = config.get("peers")?.as_array()?.iter().filter_map(toml::Value::as_str);
    let own = peers.find_map(|peer| peer.strip_prefix(&entry))?;
    let host = own.rsplit_once(':')?.0.trim_matches(['[', ']']);
    Some((host.to_owned(), u16::try_from(port).ok()?))
}

/// The body of what a path answers, over HTTP/1.0: one request and one connection.
fn get(host: &str, port: u16, path: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("it does not answer at {host}:{port}: {error}");
    let address = (host, port).to_socket_addrs().map_err(failed)?.next();
    let address = address.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWERED_WITHIN).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWERED_WITHIN)).map_err(failed)?;
    stream.set_write_timeout(Some(ANSWERED_WITHIN)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: sraft\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        Some(_) => Err(format!("it says: {}", body.trim())),
        None => Err(format!("something else listens at {host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_port_is_found_in_the_nodes_own_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::at(folder.path());
        let at = |text: &str| {
            std::fs::write(place.file(CONFIG), text).unwrap();
            admin(&place)
        };
        let config =
            "node_id = 2\nadmin_port = 6001\npeers = [\"1=10.0.0.1:5000\", \"2=[fd00::2]:5000\"]\n";
        assert_eq!(at(config), Some(("fd00::2".to_owned(), 6001)));
        let other = config.replace("node_id = 2", "node_id = 1");
        assert_eq!(at(&other), Some(("10.0.0.1".to_owned(), 6001)));
        assert_eq!(at("node_id = 2\n"), None);
        assert!(ask(&place).unwrap_err().contains("does not say where the node listens"));
    }
}
