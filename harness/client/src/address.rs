//! Where a system is reached.

use std::{fmt, str::FromStr};

use tonic::codegen::http::Uri;

/// An endpoint, `HOST:PORT`, as given by a user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
    origin: Uri,
}

/// Why a text is no endpoint.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no endpoint: {why}")]
pub struct BadAddress {
    text: String,
    why: &'static str,
}

impl Address {
    /// The host's name or address, IPv6 without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `http://HOST:PORT`, which requests name as their origin.
    pub(crate) fn origin(&self) -> &Uri {
        &self.origin
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    /// Accepts `HOST:PORT` and, as etcd's own tools do, `http://HOST:PORT`.
    fn from_str(text: &str) -> Result<Address, BadAddress> {
        let bad = |why| BadAddress { text: text.to_owned(), why };
        if text.starts_with("https://") {
            return Err(bad("TLS is not spoken here; give the system a plain-text port"));
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| bad("write HOST:PORT"))?;
        let port = port.parse().map_err(|_| bad("the port is a number from 1 to 65535"))?;
        if port == 0 {
            return Err(bad("the port is a number from 1 to 65535"));
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(bad("put an IPv6 address into brackets, as in [::1]:2379"));
        }
        if host.is_empty() {
            return Err(bad("the host is missing; write HOST:PORT"));
        }
        let origin = format!("http://{host}:{port}");
        let origin = origin.parse().map_err(|_| bad("the host is no name and no address"))?;
        Ok(Address { host: bare.unwrap_or(host).to_owned(), port, origin })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_shown() {
        for (text, shown) in [
            ("a:1", "a:1"),
            ("http://10.0.0.1:2379", "10.0.0.1:2379"),
            ("http://node-1:2379/", "node-1:2379"),
            ("[::1]:2379", "[::1]:2379"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
        }
        for (text, remedy) in [
            ("", "HOST:PORT"),
            ("a", "HOST:PORT"),
            (":1", "host is missing"),
            ("a:", "1 to 65535"),
            ("a:0", "1 to 65535"),
            ("a:65536", "1 to 65535"),
            ("::1:2379", "brackets"),
            ("https://a:1", "plain-text"),
            ("a b:1", "no name"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(remedy), "{error}");
        }
    }
}
