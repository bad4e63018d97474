//! The TCP connection to a host.

use std::{
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::net::sockopt;

use super::error::SshErrorKind;

/// How long a TCP connection may take to come about, over all addresses of a name.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// How long a name may take to be resolved.
const RESOLVED_WITHIN: Duration = Duration::from_secs(10);

/// How long a host may leave what it is sent, or asked, without an answer of its kernel, however long
/// the work takes that it was given.
const DEAD_AFTER: Duration = Duration::from_secs(20);

/// How long nothing may be said before its kernel is asked whether it is there, and how often then.
const IDLE: Duration = Duration::from_secs(8);
const ASKED_EVERY: Duration = Duration::from_secs(4);

/// Connects to the first address of a name that answers.
pub(super) fn connect(host: &str, port: u16) -> Result<TcpStream, SshErrorKind> {
    let addresses = resolve(host, port)?;
    let deadline = Instant::now() + CONNECTED_WITHIN;
    let mut failure = None;
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / (addresses.len() - index) as u32;
        if share.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => {
                let failed =
                    |source| SshErrorKind::Connect { address: address.to_string(), source };
                watch(&stream).map_err(failed)?;
                return Ok(stream);
            }
            Err(error) => {
                failure.get_or_insert((address, error));
            }
        }
    }
    let timed_out = |address: &dyn std::fmt::Display| SshErrorKind::TimedOut {
        doing: format!("connecting to {address}"),
        after: CONNECTED_WITHIN,
        connecting: true,
    };
    Err(match failure {
        None => timed_out(&host),
        Some((address, error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                SshErrorKind::Refused { address: address.to_string() }
            }
            io::ErrorKind::TimedOut => timed_out(address),
            _ => SshErrorKind::Connect { address: address.to_string(), source: error },
        },
    })
}

/// Has the kernel give up a connection whose host has gone without a word (tcp(7),
/// TCP_USER_TIMEOUT), such as one that loses its power during an upload.
fn watch(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_user_timeout(stream, DEAD_AFTER.as_millis() as u32)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, ASKED_EVERY)?;
    Ok(())
}

/// The addresses of a name. The system's resolver cannot be told how long to try, so it works in a
/// thread that is left to itself when the time is over.
fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, SshErrorKind> {
    let fail = |why: String| SshErrorKind::Resolve { name: host.to_owned(), why };
    let (sender, receiver) = mpsc::channel();
    let name = host.to_owned();
    std::thread::Builder::new()
        .name("resolve".to_owned())
        .spawn(move || {
            let addresses = (name.as_str(), port).to_socket_addrs();
            let _ = sender.send(addresses.map(Iterator::collect::<Vec<_>>));
        })
        .map_err(|error| fail(error.to_string()))?;
    let addresses = receiver
        .recv_timeout(RESOLVED_WITHIN)
        .map_err(|_| fail(format!("no answer within {} s", RESOLVED_WITHIN.as_secs())))?
        .map_err(|error| fail(error.to_string()))?;
    match addresses.is_empty() {
        true => Err(fail("it has no address".to_owned())),
        false => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_nowhere_is_said_to() {
        let error = resolve("no-such-host.invalid", 22).unwrap_err().to_string();
        assert!(error.starts_with("cannot resolve `no-such-host.invalid`"), "{error}");
    }
}
