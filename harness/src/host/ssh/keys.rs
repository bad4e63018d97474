//! Private keys: reading them, refusing what would fail later and less clearly, and passphrases.

use std::{
    collections::BTreeMap,
    fmt,
    fs::OpenOptions,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::error::SshErrorKind;

/// Environment variable with the passphrase of encrypted keys.
pub(super) const PASSPHRASE: &str = "SRAFT_SSH_PASSPHRASE";

/// A passphrase, which is not shown.
#[derive(Clone)]
pub(crate) struct Passphrase(pub(crate) String);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// No private key is larger.
const LARGEST: u64 = 1 << 16;

/// A private key that looks usable.
pub(super) struct PrivateKey {
    pub(super) path: PathBuf,
    pub(super) text: String,
    encrypted: bool,
}

impl PrivateKey {
    /// Reads a key file. What OpenSSH would refuse is refused here too.
    pub(super) fn read(path: &Path) -> Result<PrivateKey, SshErrorKind> {
        let wrong = |message: String| SshErrorKind::Key { path: path.to_owned(), message };
        let cannot = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                wrong("is not there; check key = \"...\" in the inventory".to_owned())
            }
            _ => wrong(format!("cannot be read: {error}")),
        };
        let mut file = std::fs::File::open(path).map_err(cannot)?;
        let meta = file.metadata().map_err(cannot)?;
        let mode = meta.mode() & 0o777;
        let ours = meta.uid() == rustix::process::geteuid().as_raw();
        if ours && mode & 0o077 != 0 {
            return Err(wrong(format!(
                "may be read by others (mode {mode:04o}), so SSH does not use it; \
                 run: chmod 600 {}",
                path.display()
            )));
        }
        let mut text = String::new();
        let not_a_key = "is no private key; give the file that your key pair's private half is in";
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(wrong(not_a_key.to_owned()));
        }
        match file.read_to_string(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(wrong(not_a_key.to_owned()));
            }
            read => read.map_err(cannot)?,
        };
        if text.starts_with("PuTTY-User-Key-File") {
            return Err(wrong(
                "is a key in PuTTY's format; convert it with `puttygen FILE -O private-openssh -o \
                 FILE.pem`"
                    .to_owned(),
            ));
        }
        if ["ssh-", "ecdsa-"].iter().any(|start| text.starts_with(start)) {
            return Err(wrong("is the public half; give the private one (without .pub)".into()));
        }
        if !text.contains("PRIVATE KEY-----") {
            return Err(wrong(not_a_key.to_owned()));
        }
        let encrypted = is_encrypted(&text);
        Ok(PrivateKey { path: path.to_owned(), text, encrypted })
    }

    /// Whether it needs a passphrase.
    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The passphrase, if the key needs one: the one that is given, or asked for at the terminal,
    /// once for each key however many hosts it opens.
    pub(super) fn passphrase(
        &self,
        given: Option<&Passphrase>,
    ) -> Result<Option<String>, SshErrorKind> {
        if !self.encrypted {
            return Ok(None);
        }
        if let Some(Passphrase(passphrase)) = given {
            return Ok(Some(passphrase.clone()));
        }
        static ASKED: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());
        let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(passphrase) = asked.get(&self.path) {
            return Ok(Some(passphrase.clone()));
        }
        let passphrase = ask(&self.path).map_err(|_| SshErrorKind::Key {
            path: self.path.clone(),
            message: format!(
                "is encrypted and there is no terminal to ask for its passphrase; set \
                 {PASSPHRASE}, or add the key to ssh-agent"
            ),
        })?;
        asked.insert(self.path.clone(), passphrase.clone());
        Ok(Some(passphrase))
    }

    /// What is wrong if the key could not be taken apart although it looked like one.
    pub(super) fn unusable(&self, why: &str) -> SshErrorKind {
        let message = match self.encrypted {
            true => format!("cannot be decrypted ({why}); check the passphrase"),
            false => format!("cannot be used ({why}); make a new one with `ssh-keygen -t ed25519`"),
        };
        SshErrorKind::Key { path: self.path.clone(), message }
    }
}

/// Whether a private key is encrypted, by its format's own mark: PKCS #8 in its armour's name
/// (RFC 5958), traditional PEM in a header (RFC 1421), OpenSSH in its cipher's name
/// (openssh PROTOCOL.key).
fn is_encrypted(text: &str) -> bool {
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return true;
    }
    let body: String = text
        .lines()
        .skip_while(|line| !line.contains("BEGIN OPENSSH PRIVATE KEY"))
        .skip(1)
        .take_while(|line| !line.starts_with('-'))
        .map(str::trim)
        .collect();
    let Ok(body) = STANDARD.decode(body) else { return false };
    let Some(cipher) = body.strip_prefix(b"openssh-key-v1\0\0\0\0".as_slice()) else {
        return false;
    };
    !cipher.starts_with(b"\x04none")
}

/// Asks at the terminal, without showing what is typed.
fn ask(path: &Path) -> io::Result<String> {
    let mut tty = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let before = tcgetattr(&tty)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    write!(tty, "Passphrase of {}: ", path.display())?;
    tcsetattr(&tty, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = BufReader::new(&tty).read_line(&mut line);
    tcsetattr(&tty, OptionalActions::Flush, &before)?;
    writeln!(tty)?;
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn refusal(text: &str, mode: u32) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        match PrivateKey::read(&path) {
            Ok(_) => String::new(),
            Err(error) => error.to_string().replace(&*folder.path().to_string_lossy(), "DIR"),
        }
    }

    #[test]
    fn what_is_no_private_key_is_refused_with_the_remedy() {
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nx\n";
        assert_eq!(refusal(pem, 0o600), "");
        let refusals = [
            refusal(pem, 0o644),
            refusal("PuTTY-User-Key-File-3: ssh-ed25519\n", 0o600),
            refusal("ssh-ed25519 AAAA me@here\n", 0o600),
            refusal("hello", 0o600),
            PrivateKey::read(Path::new("/no/such/key")).err().unwrap().to_string(),
        ];
        insta::assert_snapshot!(refusals.join("\n"), @r#"
        the key DIR/key: may be read by others (mode 0644), so SSH does not use it; run: chmod 600 DIR/key
        the key DIR/key: is a key in PuTTY's format; convert it with `puttygen FILE -O private-openssh -o FILE.pem`
        the key DIR/key: is the public half; give the private one (without .pub)
        the key DIR/key: is no private key; give the file that your key pair's private half is in
        the key /no/such/key: is not there; check key = "..." in the inventory
        "#);
    }

    #[test]
    fn encrypted_keys_are_recognised_in_every_format() {
        let openssh = |cipher: &[u8]| {
            let mut body = b"openssh-key-v1\0".to_vec();
            body.extend((cipher.len() as u32).to_be_bytes());
            body.extend_from_slice(cipher);
            body.extend([0; 40]);
            let body = STANDARD.encode(body);
            format!(
                "-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n"
            )
        };
        assert!(!is_encrypted(&openssh(b"none")));
        assert!(is_encrypted(&openssh(b"aes256-ctr")));
        assert!(is_encrypted("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
        assert!(is_encrypted("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"));
        assert!(!is_encrypted("-----BEGIN EC PRIVATE KEY-----\nAAAA\n"));
    }
}
