//! Hosts over SSH: who gets in, what is put there, and the agent's channel.
//!
//! ```text
//! config        what ~/.ssh/config says of a host
//! known_hosts   which host keys the user has accepted
//! keys          private keys and their passphrases
//! dial          the TCP connection
//! login         who gets in, and with which key
//! connection    connect, verify, log in, run a command; every wait has a deadline
//! program       what the program needs of a host, and its upload
//! conversation  the agent's channel
//! stream        output of a command that may go on for ever
//! ```

mod config;
mod connection;
mod conversation;
mod dial;
mod error;
mod keys;
mod known_hosts;
mod login;
mod program;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use connection::Connection;
pub(crate) use conversation::SILENCE;
pub(crate) use error::{SshError, SshErrorKind};
pub(crate) use keys::Passphrase;
pub(crate) use login::{KeyFile, Login};
pub(crate) use program::{Program, Survey};

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::Sender,
    },
};

use super::{Agent, Input};
use crate::inventory;

/// Most connections that are made at the same time.
const MOST_AT_ONCE: usize = 16;

/// Keys that OpenSSH tries of itself.
const USUAL_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// What the user has decided for all hosts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Accept and record the keys of hosts that are met for the first time.
    pub(crate) accept_new: bool,
}

/// A host that is ready for an agent.
pub(crate) struct Target {
    login: Login,
    /// What the host is.
    pub(crate) survey: Survey,
    /// The program's path there.
    pub(crate) program: String,
    /// Whether the program had to be sent.
    pub(crate) sent: bool,
    /// The connection over which all this was found out, for the first agent.
    ready: Mutex<Option<Connection>>,
}

impl Target {
    /// Logs in at a host, checks that the program can run there, and puts it there.
    pub(crate) fn prepare(
        host: &inventory::Host,
        program: &Program,
        options: Options,
    ) -> Result<Target, SshError> {
        Target::reach(host, program, options, true)
    }

    /// The same. If the program is there already, it is taken to have been checked then: a host
    /// whose disk has filled up since must still be one that can be asked and told to stop.
    pub(crate) fn reach(
        host: &inventory::Host,
        program: &Program,
        options: Options,
        check: bool,
    ) -> Result<Target, SshError> {
        let login = login(host, options).map_err(|kind| kind.at(&host.name))?;
        let connection = Connection::open(&login)?;
        let survey = program.survey(&connection, &host.dir)?;
        if check || !survey.present {
            program.check(&survey).map_err(|kind| kind.at(&host.name))?;
        }
        let (path, sent) = program.install(&connection, &survey)?;
        Ok(Target { login, survey, program: path, sent, ready: Mutex::new(Some(connection)) })
    }

    /// Who is let in, and where: `user@address`.
    pub(crate) fn who(&self) -> String {
        format!("{}@{}", self.login.user, self.login.address)
    }

    /// A connection: the one that there is, if nobody has taken it yet.
    pub(crate) fn connect(&self) -> Result<Connection, SshError> {
        match self.ready.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.login),
        }
    }

    /// Gives a connection back, for whoever needs the next one.
    pub(crate) fn give_back(&self, connection: Connection) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }

    /// Starts an agent there. What it says arrives as that of agent number `agent`.
    pub(crate) fn start_agent(
        &self,
        agent: usize,
        inbox: Sender<Input>,
    ) -> Result<Agent, SshError> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = ready {
            match conversation::start(connection, &self.program, agent, inbox.clone()) {
                // It has waited for its use, and may have been cut meanwhile.
                Err(error) if matches!(*error.kind, SshErrorKind::Lost { .. }) => {}
                other => return other,
            }
        }
        conversation::start(Connection::open(&self.login)?, &self.program, agent, inbox)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("login", &self.login)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// Does something for every host, at most [`MOST_AT_ONCE`] at a time. The results come in the
/// order of the hosts.
pub(crate) fn for_all<H: Sync, T: Send>(hosts: &[H], work: impl Fn(&H) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..hosts.len().min(MOST_AT_ONCE) {
            scope.spawn(|| {
                while let Some((index, host)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    hosts.get(index).map(|host| (index, host))
                } {
                    let result = work(host);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// How to get into a host: the inventory first, then the user's SSH configuration, then what
/// OpenSSH does of itself.
pub(crate) fn login(host: &inventory::Host, options: Options) -> Result<Login, SshErrorKind> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = named("USER").or_else(|| named("LOGNAME"));
    let mut login = login_of(host, options, &home, user)?;
    login.passphrase = std::env::var(keys::PASSPHRASE).ok().map(Passphrase);
    login.agent = named("SSH_AUTH_SOCK").map(PathBuf::from);
    Ok(login)
}

fn login_of(
    host: &inventory::Host,
    options: Options,
    home: &Path,
    own_user: Option<String>,
) -> Result<Login, SshErrorKind> {
    let folder = home.join(".ssh");
    let given = config::read(&folder.join("config"), home, &host.ssh)?;
    let address = given.host_name.unwrap_or_else(|| host.ssh.clone());
    let keys: Vec<KeyFile> = match &host.key {
        Some(path) => vec![KeyFile { path: path.clone(), named: true }],
        None if !given.identity_files.is_empty() => {
            let files = given.identity_files.into_iter();
            files.map(|path| KeyFile { path, named: false }).collect()
        }
        None => {
            let usual = USUAL_KEYS.iter().map(|name| folder.join(name));
            usual.map(|path| KeyFile { path, named: false }).collect()
        }
    };
    let known_hosts = match (&host.known_hosts, given.known_hosts) {
        (Some(path), _) => vec![path.clone()],
        (None, Some(own)) => own.into_iter().chain(system_known_hosts()).collect(),
        (None, None) => {
            let own = ["known_hosts", "known_hosts2"].map(|name| folder.join(name));
            own.into_iter().chain(system_known_hosts()).collect()
        }
    };
    Ok(Login {
        name: host.name.clone(),
        port: host.ssh_port.or(given.port).unwrap_or(22),
        user: host.user.clone().or(given.user).or(own_user).ok_or(SshErrorKind::NoUser)?,
        key_name: given.host_key_alias.unwrap_or_else(|| address.clone()),
        address,
        known_hosts,
        // A key that the inventory names is the only one: agents with many keys use up a server's
        // patience.
        any_agent_key: host.key.is_none() && given.identities_only != Some(true),
        keys,
        passphrase: None,
        agent: None,
        accept_new: options.accept_new,
    })
}

fn system_known_hosts() -> [PathBuf; 2] {
    ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"].map(PathBuf::from)
}
