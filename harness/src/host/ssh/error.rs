//! What can go wrong on the way to a host, each kind with its remedy.

use std::{fmt, io, path::PathBuf, time::Duration};

/// Why a host could not be reached or did not do what it was asked. Every text begins with the
/// host.
#[derive(Debug, thiserror::Error)]
#[error("{host}: {kind}")]
pub(crate) struct SshError {
    /// The host, as the inventory names it.
    pub(crate) host: String,
    /// What went wrong.
    pub(crate) kind: Box<SshErrorKind>,
}

/// The kinds of failure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SshErrorKind {
    /// A file of the user's SSH set-up cannot be used.
    #[error("{}{}: {message}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Config {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// There is no user to log in as.
    #[error("there is no user to log in as; write user = \"...\" in the inventory")]
    NoUser,
    /// Its name leads nowhere.
    #[error(
        "cannot resolve `{name}`: {why}; check ssh = \"...\" in the inventory and your name server"
    )]
    Resolve {
        /// The name.
        name: String,
        /// What the resolver said.
        why: String,
    },
    /// Nobody listens there.
    #[error(
        "connection refused at {address}: no SSH server listens there; check the address and \
         ssh_port, and that the host has finished booting"
    )]
    Refused {
        /// The address.
        address: String,
    },
    /// No answer came.
    #[error(
        "{doing} timed out after {}; {}",
        seconds(*after),
        if *connecting {
            "check the address, that the host runs, and that its firewall (security group) lets \
             you in at the SSH port"
        } else {
            "the host is overloaded or the network drops packets; try again"
        }
    )]
    TimedOut {
        /// What had been tried.
        doing: String,
        /// For how long.
        after: Duration,
        /// Whether it is the TCP connection that did not come about.
        connecting: bool,
    },
    /// The network refuses.
    #[error("cannot connect to {address}: {source}; check the address and your network")]
    Connect {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The SSH servers and this program have nothing in common, or it is no SSH server.
    #[error("the SSH handshake failed: {why}; is it an SSH server that listens at {address}?")]
    Handshake {
        /// The address.
        address: String,
        /// What libssh2 said.
        why: String,
    },
    /// There is no entry for the host.
    #[error(
        "its host key is not known ({kind}, {fingerprint}); compare it with what the host itself \
         shows (`ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub`, or its console's log) and log in \
         once with `ssh`, or accept it unseen with --host-keys accept-new; looked in {looked}"
    )]
    HostKeyUnknown {
        /// The key's type.
        kind: String,
        /// Its fingerprint, as OpenSSH prints it.
        fingerprint: String,
        /// The files that have no entry.
        looked: String,
    },
    /// The host shows another key than the one that is recorded.
    #[error(
        "its host key has CHANGED ({kind}, {fingerprint}): either the host was made anew or \
         somebody sits in between; if you know why, remove line {line} of {} (`ssh-keygen -R \
         '{name}' -f {}`)",
        path.display(), path.display()
    )]
    HostKeyChanged {
        /// The type of the key that it shows.
        kind: String,
        /// Its fingerprint.
        fingerprint: String,
        /// The name that it is recorded under.
        name: String,
        /// Where the recorded key stands.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// The key that the host shows is marked as revoked.
    #[error(
        "its host key ({fingerprint}) is revoked by line {line} of {}; do not use this host",
        path.display()
    )]
    HostKeyRevoked {
        /// Its fingerprint.
        fingerprint: String,
        /// Where that stands.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// A private key cannot be used.
    #[error("the key {}: {message}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The host does not let the user in.
    #[error(
        "permission denied for user `{user}` (tried {tried}); check key and user: Amazon Linux \
         has `ec2-user`, Ubuntu `ubuntu`"
    )]
    Denied {
        /// The user.
        user: String,
        /// What was tried.
        tried: String,
    },
    /// A command ran and failed.
    #[error("{doing} failed with code {code}{}", tail(stderr))]
    Remote {
        /// What the command was for.
        doing: String,
        /// Its exit code.
        code: i32,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },
    /// A command was ended by a signal.
    #[error("{doing} was ended there by signal {signal}{}", tail(stderr))]
    Signal {
        /// What the command was for.
        doing: String,
        /// The signal's name, without SIG.
        signal: String,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },
    /// The connection broke.
    #[error("the connection was lost while {doing}: {why}")]
    Lost {
        /// What was going on.
        doing: String,
        /// Why.
        why: String,
    },
    /// The host cannot run the program.
    #[error("{0}")]
    Unfit(String),
    /// A file of this machine cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SshErrorKind {
    /// Names the host.
    pub(crate) fn at(self, host: &str) -> SshError {
        SshError { host: host.to_owned(), kind: Box::new(self) }
    }
}

/// The last lines of what a command wrote, as the end of a sentence.
fn tail(stderr: &str) -> String {
    const LINES: usize = 3;
    let lines: Vec<&str> =
        stderr.lines().map(str::trim).filter(|line| !line.is_empty()).rev().take(LINES).collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!(": {}", lines.into_iter().rev().collect::<Vec<_>>().join(" | ")),
    }
}

/// A duration in a sentence.
fn seconds(time: Duration) -> impl fmt::Display {
    format!("{} s", time.as_secs_f64().ceil())
}
