//! How far this host's clock is from another's.
//!
//! Agents compare their monotonic clocks over UDP, in bursts of one ping after the other. A ping
//! takes four stamps, as NTP does (RFC 5905, section 8): sent, received, answered, back. Of a burst
//! the one with the least round trip counts: whatever delays a packet on one way only falsifies the
//! offset by at most half the round trip, and the quickest packet was delayed least. That half is
//! also the bound: the true offset lies within it, whatever the two ways are like.

use std::{
    io,
    net::{ToSocketAddrs, UdpSocket},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::{clock, protocol::Comparison};

/// Pings of a burst.
const PINGS: u32 = 40;

/// How long a burst may take.
const BURST_WITHIN: Duration = Duration::from_secs(2);

/// How long one ping is waited for.
const PING_WITHIN: Duration = Duration::from_millis(400);

/// What every packet begins with.
const MAGIC: &[u8; 8] = b"sraftck1";

/// The mark, the ping's number, and three stamps. A question is as long as its answer, so that
/// nobody can be flooded by way of an agent.
const LENGTH: usize = 40;

/// A packet on its way: number, sent, received, answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packet {
    number: u64,
    stamps: [u64; 3],
}

impl Packet {
    fn write(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        let numbers = std::iter::once(self.number).chain(self.stamps);
        for (place, number) in bytes[8..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Packet> {
        let numbers = bytes.strip_prefix(MAGIC)?;
        if numbers.len() != LENGTH - MAGIC.len() {
            return None;
        }
        let mut numbers = numbers.chunks_exact(8).map(|chunk| {
            u64::from_be_bytes(chunk.try_into().expect("chunks of eight have eight bytes"))
        });
        let mut next = || numbers.next();
        Some(Packet { number: next()?, stamps: [next()?, next()?, next()?] })
    }
}

/// Answers the pings of others for as long as it lives, in a thread of its own: an answer that has
/// to wait for something else makes the comparison worse.
#[derive(Debug)]
pub(crate) struct Answering {
    /// Where it listens, as it was asked for.
    pub(crate) at: String,
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    /// Listens at `at`, such as `10.0.1.10:5000`.
    pub(crate) fn start(at: &str) -> Result<Answering, String> {
        let failed = |error: io::Error| {
            format!(
                "cannot answer clock pings at UDP {at}: {error}; set addr and clock_port of the \
                 host in the inventory to an address and a port of its own"
            )
        };
        let socket = UdpSocket::bind(at).map_err(failed)?;
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name("clock".to_owned())
            .spawn(move || answer(&socket, &OwnedFd::from(stopped)))
            .map_err(failed)?;
        Ok(Answering { at: at.to_owned(), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(socket: &UdpSocket, stopped: &OwnedFd) {
    // One byte longer, so that a packet that is too long shows.
    let mut buffer = [0; LENGTH + 1];
    loop {
        let mut both = [
            PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
        ];
        match poll(&mut both, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        if !both[1].revents().is_empty() {
            return;
        }
        if both[0].revents().is_empty() {
            continue;
        }
        // Errors are those of packets that went astray, and of no interest to the next one.
        if let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let received = clock::read().mono_ns;
            if let Some(mut packet) = Packet::read(&buffer[..n]) {
                packet.stamps[1] = received;
                packet.stamps[2] = clock::read().mono_ns;
                let _ = socket.send_to(&packet.write(), from);
            }
        }
    }
}

/// Compares this host's monotonic clock with that of an agent that answers at `with`.
pub(crate) fn compare(with: &str) -> Result<Comparison, String> {
    let failed =
        |error: io::Error| format!("cannot compare clocks with the agent at UDP {with}: {error}");
    let address = with.to_socket_addrs().map_err(failed)?.next();
    let address = address.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(failed)?;
    socket.connect(address).map_err(failed)?;
    socket.set_read_timeout(Some(PING_WITHIN)).map_err(failed)?;
    let deadline = Instant::now() + BURST_WITHIN;
    let mut best: Option<Comparison> = None;
    let mut answered = 0;
    for number in 0..PINGS {
        if Instant::now() > deadline {
            break;
        }
        let Some(stamps) = ping(&socket, number) else { continue };
        answered += 1;
        let this = comparison(stamps);
        if best.is_none_or(|best| this.rtt_ns < best.rtt_ns) {
            best = Some(this);
        }
    }
    best.map(|best| Comparison { answered, ..best }).ok_or_else(|| {
        format!(
            "no agent answers clock pings at UDP {with}: let that port through between the hosts \
             (in a security group: UDP from the group itself)"
        )
    })
}

/// One ping: sent, received there, answered there, back.
fn ping(socket: &UdpSocket, number: u32) -> Option<[u64; 4]> {
    let sent = clock::read().mono_ns;
    // The stamp of its sending makes an answer to another question recognisable.
    let question = Packet { number: u64::from(number) ^ sent, stamps: [sent, 0, 0] };
    socket.send(&question.write()).ok()?;
    let deadline = Instant::now() + PING_WITHIN;
    let mut buffer = [0; LENGTH + 1];
    while Instant::now() < deadline {
        let n = socket.recv(&mut buffer).ok()?;
        let back = clock::read().mono_ns;
        let answer = Packet::read(&buffer[..n]);
        // Late answers to earlier pings are passed over.
        if let Some(answer) = answer.filter(|answer| answer.number == question.number) {
            let [_, received, answered] = answer.stamps;
            return Some([sent, received, answered, back]);
        }
    }
    None
}

/// What one ping says: RFC 5905, section 8, with the round trip less the time spent there.
fn comparison([sent, received, answered, back]: [u64; 4]) -> Comparison {
    let difference = |to: u64, from: u64| i128::from(to) - i128::from(from);
    let there = difference(received, sent);
    let here = difference(answered, back);
    let rtt = difference(back, sent) - difference(answered, received);
    let narrow = |wide: i128| i64::try_from(wide).unwrap_or(i64::MAX);
    Comparison {
        offset_ns: narrow((there + here).div_euclid(2)),
        rtt_ns: u64::try_from(rtt).unwrap_or(0),
        answered: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> String {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    #[test]
    fn an_agent_on_the_same_host_has_the_same_clock_within_the_bound() {
        let answering = Answering::start(&port()).unwrap();
        let found = compare(&answering.at).unwrap();
        assert!(found.answered > PINGS / 2);
        assert!(found.offset_ns.unsigned_abs() <= found.bound_ns(), "{found:?}");
        assert!(found.rtt_ns > 0);
    }

    #[test]
    fn stamps_give_offset_and_round_trip() {
        // Their clock is 1000 ahead; 30 there, 5 spent, 50 back.
        let found = comparison([100, 1130, 1135, 185]);
        assert_eq!(found, Comparison { offset_ns: 990, rtt_ns: 80, answered: 1 });
        assert_eq!(found.bound_ns(), 40);
        assert!((found.offset_ns - 1000).unsigned_abs() <= found.bound_ns());
        // Behind, and far behind.
        assert_eq!(comparison([1000, 40, 50, 1030]).offset_ns, -970);
        let far = comparison([u64::MAX / 4, 10, 10, u64::MAX / 4 + 20]);
        assert_eq!(far.offset_ns, -((u64::MAX / 4) as i64));
    }

    #[test]
    fn an_agent_that_does_not_answer_is_said_not_to_in_time() {
        // Somebody listens, but says nothing.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = silent.local_addr().unwrap().to_string();
        let begun = Instant::now();
        let said = compare(&at).unwrap_err();
        assert!(said.contains("let that port through"), "{said}");
        assert!(begun.elapsed() < 3 * BURST_WITHIN);
    }

    #[test]
    fn what_is_no_ping_is_not_answered_and_does_no_harm() {
        let answering = Answering::start(&port()).unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        for noise in [&b""[..], b"hello", &[0; LENGTH], &[b'x'; 2000]] {
            stranger.send_to(noise, &answering.at).unwrap();
        }
        let packet = Packet { number: 7, stamps: [1, 2, 3] };
        assert_eq!(Packet::read(&packet.write()), Some(packet));
        compare(&answering.at).unwrap();
        stranger.set_nonblocking(true).unwrap();
        assert!(stranger.recv(&mut [0; 100]).is_err(), "noise was answered");
    }

    #[test]
    fn a_port_that_is_taken_is_said() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap().to_string();
        let said = Answering::start(&at).unwrap_err();
        assert!(said.contains(&at) && said.contains("clock_port"), "{said}");
    }
}
