//! Whether hosts let one another through: listening at ports, and knocking at those of others.

use std::{
    io,
    net::{TcpListener, TcpStream, ToSocketAddrs},
    time::Duration,
};

use crate::protocol::Knock;

/// Ports that are held open. The kernel itself accepts who knocks.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: Vec<TcpListener>,
}

impl Ports {
    /// Listens at these addresses from now on, and at no others. Returns why not, for each where it
    /// cannot.
    pub(crate) fn hold(&mut self, at: &[String]) -> Vec<Option<String>> {
        self.held.clear();
        at.iter()
            .map(|at| match TcpListener::bind(at.as_str()) {
                Ok(listener) => {
                    self.held.push(listener);
                    None
                }
                Err(error) => Some(error.to_string()),
            })
            .collect()
    }
}

/// Knocks at all of these addresses at the same time.
pub(crate) fn knock(at: &[String], within: Duration) -> Vec<Knock> {
    std::thread::scope(|scope| {
        let knocks: Vec<_> =
            at.iter().map(|at| scope.spawn(move || knock_at(at, within))).collect();
        let gone = || Knock::Failed { why: "the attempt broke off".to_owned() };
        knocks.into_iter().map(|knock| knock.join().unwrap_or_else(|_| gone())).collect()
    })
}

fn knock_at(at: &str, within: Duration) -> Knock {
    let failed = |error: io::Error| Knock::Failed { why: error.to_string() };
    let address = match at.to_socket_addrs().map(|mut all| all.next()) {
        Ok(Some(address)) => address,
        Ok(None) => return failed(io::ErrorKind::NotFound.into()),
        Err(error) => return failed(error),
    };
    match TcpStream::connect_timeout(&address, within) {
        Ok(_) => Knock::Open,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Knock::Refused,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Knock::Silent,
        Err(error) => failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_ports_are_told_from_closed_ones() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = free.local_addr().unwrap().to_string();
        let mut ports = Ports::default();
        assert!(ports.hold(std::slice::from_ref(&at))[0].is_some(), "it is taken");
        drop(free);
        let all = [at.clone(), "no-such-host.invalid:1".to_owned()];
        let brief = Duration::from_secs(5);
        assert_eq!(knock(&all[..1], brief), [Knock::Refused]);
        assert_eq!(ports.hold(std::slice::from_ref(&at)), [None]);
        let found = knock(&all, brief);
        assert_eq!(found[0], Knock::Open);
        assert!(matches!(found[1], Knock::Failed { .. }), "{found:?}");
        ports.hold(&[]);
        assert_eq!(knock(&all[..1], brief), [Knock::Refused]);
    }
}
