//! Output of a command that may go on for ever, as it comes.

use std::{
    io::{self, Read},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, Timespec, poll};

use super::{
    SILENCE,
    connection::{Connection, can_go_on, interest, would_block},
    error::{SshError, SshErrorKind},
};

/// How often the SSH server is asked whether it lives.
const BEAT: Duration = Duration::from_secs(2);

/// How long starting and ending may take.
const DONE_WITHIN: Duration = Duration::from_secs(15);

/// What is kept of what it writes to its standard error, in bytes.
const LAST_WORDS: usize = 2 << 10;

impl Connection {
    /// Runs `script` with sh on the host and hands on what it writes to its standard output, until
    /// it ends or `take` says that nobody wants any more of it. Its standard input stays open until
    /// then.
    pub(crate) fn stream(
        &self,
        doing: &str,
        script: &str,
        arguments: &[&str],
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), SshError> {
        self.try_stream(doing, script, arguments, take).map_err(|kind| kind.at(self.name()))
    }

    fn try_stream(
        &self,
        doing: &str,
        script: &str,
        arguments: &[&str],
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), SshErrorKind> {
        let lost = |why: String| SshErrorKind::Lost { doing: doing.to_owned(), why };
        let mut channel = self.start(doing, script, arguments, DONE_WITHIN)?;
        let (session, socket) = self.parts();
        session.set_keepalive(true, BEAT.as_secs() as u32);
        let mut errors = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        let (mut heard, mut beat) = (Instant::now(), Instant::now());
        while !channel.eof() {
            let mut progress = false;
            for stream in [0, 1] {
                match channel.stream(stream).read(&mut buffer) {
                    Ok(0) => {}
                    Ok(n) => {
                        progress = true;
                        if stream == 1 {
                            errors.extend_from_slice(&buffer[..n]);
                            let surplus = errors.len().saturating_sub(LAST_WORDS);
                            errors.drain(..surplus);
                        } else if !take(&buffer[..n]) {
                            return Ok(());
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(lost(error.to_string())),
                }
            }
            if progress {
                heard = Instant::now();
                continue;
            }
            // libssh2 keeps every answer for ever, so none is asked for while lines come.
            if beat.elapsed() >= BEAT && heard.elapsed() >= BEAT {
                beat = Instant::now();
                match session.keepalive_send() {
                    Err(error) if !would_block(&error) => {
                        return Err(lost(error.message().to_owned()));
                    }
                    _ => {}
                }
            }
            if can_go_on(session, &channel, false, true) {
                continue;
            }
            let mut sockets = [PollFd::from_borrowed_fd(socket.as_fd(), interest(session))];
            match poll(&mut sockets, Timespec::try_from(BEAT).ok().as_ref()) {
                Ok(0) if heard.elapsed() > SILENCE => {
                    return Err(lost(format!("nothing was heard for {} s", SILENCE.as_secs())));
                }
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => heard = Instant::now(),
                Err(error) => return Err(lost(error.to_string())),
            }
        }
        let (code, signal) = self.end_of(&mut channel, doing, DONE_WITHIN)?;
        let stderr = String::from_utf8_lossy(&errors).into_owned();
        let doing = doing.to_owned();
        match (signal, code) {
            (Some(signal), _) => Err(SshErrorKind::Signal { doing, signal, stderr }),
            (None, 0) => Ok(()),
            (None, code) => Err(SshErrorKind::Remote { doing, code, stderr }),
        }
    }
}
