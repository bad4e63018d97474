//! One authenticated SSH connection to a host.
//!
//! libssh2 blocks in places where one does not expect it (reading from one channel stalls the
//! others, dropping a channel waits for its other end), so a connection never does two things at
//! once, its session is non-blocking throughout, and every wait is a `poll` with a deadline.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, Channel, ErrorCode, MethodType, Session};

use super::{
    dial,
    error::{SshError, SshErrorKind},
    known_hosts::{self, Recorded, Verdict},
    login::Login,
};

/// How long the SSH handshake may take. Small instances are slow when they have just booted.
const GREETED_WITHIN: Duration = Duration::from_secs(15);

/// How much of a command's output is kept, in bytes.
const LONGEST_OUTPUT: usize = 1 << 20;

/// `LIBSSH2_ERROR_EAGAIN` of libssh2.h.
const EAGAIN: i32 = -37;

/// A connection that is logged in.
pub(crate) struct Connection {
    pub(super) session: Session,
    socket: TcpStream,
    name: String,
}

impl Connection {
    /// Connects, checks the host's key and logs in.
    pub(crate) fn open(login: &Login) -> Result<Connection, SshError> {
        Connection::try_open(login).map_err(|kind| kind.at(&login.name))
    }

    fn try_open(login: &Login) -> Result<Connection, SshErrorKind> {
        let socket = dial::connect(&login.address, login.port)?;
        let failed = |error: ssh2::Error| lost("preparing the connection", &error);
        let mut session = Session::new().map_err(failed)?;
        let recorded = Recorded::read(&login.known_hosts, &login.key_name, login.port, &session)
            .map_err(|(path, error)| SshErrorKind::Config {
                path,
                line: None,
                message: format!("cannot be read: {error}"),
            })?;
        session
            .method_pref(MethodType::HostKey, &host_key_types(&recorded.kinds()))
            .map_err(failed)?;
        let io_failed = |error: io::Error| SshErrorKind::Lost {
            doing: "preparing the connection".to_owned(),
            why: error.to_string(),
        };
        // Requests are small and somebody waits for them.
        socket.set_nodelay(true).map_err(io_failed)?;
        socket.set_nonblocking(true).map_err(io_failed)?;
        session.set_tcp_stream(socket.try_clone().map_err(io_failed)?);
        session.set_blocking(false);
        let address = format!("{}:{}", login.address, login.port);
        let connection = Connection { session: session.clone(), socket, name: login.name.clone() };
        connection.attempt("the SSH handshake", GREETED_WITHIN, || session.handshake()).map_err(
            |kind| match kind {
                SshErrorKind::Lost { why, .. } => SshErrorKind::Handshake { address, why },
                other => other,
            },
        )?;
        connection.verify(login, &recorded)?;
        connection.log_in(login)?;
        Ok(connection)
    }

    /// The host's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Hands out the parts, for who drives them in another way.
    pub(super) fn parts(&self) -> (&Session, &TcpStream) {
        (&self.session, &self.socket)
    }

    fn verify(&self, login: &Login, recorded: &Recorded) -> Result<(), SshErrorKind> {
        let Some((key, _)) = self.session.host_key() else {
            return Err(SshErrorKind::Handshake {
                address: format!("{}:{}", login.address, login.port),
                why: "it showed no host key".to_owned(),
            });
        };
        let (kind, fingerprint) = (known_hosts::kind(key), known_hosts::fingerprint(key));
        let name = known_hosts::recorded_name(&login.key_name, login.port);
        match recorded.judge(key) {
            Verdict::Known => Ok(()),
            Verdict::Revoked { path, line } => {
                Err(SshErrorKind::HostKeyRevoked { fingerprint, path, line })
            }
            Verdict::Changed { path, line } => {
                Err(SshErrorKind::HostKeyChanged { kind, fingerprint, name, path, line })
            }
            Verdict::Unknown => {
                let file = login.known_hosts.first().filter(|_| login.accept_new);
                let Some(path) = file else {
                    let looked: Vec<String> =
                        login.known_hosts.iter().map(|path| path.display().to_string()).collect();
                    let looked =
                        if looked.is_empty() { "no file".to_owned() } else { looked.join(", ") };
                    return Err(SshErrorKind::HostKeyUnknown { kind, fingerprint, looked });
                };
                known_hosts::add(path, &login.key_name, login.port, key).map_err(|error| {
                    SshErrorKind::Config {
                        path: path.clone(),
                        line: None,
                        message: format!("the new host's key cannot be recorded: {error}"),
                    }
                })
            }
        }
    }

    // ---- commands ----------------------------------------------------------------------------

    /// Runs `script` with sh on the host, feeds it `input`, and returns what it wrote to its
    /// standard output. `doing` says what for. The arguments are `$1`, `$2`, ...
    pub(crate) fn run(
        &self,
        doing: &str,
        script: &str,
        arguments: &[&str],
        input: &mut dyn Read,
        within: Duration,
    ) -> Result<String, SshError> {
        self.try_run(doing, script, arguments, input, within).map_err(|kind| kind.at(&self.name))
    }

    fn try_run(
        &self,
        doing: &str,
        script: &str,
        arguments: &[&str],
        input: &mut dyn Read,
        within: Duration,
    ) -> Result<String, SshErrorKind> {
        let deadline = Instant::now() + within;
        let mut channel = self.start(doing, script, arguments, within)?;
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let mut unsent: Vec<u8> = Vec::new();
        let mut fed = false; // everything has been read from `input`
        let mut closed = false; // the host has been told so
        let mut buffer = vec![0; 64 << 10];
        loop {
            let mut progress = false;
            if unsent.is_empty() && !fed {
                let n = input.read(&mut buffer).map_err(|source| SshErrorKind::Local {
                    path: PathBuf::from("the file to be uploaded"),
                    source,
                })?;
                fed = n == 0;
                unsent.extend_from_slice(&buffer[..n]);
            }
            if !unsent.is_empty() {
                match channel.write(&unsent) {
                    Ok(n) => {
                        unsent.drain(..n);
                        progress |= n > 0;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if channel.eof() || self.is_open() => {
                        // The command has ended without reading it all. Its own words say more.
                        let _ = error;
                        unsent.clear();
                        fed = true;
                    }
                    Err(error) => return Err(broken(doing, &error)),
                }
            } else if fed && !closed {
                match channel.send_eof() {
                    Ok(()) => (closed, progress) = (true, true),
                    Err(error) if would_block(&error) => {}
                    Err(error) => return Err(lost(doing, &error)),
                }
            }
            for (stream, kept) in [(0, &mut output), (1, &mut errors)] {
                match channel.stream(stream).read(&mut buffer) {
                    Ok(n) => {
                        let room = LONGEST_OUTPUT.saturating_sub(kept.len());
                        kept.extend_from_slice(&buffer[..n.min(room)]);
                        progress |= n > 0;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(broken(doing, &error)),
                }
            }
            if channel.eof() {
                break;
            }
            if Instant::now() > deadline {
                let doing = doing.to_owned(); // it goes on and on
                return Err(SshErrorKind::TimedOut { doing, after: within, connecting: false });
            }
            if !progress && !can_go_on(&self.session, &channel, !unsent.is_empty(), true) {
                self.ready(doing, deadline, within)?;
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let (code, signal) = self.end_of(&mut channel, doing, left)?;
        let stderr = String::from_utf8_lossy(&errors).into_owned();
        let doing = doing.to_owned();
        match (signal, code) {
            (Some(signal), _) => Err(SshErrorKind::Signal { doing, signal, stderr }),
            (None, 0) => Ok(String::from_utf8_lossy(&output).into_owned()),
            (None, code) => Err(SshErrorKind::Remote { doing, code, stderr }),
        }
    }

    /// Starts `script` with sh.
    pub(super) fn start(
        &self,
        doing: &str,
        script: &str,
        arguments: &[&str],
        within: Duration,
    ) -> Result<Channel, SshErrorKind> {
        let mut channel = self.attempt(doing, within, || self.session.channel_session())?;
        // The user's own shell may be any; it only has to start this one.
        let mut command = format!("exec sh -c {} sh", quote(script));
        for argument in arguments {
            command.push(' ');
            command.push_str(&quote(argument));
        }
        self.attempt(doing, within, || channel.exec(&command))?;
        Ok(channel)
    }

    /// The exit code of a command whose output has ended, and the signal that ended it, if one did:
    /// the code says 0 then.
    pub(super) fn end_of(
        &self,
        channel: &mut Channel,
        doing: &str,
        within: Duration,
    ) -> Result<(i32, Option<String>), SshErrorKind> {
        self.attempt(doing, within, || channel.close())?;
        self.attempt(doing, within, || channel.wait_close())?;
        let read = |error: ssh2::Error| lost(doing, &error);
        let signal = channel.exit_signal().map_err(read)?.exit_signal;
        Ok((channel.exit_status().map_err(read)?, signal))
    }

    // ---- waiting -----------------------------------------------------------------------------

    /// Repeats what would block until it does not.
    pub(super) fn attempt<T>(
        &self,
        doing: &str,
        within: Duration,
        mut operation: impl FnMut() -> Result<T, ssh2::Error>,
    ) -> Result<T, SshErrorKind> {
        let deadline = Instant::now() + within;
        loop {
            match operation() {
                Ok(value) => return Ok(value),
                Err(error) if would_block(&error) => self.ready(doing, deadline, within)?,
                Err(error) => return Err(lost(doing, &error)),
            }
        }
    }

    /// Waits until the socket is ready for what libssh2 wants to do next.
    pub(super) fn ready(
        &self,
        doing: &str,
        deadline: Instant,
        within: Duration,
    ) -> Result<(), SshErrorKind> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timed_out =
            SshErrorKind::TimedOut { doing: doing.to_owned(), after: within, connecting: false };
        if left.is_zero() {
            return Err(timed_out);
        }
        let mut sockets = [PollFd::from_borrowed_fd(self.socket.as_fd(), interest(&self.session))];
        match poll(&mut sockets, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => Err(timed_out),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(broken(doing, &error.into())),
        }
    }

    /// Whether the connection still stands, as far as the system knows.
    pub(super) fn is_open(&self) -> bool {
        let mut byte = [0];
        match self.socket.peek(&mut byte) {
            Ok(n) => n > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // One attempt to say goodbye. With the socket shut, nothing in libssh2 can wait any more,
        // and with blocking calls it frees everything at once.
        let _ = self.session.disconnect(None, "done", None);
        let _ = self.socket.shutdown(Shutdown::Both);
        self.session.set_timeout(1000);
        self.session.set_blocking(true);
    }
}

/// Whether there is something to do although nothing has been possible just now. Whatever libssh2 is
/// asked to do, it takes up all that has come: while it reads, the word that the host has room again,
/// and while it reads one stream, bytes of the other. The socket does not announce those again, so
/// waiting for it would be waiting for ever.
pub(super) fn can_go_on(session: &Session, channel: &Channel, sends: bool, reads: bool) -> bool {
    // A packet half on its way comes first, and that the socket announces.
    !interest(session).contains(PollFlags::OUT)
        && (sends && channel.write_window().remaining > 0
            || reads && channel.read_window().available > 0)
}

/// What to wait for.
pub(super) fn interest(session: &Session) -> PollFlags {
    match session.block_directions() {
        BlockDirections::Outbound => PollFlags::OUT,
        BlockDirections::Both => PollFlags::IN | PollFlags::OUT,
        BlockDirections::Inbound | BlockDirections::None => PollFlags::IN,
    }
}

pub(super) fn would_block(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(EAGAIN)
}

pub(super) fn lost(doing: &str, error: &ssh2::Error) -> SshErrorKind {
    SshErrorKind::Lost { doing: doing.to_owned(), why: error.message().to_owned() }
}

fn broken(doing: &str, error: &io::Error) -> SshErrorKind {
    SshErrorKind::Lost { doing: doing.to_owned(), why: error.to_string() }
}

/// A word that sh takes as it is.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Types of host keys to ask for: those that are recorded before all others. RSA keys sign with
/// SHA-2 (RFC 8332); SHA-1 is not asked for.
fn host_key_types(recorded: &[&str]) -> String {
    const ALL: [&str; 4] =
        ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];
    const RSA: [&str; 2] = ["rsa-sha2-512", "rsa-sha2-256"];
    let mut types: Vec<&str> = Vec::new();
    for kind in recorded.iter().copied().chain(ALL).chain(["ssh-rsa"]) {
        let signatures = if kind == "ssh-rsa" { RSA.to_vec() } else { vec![kind] };
        for signature in signatures {
            if !types.contains(&signature) {
                types.push(signature);
            }
        }
    }
    types.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_shell_as_they_are() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn recorded_types_of_host_keys_are_asked_for_first() {
        let types = host_key_types(&["ssh-rsa"]);
        assert!(types.starts_with("rsa-sha2-512,rsa-sha2-256,ssh-ed25519,"), "{types}");
        assert!(host_key_types(&[]).starts_with("ssh-ed25519,"));
        assert_eq!(types.matches("rsa").count(), 2);
    }
}
