//! The hosts of a cluster, as their owner wrote them down.
//!
//! ```toml
//! [defaults]                       # holds for every host that does not say otherwise
//! user = "ec2-user"
//! key  = "~/.ssh/s-raft-key.pem"   # relative paths start at the inventory's own folder
//!
//! [[host]]
//! ssh  = "3.35.10.11"              # how the harness reaches it; may be an alias of ~/.ssh/config
//! addr = "10.0.1.10"               # how nodes reach each other; the same as `ssh` if left out
//! ```
//!
//! Node ids are the positions of the hosts, from 1. A host may also have `name`, `user`, `key`,
//! `known_hosts`, `ssh_port`, `port` (peers, TCP 5000), `client_port` (TCP, 1000 above; the one after
//! it is the node's admin port), `clock_port` (UDP, the number of the peer port) and `dir` (a folder of its own on the host).

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sraft_events::NodeId;
use sraft_report::clocks::HARNESS;
use toml::Spanned;

use crate::plan::{FILE_NAME_RULE, fits_file_name};

/// Where peers listen unless the inventory says otherwise.
pub(crate) const PEER_PORT: u16 = 5000;

/// How far above the peer port clients are served unless the inventory says otherwise.
const CLIENTS_ABOVE_PEERS: u16 = 1000;

/// Where a host keeps the program and the nodes' files unless the inventory says otherwise. It is
/// on a disk and outlives a reboot (Filesystem Hierarchy Standard 3.0, 5.15).
pub(crate) const DIR: &str = "/var/tmp/sraft";

/// What is wrong with an inventory: the file, the line, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub(crate) struct InventoryError {
    path: PathBuf,
    line: Option<usize>,
    message: String,
}

/// The hosts, in the order of node ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inventory {
    /// The file.
    pub(crate) path: PathBuf,
    /// The host of node 1 first.
    pub(crate) hosts: Vec<Host>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Its name in records, files and messages.
    pub(crate) name: String,
    /// The node that belongs here.
    pub(crate) node: NodeId,
    /// Address or alias that the harness connects to.
    pub(crate) ssh: String,
    /// User to log in as; empty leaves it to `~/.ssh/config`.
    pub(crate) user: Option<String>,
    /// Private key; empty leaves it to `~/.ssh/config`, the agent and the usual files.
    pub(crate) key: Option<PathBuf>,
    /// File with the host's key; empty leaves it to `~/.ssh/config`.
    pub(crate) known_hosts: Option<PathBuf>,
    /// Port of the SSH server; empty leaves it to `~/.ssh/config`.
    pub(crate) ssh_port: Option<u16>,
    /// Address at which other nodes reach this one.
    pub(crate) addr: String,
    /// TCP port for peers.
    pub(crate) port: u16,
    /// TCP port for clients. The next one is for who looks after the node.
    pub(crate) client_port: u16,
    /// UDP port at which the agent answers when others compare clocks.
    pub(crate) clock_port: u16,
    /// Folder on the host, absolute or below `~/`.
    pub(crate) dir: String,
}

impl Host {
    /// Port for who looks after the node.
    pub(crate) fn admin_port(&self) -> u16 {
        self.client_port + 1
    }

    fn tcp_ports(&self) -> [(&'static str, u16); 3] {
        [
            ("port", self.port),
            ("client_port", self.client_port),
            ("port after client_port", self.admin_port()),
        ]
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    #[serde(default)]
    defaults: Defaults,
    #[serde(default, rename = "host")]
    hosts: Vec<Spanned<GivenHost>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    user: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    known_hosts: Option<Spanned<String>>,
    ssh_port: Option<Spanned<i64>>,
    port: Option<Spanned<i64>>,
    client_port: Option<Spanned<i64>>,
    clock_port: Option<Spanned<i64>>,
    dir: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenHost {
    name: Option<Spanned<String>>,
    ssh: Option<Spanned<String>>,
    addr: Option<Spanned<String>>,
    user: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    known_hosts: Option<Spanned<String>>,
    ssh_port: Option<Spanned<i64>>,
    port: Option<Spanned<i64>>,
    client_port: Option<Spanned<i64>>,
    clock_port: Option<Spanned<i64>>,
    dir: Option<Spanned<String>>,
}

impl Inventory {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Inventory, InventoryError> {
        let text = std::fs::read_to_string(path).map_err(|error| InventoryError {
            path: path.to_owned(),
            line: None,
            message: format!("cannot read the inventory: {error}"),
        })?;
        Inventory::parse(path, &text)
    }

    /// The same from text that has been read already.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Inventory, InventoryError> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let reader = Reader { path, text, home };
        let given: Given = toml::from_str(text).map_err(|error| {
            let at = error.span().map(|span| span.start);
            let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join(", ");
            reader.refuse(at, message.replace("expected i64", "expected a whole number"))
        })?;
        if given.hosts.is_empty() {
            return Err(reader.refuse(
                None,
                "there is no [[host]]; add one for each node, with ssh = \"its address\"",
            ));
        }
        let mut hosts: Vec<Host> = Vec::new();
        for host in &given.hosts {
            let at = host.span().start;
            let host = reader.host(&given.defaults, host, hosts.len() as u64 + 1)?;
            for other in &hosts {
                if let Some(same) = clash(other, &host) {
                    let message = format!(
                        "host {} has the same {same} as {}; give each host its own",
                        host.name, other.name
                    );
                    return Err(reader.refuse(Some(at), message));
                }
            }
            hosts.push(host);
        }
        Ok(Inventory { path: path.to_owned(), hosts })
    }
}

/// What two hosts have in common that they must not.
fn clash(a: &Host, b: &Host) -> Option<String> {
    if a.name == b.name {
        return Some(format!("name `{}`", b.name));
    }
    if (&a.ssh, a.ssh_port, &a.user, &a.dir) == (&b.ssh, b.ssh_port, &b.user, &b.dir) {
        return Some(format!("ssh `{}` and dir `{}`", b.ssh, b.dir));
    }
    if a.addr != b.addr {
        return None;
    }
    for (what, port) in b.tcp_ports() {
        if a.tcp_ports().iter().any(|(_, taken)| *taken == port) {
            return Some(format!("addr `{}` and TCP port {port} (its {what})", b.addr));
        }
    }
    (a.clock_port == b.clock_port)
        .then(|| format!("addr `{}` and clock_port {}", b.addr, b.clock_port))
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    home: Option<PathBuf>,
}

impl Reader<'_> {
    fn refuse(&self, at: Option<usize>, message: impl Into<String>) -> InventoryError {
        let line = at.map(|at| {
            let before = &self.text.as_bytes()[..at.min(self.text.len())];
            before.iter().filter(|&&byte| byte == b'\n').count() + 1
        });
        InventoryError { path: self.path.to_owned(), line, message: message.into() }
    }

    fn host(
        &self,
        defaults: &Defaults,
        given: &Spanned<GivenHost>,
        node: NodeId,
    ) -> Result<Host, InventoryError> {
        let at = Some(given.span().start);
        let given = given.get_ref();
        let name = match &given.name {
            None => format!("node-{node}"),
            Some(name) if name.get_ref() == HARNESS => {
                let message =
                    format!("`{HARNESS}` is what records call this machine; take another");
                return Err(self.refuse(Some(name.span().start), message));
            }
            Some(name) if fits_file_name(name.get_ref()) => name.get_ref().clone(),
            Some(name) => {
                let message = format!(
                    "`{}` cannot be a host's name; {FILE_NAME_RULE}",
                    name.get_ref().escape_debug()
                );
                return Err(self.refuse(Some(name.span().start), message));
            }
        };
        let ssh = match &given.ssh {
            Some(ssh) => self.address("ssh", ssh)?,
            None => {
                let message = format!(
                    "host {name} has no ssh; write ssh = \"the address that you reach it at\""
                );
                return Err(self.refuse(at, message));
            }
        };
        let addr = match &given.addr {
            Some(addr) => self.address("addr", addr)?,
            None => ssh.clone(),
        };
        let pick = |own: &Option<Spanned<i64>>, all: &Option<Spanned<i64>>, key| {
            let value = own.as_ref().or(all.as_ref());
            value.map(|value| self.port(key, value)).transpose()
        };
        let port = pick(&given.port, &defaults.port, "port")?.unwrap_or(PEER_PORT);
        let client_port = pick(&given.client_port, &defaults.client_port, "client_port")?
            .or(port.checked_add(CLIENTS_ABOVE_PEERS))
            .filter(|client| {
                let admin = client.checked_add(1);
                admin.is_some() && *client != port && admin != Some(port)
            });
        let Some(client_port) = client_port else {
            let message = format!(
                "host {name}: clients need a port and the one after it, both other than {port}; \
                 set client_port, such as {}",
                PEER_PORT + CLIENTS_ABOVE_PEERS
            );
            return Err(self.refuse(at, message));
        };
        let text = |own: &Option<Spanned<String>>, all: &Option<Spanned<String>>| {
            own.as_ref().or(all.as_ref()).cloned()
        };
        let path =
            |given: Option<Spanned<String>>| given.map(|given| self.expand(&given)).transpose();
        let user = text(&given.user, &defaults.user);
        if let Some(user) = &user
            && (user.get_ref().is_empty() || user.get_ref().contains(char::is_whitespace))
        {
            let message = format!(
                "`{}` is no user's name; write for example user = \"ec2-user\"",
                user.get_ref()
            );
            return Err(self.refuse(Some(user.span().start), message));
        }
        let dir = match text(&given.dir, &defaults.dir) {
            None => DIR.to_owned(),
            Some(dir) => self.remote_dir(&dir)?,
        };
        Ok(Host {
            name,
            node,
            ssh,
            user: user.map(Spanned::into_inner),
            key: path(text(&given.key, &defaults.key))?,
            known_hosts: path(text(&given.known_hosts, &defaults.known_hosts))?,
            ssh_port: pick(&given.ssh_port, &defaults.ssh_port, "ssh_port")?,
            addr,
            port,
            client_port,
            clock_port: pick(&given.clock_port, &defaults.clock_port, "clock_port")?
                .unwrap_or(port),
            dir,
        })
    }

    fn address(&self, key: &str, given: &Spanned<String>) -> Result<String, InventoryError> {
        let text = given.get_ref();
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".:-_%".contains(c);
        let wrong = match text {
            text if text.is_empty() => "it is empty".to_owned(),
            text if text.contains('@') => "the user goes into a line of its own, user = ...".into(),
            text if text.starts_with('-') || !text.chars().all(allowed) => {
                "it is neither an address nor a host's name".to_owned()
            }
            text if text.matches(':').count() == 1 => {
                "a port goes into a line of its own, ssh_port = ... or port = ...".to_owned()
            }
            _ => return Ok(text.clone()),
        };
        let message = format!("{key} = \"{}\": {wrong}", text.escape_debug());
        Err(self.refuse(Some(given.span().start), message))
    }

    fn port(&self, key: &str, given: &Spanned<i64>) -> Result<u16, InventoryError> {
        u16::try_from(*given.get_ref()).ok().filter(|port| *port > 0).ok_or_else(|| {
            let message = format!("{key} is {}; write a number from 1 to 65535", given.get_ref());
            self.refuse(Some(given.span().start), message)
        })
    }

    /// A path on this machine.
    fn expand(&self, given: &Spanned<String>) -> Result<PathBuf, InventoryError> {
        let refuse = |message: String| Err(self.refuse(Some(given.span().start), message));
        let text = given.get_ref();
        if text.is_empty() {
            return refuse("the path is empty; write one, or remove the line".to_owned());
        }
        if let Some(below) = text.strip_prefix('~') {
            let Some(below) = below.strip_prefix('/') else {
                return refuse(format!("`{text}`: only your own home is known; write ~/..."));
            };
            return match &self.home {
                Some(home) => Ok(home.join(below)),
                None => refuse(format!("`{text}`: HOME is not set; write the whole path")),
            };
        }
        let folder = self.path.parent().unwrap_or(Path::new(""));
        Ok(folder.join(text))
    }

    /// A path on the host: its owner's home is known there only.
    fn remote_dir(&self, given: &Spanned<String>) -> Result<String, InventoryError> {
        let text = given.get_ref().trim_end_matches('/');
        let below = text.strip_prefix("~/").or_else(|| text.strip_prefix('/'));
        let fits = below.is_some_and(|below| {
            !below.is_empty()
                && !below.contains(|c: char| c.is_control() || "'\"\\".contains(c))
                && below.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        });
        match fits {
            true => Ok(text.to_owned()),
            false => {
                let message = format!(
                    "dir = \"{}\" is no folder for sraft alone; write for example \"{DIR}\" or \
                     \"~/.sraft\"",
                    given.get_ref().escape_debug()
                );
                Err(self.refuse(Some(given.span().start), message))
            }
        }
    }
}

#[cfg(test)]
mod tests;
