//! The agent's channel: a thread that carries bytes between the harness and the agent, and notices
//! when nobody is there any more.
//!
//! The harness sees a socket, as if the agent were a process of its own. The thread owns the SSH
//! session alone and never blocks in it. It also keeps the agent's lease: the agent hears a line
//! break every [`BEAT`], and undoes everything when it has heard nothing for the time that it was
//! told in its greeting. So both ends notice within [`SILENCE`] that packets are dropped.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::Channel;

use super::{
    connection::{Connection, can_go_on, interest, would_block},
    error::{SshError, SshErrorKind},
};
use crate::host::{Agent, Input, Link, read};

/// How often the agent is told that the harness lives, and the SSH server is asked whether it does.
const BEAT: Duration = Duration::from_secs(2);

/// After so much silence, either end takes the connection for dead.
pub(crate) const SILENCE: Duration = Duration::from_secs(8);

/// How long an agent may take to be started.
const STARTED_WITHIN: Duration = Duration::from_secs(15);

/// How long an agent may take to end once its input has closed. It waits up to five seconds itself
/// for nodes that it has killed.
const ENDED_WITHIN: Duration = Duration::from_secs(8);

/// How much may wait on the way, in either direction, before no more is taken up.
const MOST_WAITING: usize = 8 << 20;

/// What is kept of the agent's standard error, in bytes.
const LAST_WORDS: usize = 2 << 10;

/// Starts an agent on a host. What it says arrives as that of agent number `agent`.
pub(crate) fn start(
    connection: Connection,
    program: &str,
    agent: usize,
    inbox: Sender<Input>,
) -> Result<Agent, SshError> {
    let host = connection.name().to_owned();
    let script = r#"exec "$1" agent"#;
    let doing = "starting the agent";
    let channel = connection
        .start(doing, script, &[program], STARTED_WITHIN)
        .map_err(|kind| kind.at(&host))?;
    connection.parts().0.set_keepalive(true, BEAT.as_secs() as u32);
    let here = |error: io::Error| {
        SshErrorKind::Lost { doing: doing.to_owned(), why: error.to_string() }.at(&host)
    };
    let (ours, theirs) = UnixStream::pair().map_err(here)?;
    theirs.set_nonblocking(true).map_err(here)?;
    // The thread never stalls, so neither do we; still nothing may wait for ever.
    ours.set_write_timeout(Some(SILENCE)).map_err(here)?;
    let said = ours.try_clone().map_err(here)?;
    let mut carrier = Carrier {
        connection,
        channel,
        local: theirs,
        to_agent: VecDeque::new(),
        to_harness: VecDeque::new(),
        errors: Vec::new(),
        heard: Instant::now(),
        beat: Instant::now(),
        closing: None,
        eof_sent: false,
    };
    let end = Arc::new(Mutex::new(None::<String>));
    let known = Arc::clone(&end);
    let carrier = std::thread::Builder::new().name(format!("ssh {agent}")).spawn(move || {
        let why = carrier.carry();
        *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        // Only now does the socket close, which the reader takes for the end.
    });
    let carrier = carrier.map_err(here)?;
    let reader = std::thread::Builder::new().name(format!("agent {agent}")).spawn(move || {
        read(agent, said, &inbox, || known.lock().unwrap_or_else(PoisonError::into_inner).take());
    });
    let reader = reader.map_err(here)?;
    let local = ours.try_clone().map_err(here)?;
    let link = Remote { local, threads: vec![carrier, reader] };
    Ok(Agent::new(Box::new(ours), Box::new(link)))
}

/// The harness's end of it.
#[derive(Debug)]
struct Remote {
    local: UnixStream,
    threads: Vec<JoinHandle<()>>,
}

impl Link for Remote {
    fn close(&mut self) {
        // Clones of the socket are about, so dropping one tells nobody anything. An error means
        // that the other side is closed already.
        let _ = self.local.shutdown(Shutdown::Write);
        // Every wait of these threads has a deadline.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Carrier {
    connection: Connection,
    channel: Channel,
    local: UnixStream,
    to_agent: VecDeque<u8>,
    to_harness: VecDeque<u8>,
    /// The end of the agent's standard error.
    errors: Vec<u8>,
    /// When anything last came from the host.
    heard: Instant,
    /// When the agent was last told that the harness lives.
    beat: Instant,
    /// The harness has closed its side; until when the agent may take to end.
    closing: Option<Instant>,
    eof_sent: bool,
}

impl Carrier {
    /// Carries until one side is gone, and says why.
    fn carry(&mut self) -> String {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let mut progress = self.take_requests(&mut buffer);
            self.beat();
            match self.send(&mut buffer) {
                Ok(sent) => progress |= sent,
                Err(why) => return why,
            }
            // libssh2 must not begin another packet while one is half on its way.
            if !interest(self.connection.parts().0).contains(PollFlags::OUT) {
                match self.receive(&mut buffer) {
                    Ok(received) => progress |= received,
                    Err(why) => return why,
                }
            }
            progress |= self.pass_on();
            if self.channel.eof() && self.to_harness.is_empty() {
                return self.end();
            }
            let now = Instant::now();
            if now > self.heard + SILENCE {
                return format!(
                    "the connection was lost: nothing was heard for {} s",
                    SILENCE.as_secs()
                );
            }
            if self.closing.is_some_and(|deadline| now > deadline) {
                return format!("it has not ended within {} s", ENDED_WITHIN.as_secs());
            }
            if !progress
                && !self.can_go_on()
                && let Err(error) = self.wait()
            {
                return format!("cannot wait for the connection: {error}");
            }
        }
    }

    /// Takes up what the harness has to say.
    fn take_requests(&mut self, buffer: &mut [u8]) -> bool {
        if self.closing.is_some() || self.to_agent.len() > MOST_WAITING {
            return false;
        }
        match self.local.read(buffer) {
            Ok(n) if n > 0 => {
                self.to_agent.extend(&buffer[..n]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Ok(_) | Err(_) => {
                self.closing = Some(Instant::now() + ENDED_WITHIN);
                true
            }
        }
    }

    /// Keeps both ends from taking the other for dead.
    fn beat(&mut self) {
        // Between other things only: see `send`.
        if self.beat.elapsed() < BEAT || !self.to_agent.is_empty() || self.eof_sent {
            return;
        }
        self.beat = Instant::now();
        if self.closing.is_none() {
            self.to_agent.push_back(b'\n');
        }
        // libssh2 keeps every answer for ever, so none is asked for while the agent talks by itself.
        if self.heard.elapsed() >= BEAT {
            // What cannot be sent now will be missed, and that is noticed.
            let _ = self.connection.parts().0.keepalive_send();
        }
    }

    fn send(&mut self, buffer: &mut [u8]) -> Result<bool, String> {
        let mut progress = false;
        while !self.to_agent.is_empty() {
            let n = self.to_agent.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(&self.to_agent) {
                *to = *from;
            }
            match self.channel.write(&buffer[..n]) {
                Ok(n) => {
                    self.to_agent.drain(..n);
                    progress |= n > 0;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(progress),
                // It has ended, and says why by itself.
                Err(_) if self.channel.eof() => {
                    self.to_agent.clear();
                    return Ok(true);
                }
                Err(error) => return Err(self.lost(&error)),
            }
        }
        if self.closing.is_some() && !self.eof_sent {
            match self.channel.send_eof() {
                Ok(()) => {
                    self.eof_sent = true;
                    progress = true;
                }
                Err(error) if would_block(&error) => {}
                Err(error) => return Err(self.lost(&error)),
            }
        }
        Ok(progress)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<bool, String> {
        let mut progress = false;
        for stream in [0, 1] {
            if stream == 0 && self.to_harness.len() > MOST_WAITING {
                continue;
            }
            match self.channel.stream(stream).read(buffer) {
                Ok(0) => {}
                Ok(n) if stream == 0 => {
                    self.to_harness.extend(&buffer[..n]);
                    progress = true;
                }
                Ok(n) => {
                    self.errors.extend_from_slice(&buffer[..n]);
                    let surplus = self.errors.len().saturating_sub(LAST_WORDS);
                    self.errors.drain(..surplus);
                    progress = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.lost(&error)),
            }
        }
        if progress {
            self.heard = Instant::now();
        }
        Ok(progress)
    }

    /// Hands the harness what has come.
    fn pass_on(&mut self) -> bool {
        if self.to_harness.is_empty() {
            return false;
        }
        match self.local.write(self.to_harness.as_slices().0) {
            Ok(n) => {
                self.to_harness.drain(..n);
                n > 0
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                // Nobody listens any more.
                self.to_harness.clear();
                self.closing.get_or_insert(Instant::now() + ENDED_WITHIN);
                true
            }
        }
    }

    fn can_go_on(&self) -> bool {
        let sends = !self.to_agent.is_empty();
        let reads = self.to_harness.len() <= MOST_WAITING;
        can_go_on(self.connection.parts().0, &self.channel, sends, reads)
    }

    fn wait(&mut self) -> io::Result<()> {
        let (session, socket) = self.connection.parts();
        let mut harness = PollFlags::empty();
        if self.closing.is_none() && self.to_agent.len() <= MOST_WAITING {
            harness |= PollFlags::IN;
        }
        if !self.to_harness.is_empty() {
            harness |= PollFlags::OUT;
        }
        let mut both = vec![PollFd::from_borrowed_fd(socket.as_fd(), interest(session))];
        // A socket whose other end is gone is always ready; it is left out once that is known.
        if !harness.is_empty() {
            both.push(PollFd::from_borrowed_fd(self.local.as_fd(), harness));
        }
        let mut timeout = (self.beat + BEAT).saturating_duration_since(Instant::now());
        if let Some(deadline) = self.closing {
            timeout = timeout.min(deadline.saturating_duration_since(Instant::now()));
        }
        let timeout = timeout.max(Duration::from_millis(1));
        match poll(&mut both, Timespec::try_from(timeout).ok().as_ref()) {
            Ok(_) => {
                if both[0].revents().contains(PollFlags::IN) {
                    self.heard = Instant::now();
                }
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How the agent ended.
    fn end(&mut self) -> String {
        let ended = self.connection.end_of(&mut self.channel, "the agent ended", ENDED_WITHIN);
        match ended {
            Err(kind) => kind.to_string(),
            Ok((_, Some(signal))) => format!("was ended by signal {signal}{}", self.last_words()),
            Ok((0, None)) => format!("it has ended{}", self.last_words()),
            Ok((code, None)) => format!("it ended with code {code}{}", self.last_words()),
        }
    }

    fn lost(&self, error: &dyn std::fmt::Display) -> String {
        format!("the connection was lost: {error}{}", self.last_words())
    }

    fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.errors);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        match lines.is_empty() {
            true => String::new(),
            false => format!("; its last words: {}", lines.join(" | ")),
        }
    }
}
