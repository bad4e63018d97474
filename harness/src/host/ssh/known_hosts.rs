//! The host keys that the user has accepted: `known_hosts` files (sshd(8), SSH_KNOWN_HOSTS FILE
//! FORMAT), with hashed names, patterns, ports and the marker `@revoked`.
//!
//! libssh2's own check names neither file nor line, knows no patterns, and gives a whole file up at
//! a line that it does not understand. So lines are taken apart here; only hashed names are left to
//! it, which has the hash function.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use ssh2::{CheckResult, KnownHostFileKind, Session};

use super::config::matches_any;

/// The port that names stand for if they carry none.
const STANDARD_PORT: u16 = 22;

/// Keys that are recorded for a host.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// Under its name with the port.
    exact: Vec<Entry>,
    /// Under its name alone although the port is another; good enough to agree, not to disagree.
    without_port: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    line: usize,
    revoked: bool,
    kind: String,
    key: Vec<u8>,
}

/// What the records say of a key that a host shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is recorded.
    Known,
    /// There is no entry.
    Unknown,
    /// Only other keys are recorded, the nearest one here.
    Changed { path: PathBuf, line: usize },
    /// It is marked as revoked here.
    Revoked { path: PathBuf, line: usize },
}

/// The name under which a host and its port are recorded.
pub(super) fn recorded_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    match port {
        STANDARD_PORT => host,
        port => format!("[{host}]:{port}"),
    }
}

impl Recorded {
    /// Looks a host up in these files, as far as they exist. `session` only lends its hash function.
    pub(super) fn read(
        files: &[PathBuf],
        host: &str,
        port: u16,
        session: &Session,
    ) -> Result<Recorded, (PathBuf, io::Error)> {
        let exact = recorded_name(host, port);
        let bare = host.to_ascii_lowercase();
        let mut recorded = Recorded::default();
        for path in files {
            let bytes = match std::fs::read(path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err((path.clone(), error)),
            };
            let text = String::from_utf8_lossy(&bytes);
            for (number, line) in text.lines().enumerate() {
                let Some((names, entry)) = parse(path, number + 1, line) else { continue };
                if means(names, &exact, session) {
                    recorded.exact.push(entry);
                } else if exact != bare && means(names, &bare, session) {
                    recorded.without_port.push(entry);
                }
            }
        }
        Ok(recorded)
    }

    /// Types of the keys that are recorded. Asking the host for one of these keeps a host with
    /// several keys from showing one that nobody has accepted.
    pub(super) fn kinds(&self) -> Vec<&str> {
        let mut kinds = Vec::new();
        for entry in self.exact.iter().chain(&self.without_port).filter(|entry| !entry.revoked) {
            if !kinds.contains(&entry.kind.as_str()) {
                kinds.push(entry.kind.as_str());
            }
        }
        kinds
    }

    /// Whether a key is one of those recorded.
    pub(super) fn judge(&self, key: &[u8]) -> Verdict {
        let mut all = self.exact.iter().chain(&self.without_port);
        if let Some(entry) = all.find(|entry| entry.revoked && entry.key == key) {
            return Verdict::Revoked { path: entry.path.clone(), line: entry.line };
        }
        let mut valid = self.exact.iter().chain(&self.without_port).filter(|entry| !entry.revoked);
        if valid.any(|entry| entry.key == key) {
            return Verdict::Known;
        }
        let mut others = self.exact.iter().filter(|entry| !entry.revoked);
        let kind = kind(key);
        let same = others.clone().find(|entry| entry.kind == kind);
        match same.or_else(|| others.next()) {
            None => Verdict::Unknown,
            Some(entry) => Verdict::Changed { path: entry.path.clone(), line: entry.line },
        }
    }
}

/// The names of a line and what it records. Nothing for comments and what is no host's key.
fn parse<'a>(path: &Path, line: usize, text: &'a str) -> Option<(&'a str, Entry)> {
    let mut words = text.split_whitespace().peekable();
    let marker = words.next_if(|word| word.starts_with('@'));
    let revoked = match marker {
        None => false,
        Some("@revoked") => true,
        // Certificates are not offered.
        Some(_) => return None,
    };
    let names = words.next().filter(|names| !names.starts_with('#'))?;
    let kind = words.next()?.to_owned();
    let key = STANDARD.decode(words.next()?).ok()?;
    Some((names, Entry { path: path.to_owned(), line, revoked, kind, key }))
}

/// Whether the names of a line mean `name`.
fn means(names: &str, name: &str, session: &Session) -> bool {
    if !names.starts_with('|') {
        let patterns: Vec<&str> = names.split(',').collect();
        return matches_any(&patterns, name);
    }
    // Any key will do: it is the name that is asked about.
    const ANY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let Ok(mut hashes) = session.known_hosts() else { return false };
    let line = format!("{names} ssh-ed25519 {ANY}\n");
    hashes.read_str(&line, KnownHostFileKind::OpenSSH).is_ok()
        && matches!(hashes.check(name, b"any"), CheckResult::Match | CheckResult::Mismatch)
}

/// The type of a key: its first string (RFC 4253, 6.6).
pub(super) fn kind(key: &[u8]) -> String {
    let length = key.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    let kind = key.get(4..4 + length).unwrap_or_default();
    String::from_utf8_lossy(kind).into_owned()
}

/// A key's fingerprint, as OpenSSH prints it.
pub(super) fn fingerprint(key: &[u8]) -> String {
    let hash = STANDARD.encode(Sha256::digest(key));
    format!("SHA256:{}", hash.trim_end_matches('='))
}

/// Adds a host's key to a file.
pub(super) fn add(path: &Path, host: &str, port: u16, key: &[u8]) -> io::Result<()> {
    // Several hosts may be met for the first time at once.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file =
        OpenOptions::new().append(true).read(true).create(true).mode(0o600).open(path)?;
    let unfinished = std::fs::read(path)?.last().is_some_and(|byte| *byte != b'\n');
    let name = recorded_name(host, port);
    let line = format!("{name} {} {}\n", kind(key), STANDARD.encode(key));
    let line = if unfinished { format!("\n{line}") } else { line };
    file.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host `lab` at the standard port, hashed by `ssh-keygen -H`.
    const HASHED: &str = "|1|gfbY67ArpzWpcn0OJ6hPdmY5Gjw=|XW1h6wPcWluVH+AT4NKWe8IwSuU=";

    fn key(kind: &str, salt: u8) -> Vec<u8> {
        let mut key = (kind.len() as u32).to_be_bytes().to_vec();
        key.extend_from_slice(kind.as_bytes());
        key.extend([0, 0, 0, 32]);
        key.extend([salt; 32]);
        key
    }

    fn line(names: &str, key: &[u8]) -> String {
        format!("{names} {} {}\n", kind(key), STANDARD.encode(key))
    }

    fn judge(text: &str, host: &str, port: u16, key: &[u8]) -> (Verdict, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known_hosts");
        std::fs::write(&path, text).unwrap();
        let absent = folder.path().join("absent");
        let session = Session::new().unwrap();
        let recorded = Recorded::read(&[absent, path], host, port, &session).unwrap();
        let kinds = recorded.kinds().into_iter().map(str::to_owned).collect();
        (recorded.judge(key), kinds)
    }

    fn line_of(verdict: &Verdict) -> Option<usize> {
        match verdict {
            Verdict::Changed { line, .. } | Verdict::Revoked { line, .. } => Some(*line),
            _ => None,
        }
    }

    #[test]
    fn keys_are_found_by_name_port_and_pattern() {
        let (a, b) = (key("ssh-ed25519", 1), key("ssh-rsa", 2));
        let text = format!(
            "# comment\n\n{}{}{}",
            line("lab,10.0.0.1", &a),
            line("[lab]:2222", &b),
            line("*.example.org,!bad.example.org", &a)
        );
        assert_eq!(judge(&text, "LAB", 22, &a).0, Verdict::Known);
        assert_eq!(judge(&text, "10.0.0.1", 22, &a).0, Verdict::Known);
        let (verdict, kinds) = judge(&text, "lab", 2222, &b);
        assert_eq!(
            (verdict, kinds),
            (Verdict::Known, vec!["ssh-rsa".into(), "ssh-ed25519".into()])
        );
        assert_eq!(judge(&text, "x.example.org", 22, &a).0, Verdict::Known);
        assert_eq!(judge(&text, "bad.example.org", 22, &a).0, Verdict::Unknown);
        assert_eq!(judge(&text, "other", 22, &a), (Verdict::Unknown, vec![]));
    }

    #[test]
    fn another_key_is_a_change_and_the_nearest_line_is_named() {
        let (rsa, a, b) = (key("ssh-rsa", 9), key("ssh-ed25519", 1), key("ssh-ed25519", 2));
        let text = line("lab", &rsa) + &line("lab", &a);
        assert_eq!(line_of(&judge(&text, "lab", 22, &b).0), Some(2));
        assert_eq!(line_of(&judge(&text, "lab", 22, &key("ecdsa", 1)).0), Some(1));
        // Without its port, a name can only agree.
        assert_eq!(judge(&text, "lab", 2222, &a).0, Verdict::Known);
        assert_eq!(judge(&text, "lab", 2222, &b).0, Verdict::Unknown);
    }

    #[test]
    fn a_revoked_key_is_never_good() {
        let a = key("ssh-ed25519", 1);
        let text = line("lab", &a) + "@revoked " + &line("*", &a);
        assert_eq!(line_of(&judge(&text, "lab", 22, &a).0), Some(2));
        let text = "@cert-authority ".to_owned() + &line("lab", &a);
        assert_eq!(judge(&text, "lab", 22, &a).0, Verdict::Unknown);
    }

    #[test]
    fn hashed_names_are_recognised() {
        let a = key("ssh-ed25519", 1);
        let text = line(HASHED, &a);
        assert_eq!(judge(&text, "lab", 22, &a).0, Verdict::Known);
        assert_eq!(line_of(&judge(&text, "lab", 22, &key("ssh-rsa", 1)).0), Some(1));
        assert_eq!(judge(&text, "lab2", 22, &a).0, Verdict::Unknown);
        assert_eq!(judge(&text, "lab", 22, &a).1, ["ssh-ed25519"]);
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        let a = key("ssh-ed25519", 1);
        let text = "|1|x|y ssh-rsa AAAA\nlab\nlab ssh-rsa ???\n@\n".to_owned() + &line("lab", &a);
        assert_eq!(judge(&text, "lab", 22, &a).0, Verdict::Known);
    }

    #[test]
    fn an_accepted_key_is_known_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/known_hosts");
        let (a, b) = (key("ssh-ed25519", 1), key("ssh-ed25519", 2));
        add(&path, "lab", 2222, &a).unwrap();
        let unfinished = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, unfinished.trim_end()).unwrap();
        add(&path, "other", 22, &b).unwrap();
        let session = Session::new().unwrap();
        for (host, port, key) in [("lab", 2222, &a), ("other", 22, &b)] {
            let recorded =
                Recorded::read(std::slice::from_ref(&path), host, port, &session).unwrap();
            assert_eq!(recorded.judge(key), Verdict::Known);
        }
    }

    #[test]
    fn fingerprints_are_those_of_openssh() {
        // `ssh-keygen -lf` of this very key.
        let key = STANDARD
            .decode("AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
            .unwrap();
        assert_eq!(fingerprint(&key), "SHA256:kmYcvdi2GkPeWxB6XLjrZB8JHsy2Hm8luHMFp9GMvqk");
        assert_eq!(kind(&key), "ssh-ed25519");
    }
}
