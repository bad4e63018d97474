//! An SSH server of this user's own on the loopback interface, for tests.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// An SSH server of this user's own, with a folder for everything.
pub(crate) struct Server {
    pub(crate) folder: tempfile::TempDir,
    process: Child,
    pub(crate) port: u16,
    /// Ends when the server does.
    log: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one with these types of host keys. None, and says so, where there is no sshd; CI has
    /// to have one.
    pub(crate) fn start(host_keys: &[&str]) -> Option<Server> {
        let Some(sshd) = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"]
            .into_iter()
            .find(|path| Path::new(path).exists())
        else {
            assert!(std::env::var_os("CI").is_none(), "CI needs sshd; install openssh-server");
            eprintln!("skipped: there is no sshd; install openssh-server");
            return None;
        };
        if rustix::process::geteuid().is_root() {
            // sshd insists on it when it is root; packages leave making it to the init system.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        for kind in host_keys {
            keygen(&folder.path().join(format!("host_{kind}")), kind, "");
        }
        fs::write(folder.path().join("authorized_keys"), "").unwrap();
        // The port may be taken in the moment between its choice and its use.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some((process, log)) = serve(sshd, folder.path(), host_keys, port) {
                return Some(Server { folder, process, port, log: Some(log) });
            }
        }
        panic!("sshd found no free port");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The user that it lets in: the one that runs it.
    pub(crate) fn user(&self) -> String {
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        String::from_utf8(user).unwrap().trim().to_owned()
    }

    /// Makes a key pair that the server lets in.
    pub(crate) fn key(&self, kind: &str, passphrase: &str) -> PathBuf {
        let path = self.path(&format!("key_{kind}_{}", passphrase.len()));
        if path.exists() {
            return path;
        }
        keygen(&path, kind, passphrase);
        let public = fs::read(path.with_extension("pub")).unwrap();
        let keys = self.path("authorized_keys");
        fs::OpenOptions::new().append(true).open(keys).unwrap().write_all(&public).unwrap();
        path
    }

    /// The public half of one of the server's own keys: type and key.
    pub(crate) fn host_key(&self, kind: &str) -> String {
        let text = fs::read_to_string(self.path(&format!("host_{kind}.pub"))).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Records what is known of the server.
    pub(crate) fn known(&self, text: &str) {
        fs::write(self.path("known_hosts"), text).unwrap();
    }

    pub(crate) fn known_as_it_is(&self, kind: &str) {
        self.known(&format!("[127.0.0.1]:{} {}\n", self.port, self.host_key(kind)));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

fn serve(
    sshd: &str,
    folder: &Path,
    host_keys: &[&str],
    port: u16,
) -> Option<(Child, JoinHandle<()>)> {
    use std::fmt::Write as _;
    let at = |name: &str| folder.join(name).display().to_string();
    let mut text = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
         AuthorizedKeysFile {}\nLogLevel INFO\nMaxStartups 100\n",
        at("authorized_keys")
    );
    for kind in host_keys {
        writeln!(text, "HostKey {}", at(&format!("host_{kind}"))).unwrap();
    }
    fs::write(folder.join("sshd.conf"), text).unwrap();
    let mut process = Command::new(sshd)
        .args(["-D", "-e", "-f", &at("sshd.conf")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
    if lines.by_ref().any(|line| line.contains("Server listening on")) {
        // A full pipe would stop it.
        return Some((process, std::thread::spawn(move || lines.for_each(drop))));
    }
    process.wait().unwrap();
    None
}

pub(crate) fn keygen(path: &Path, kind: &str, passphrase: &str) {
    // PEM is what EC2 hands out.
    let format: &[&str] = if kind == "rsa" { &["-m", "PEM", "-b", "2048"] } else { &[] };
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f"])
        .arg(path)
        .args(format)
        .status()
        .unwrap();
    assert!(made.success());
}

/// Stands between harness and server, and can drop what passes or hang up.
pub(crate) struct Cable {
    pub(crate) port: u16,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    frozen: AtomicBool,
    cut: AtomicBool,
    over: AtomicBool,
}

/// How often its threads look at what is to be done.
const LOOK: Duration = Duration::from_millis(20);

impl Cable {
    pub(crate) fn to(server: u16) -> Cable {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let accepting = std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(far) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let back = (near.try_clone().unwrap(), far.try_clone().unwrap());
                for (from, to) in [(near, far), (back.1, back.0)] {
                    let state = Arc::clone(&shared);
                    std::thread::spawn(move || carry(from, to, &state));
                }
            }
        });
        Cable { port, state, accepting: Some(accepting) }
    }

    /// Drops whatever passes, without a word to either side.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.state.frozen.store(frozen, Ordering::SeqCst);
    }

    /// Hangs up.
    pub(crate) fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.cut();
        self.state.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = [0; 16 << 10];
    from.set_read_timeout(Some(LOOK)).unwrap();
    while !state.cut.load(Ordering::SeqCst) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) if state.frozen.load(Ordering::SeqCst) => {}
            Ok(n) => {
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
