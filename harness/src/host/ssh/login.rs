//! Who gets in, and with which key.

use std::{
    cell::LazyCell,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ssh2::ErrorCode;

use super::{
    connection::{Connection, lost, would_block},
    error::SshErrorKind,
    keys::{Passphrase, PrivateKey},
};

/// How long logging in may take.
const LOGGED_IN_WITHIN: Duration = Duration::from_secs(15);

/// `LIBSSH2_ERROR_*` of libssh2.h: the host has not accepted a key.
const AUTHENTICATION_FAILED: i32 = -18;
const PUBLICKEY_UNVERIFIED: i32 = -19;

/// Everything that is needed to get into a host.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    /// The host's name in messages.
    pub(crate) name: String,
    /// Where to connect to.
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    /// Name that the host's key is recorded under.
    pub(crate) key_name: String,
    /// Files with host keys; the first is added to.
    pub(crate) known_hosts: Vec<PathBuf>,
    /// Private keys to try, in order.
    pub(crate) keys: Vec<KeyFile>,
    /// Of encrypted keys; asked for at the terminal if it is not given.
    pub(crate) passphrase: Option<Passphrase>,
    /// Socket of the user's ssh-agent, if there is one.
    pub(crate) agent: Option<PathBuf>,
    /// Whether keys of the agent are tried that are none of `keys`.
    pub(crate) any_agent_key: bool,
    /// Whether the key of a host that is met for the first time is accepted and recorded.
    pub(crate) accept_new: bool,
}

/// A private key to try.
#[derive(Clone, Debug)]
pub(crate) struct KeyFile {
    pub(crate) path: PathBuf,
    /// Whether the user has named it: it is no error then that another is not there.
    pub(crate) named: bool,
}

impl Connection {
    pub(super) fn log_in(&self, login: &Login) -> Result<(), SshErrorKind> {
        let mut tried = Vec::new();
        let mut unusable = None;
        // Asked only if it is needed: nothing bounds the time that somebody else's agent takes.
        let agent = LazyCell::new(|| login.agent.as_deref().and_then(|socket| self.agent(socket)));
        for file in &login.keys {
            let key = match PrivateKey::read(&file.path) {
                Ok(key) => key,
                Err(_) if !file.named && !file.path.exists() => continue,
                Err(error) => {
                    // Another key may still open the door.
                    unusable.get_or_insert(error);
                    continue;
                }
            };
            tried.push(file.path.display().to_string());
            // The agent may have it decrypted already; its public half says which one it is.
            let public = public_half(&file.path);
            if key.is_encrypted()
                && let Some((agent, identities)) = &*agent
                && let Some(same) =
                    identities.iter().find(|identity| Some(identity.blob()) == public.as_deref())
                && self.accepted(|| agent.userauth(&login.user, same))?
            {
                return Ok(());
            }
            match self.try_key(login, &key) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error @ SshErrorKind::Key { .. }) => {
                    unusable.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if login.any_agent_key
            && let Some((agent, identities)) = &*agent
        {
            for identity in identities {
                tried.push(format!("`{}` of the agent", identity.comment()));
                if self.accepted(|| agent.userauth(&login.user, identity))? {
                    return Ok(());
                }
            }
        }
        let tried = match tried.is_empty() {
            true => "no key: none is in the usual places, in an agent, or named".to_owned(),
            false => tried.join(", "),
        };
        Err(unusable.unwrap_or(SshErrorKind::Denied { user: login.user.clone(), tried }))
    }

    fn try_key(&self, login: &Login, key: &PrivateKey) -> Result<bool, SshErrorKind> {
        let passphrase = key.passphrase(login.passphrase.as_ref())?;
        let log_in = || {
            let passphrase = passphrase.as_deref();
            self.session.userauth_pubkey_memory(&login.user, None, &key.text, passphrase)
        };
        let deadline = Instant::now() + LOGGED_IN_WITHIN;
        loop {
            match log_in() {
                Ok(()) => return Ok(true),
                Err(error) if would_block(&error) => {
                    self.ready("logging in", deadline, LOGGED_IN_WITHIN)?;
                }
                Err(error) if refused(&error) => return Ok(false),
                Err(error) if !self.is_open() => return Err(lost("logging in", &error)),
                Err(error) => return Err(key.unusable(error.message())),
            }
        }
    }

    fn accepted(
        &self,
        log_in: impl FnMut() -> Result<(), ssh2::Error>,
    ) -> Result<bool, SshErrorKind> {
        let mut outcome = true;
        let mut log_in = log_in;
        self.attempt("logging in", LOGGED_IN_WITHIN, || match log_in() {
            Err(error) if !would_block(&error) => {
                // An agent that cannot sign is as good as one that has no key.
                outcome = false;
                Ok(())
            }
            other => other,
        })?;
        Ok(outcome)
    }

    /// The user's agent and what it holds, if it answers.
    fn agent(&self, socket: &Path) -> Option<(ssh2::Agent, Vec<ssh2::PublicKey>)> {
        let mut agent = self.session.agent().ok()?;
        agent.set_identity_path(socket).ok()?;
        agent.connect().ok()?;
        agent.list_identities().ok()?;
        let identities = agent.identities().ok()?;
        Some((agent, identities))
    }
}

/// Whether the host has refused a key, rather than anything having failed.
fn refused(error: &ssh2::Error) -> bool {
    let refusals = [AUTHENTICATION_FAILED, PUBLICKEY_UNVERIFIED];
    refusals.into_iter().any(|code| error.code() == ErrorCode::Session(code))
}

/// The key of FILE.pub, which may not be there.
fn public_half(path: &Path) -> Option<Vec<u8>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    let text = std::fs::read_to_string(name).ok()?;
    STANDARD.decode(text.split_whitespace().nth(1)?).ok()
}
