//! Against a real SSH server on the loopback interface.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use sraft_agent::protocol::{Call, Said};

use super::*;

/// Nothing here may take longer than this.
const LIMIT: Duration = Duration::from_secs(60);

#[path = "../../../tests/sshd/mod.rs"]
mod sshd;

use sshd::{Cable, Server, keygen};

impl Server {
    fn login(&self, key: &Path) -> Login {
        Login {
            name: "lab".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: self.port,
            user: self.user(),
            key_name: "127.0.0.1".to_owned(),
            known_hosts: vec![self.path("known_hosts")],
            keys: vec![KeyFile { path: key.to_owned(), named: true }],
            any_agent_key: false,
            passphrase: None,
            agent: None,
            accept_new: false,
        }
    }

    /// What an attempt to get in ends with.
    fn refusal(&self, login: &Login) -> String {
        let Err(error) = Connection::open(login) else { panic!("it let {login:?} in") };
        let folder = self.folder.path().to_string_lossy();
        error.to_string().replace(&*folder, "DIR").replace(&self.port.to_string(), "PORT")
    }

    /// A connection that is logged in.
    fn connect(&self) -> Connection {
        self.known_as_it_is("ed25519");
        let key = self.key("ed25519", "");
        Connection::open(&self.login(&key)).unwrap()
    }
}

fn run(host: &Connection, script: &str) -> Result<String, SshError> {
    host.run("the test", script, &["one", "it's"], &mut std::io::empty(), LIMIT)
}

#[test]
fn every_usual_kind_of_key_opens() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    server.known_as_it_is("ed25519");
    for kind in ["ed25519", "rsa", "ecdsa"] {
        let host = Connection::open(&server.login(&server.key(kind, ""))).unwrap();
        assert_eq!(run(&host, r#"echo "$1 $2""#).unwrap(), "one it's\n", "{kind}");
    }
}

#[test]
fn an_encrypted_key_opens_with_its_passphrase_only() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    server.known_as_it_is("ed25519");
    for kind in ["ed25519", "rsa", "ecdsa"] {
        let login = server.login(&server.key(kind, "secret words"));
        for (passphrase, opens) in [("secret words", true), ("wrong", false)] {
            let passphrase = Some(Passphrase(passphrase.to_owned()));
            let outcome = Connection::open(&Login { passphrase, ..login.clone() });
            match outcome {
                Ok(_) => assert!(opens, "{kind}: any passphrase opens"),
                Err(error) => {
                    assert!(!opens, "{kind}: {error}");
                    assert!(error.to_string().contains("check the passphrase"), "{kind}: {error}");
                }
            }
        }
    }
}

/// An ssh-agent of this test's own.
struct KeyAgent {
    process: std::process::Child,
    socket: PathBuf,
}

impl KeyAgent {
    fn start(server: &Server) -> KeyAgent {
        let socket = server.path("agent.sock");
        let mut process = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It says where it listens once it does.
        let said = process.stdout.take().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(said), &mut line).unwrap();
        assert!(line.contains("agent.sock"), "{line}");
        KeyAgent { process, socket }
    }

    fn add(&self, key: &Path) {
        let mut add = Command::new("ssh-add");
        let added = add.arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket).status().unwrap();
        assert!(added.success());
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn keys_of_an_agent_open_too() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    server.known_as_it_is("ed25519");
    let agent = KeyAgent::start(&server);
    for kind in ["rsa", "ecdsa", "ed25519"] {
        let key = server.key(kind, "");
        agent.add(&key);
        // Encrypted in its file, and nobody knows the passphrase.
        let encrypt = ["-q", "-p", "-N", "nobody knows", "-P", "", "-f"];
        let encrypted = Command::new("ssh-keygen").args(encrypt).arg(&key).output().unwrap();
        assert!(encrypted.status.success());
        let named = Login { agent: Some(agent.socket.clone()), ..server.login(&key) };
        Connection::open(&named).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let login = Login { keys: Vec::new(), ..named };
        assert!(server.refusal(&login).contains("tried no key"), "an agent's key was tried");
        Connection::open(&Login { any_agent_key: true, ..login }).unwrap();
    }
}

#[test]
fn what_keeps_one_out_is_said_with_its_remedy() {
    let Some(server) = Server::start(&["ed25519", "rsa"]) else { return };
    server.known_as_it_is("ed25519");
    let good = server.key("ed25519", "");
    let wrong = server.path("wrong");
    keygen(&wrong, "ed25519", "");
    let open = server.path("open");
    fs::copy(&good, &open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();

    let user = server.login(&good).user;
    let mut said = Vec::new();
    let mut say = |text: String| said.push(text.replace(&format!("`{user}`"), "`USER`"));
    say(server.refusal(&server.login(&wrong)));
    say(server.refusal(&server.login(&open)));
    say(server.refusal(&server.login(&server.path("absent"))));

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let login = Login { port: closed, ..server.login(&good) };
    say(server.refusal(&login).replace(&closed.to_string(), "CLOSED"));
    let login = Login { address: "no-such-host.invalid".into(), ..server.login(&good) };
    let text = server.refusal(&login);
    say(text.split("`:").next().unwrap().to_owned());

    let fingerprint = |kind: &str| {
        let key = server.host_key(kind);
        let key = key.split(' ').nth(1).unwrap();
        let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, key);
        known_hosts::fingerprint(&decoded.unwrap())
    };
    let (ed25519, rsa) = (fingerprint("ed25519"), fingerprint("rsa"));
    let mut say =
        |text: String| say(text.replace(&ed25519, "SHA256:ED").replace(&rsa, "SHA256:RSA"));
    server.known("elsewhere ssh-ed25519 AAAA\n");
    say(server.refusal(&server.login(&good)));
    let other = fs::read_to_string(wrong.with_extension("pub")).unwrap();
    server.known(&format!("# mine\n[127.0.0.1]:{} {other}", server.port));
    say(server.refusal(&server.login(&good)));
    server.known(&format!("@revoked * {}\n", server.host_key("ed25519")));
    say(server.refusal(&server.login(&good)));
    insta::assert_snapshot!(said.join("\n"), @r#"
    lab: permission denied for user `USER` (tried DIR/wrong); check key and user: Amazon Linux has `ec2-user`, Ubuntu `ubuntu`
    lab: the key DIR/open: may be read by others (mode 0644), so SSH does not use it; run: chmod 600 DIR/open
    lab: the key DIR/absent: is not there; check key = "..." in the inventory
    lab: connection refused at 127.0.0.1:CLOSED: no SSH server listens there; check the address and ssh_port, and that the host has finished booting
    lab: cannot resolve `no-such-host.invalid
    lab: its host key is not known (ssh-ed25519, SHA256:ED); compare it with what the host itself shows (`ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub`, or its console's log) and log in once with `ssh`, or accept it unseen with --host-keys accept-new; looked in DIR/known_hosts
    lab: its host key has CHANGED (ssh-ed25519, SHA256:ED): either the host was made anew or somebody sits in between; if you know why, remove line 2 of DIR/known_hosts (`ssh-keygen -R '[127.0.0.1]:PORT' -f DIR/known_hosts`)
    lab: its host key (SHA256:ED) is revoked by line 1 of DIR/known_hosts; do not use this host
    "#);
}

#[test]
fn a_host_is_known_by_hashed_names_and_by_the_type_of_key_that_is_recorded() {
    let Some(server) = Server::start(&["ed25519", "rsa", "ecdsa"]) else { return };
    let login = server.login(&server.key("ed25519", ""));
    // The server would offer another one first.
    for kind in ["rsa", "ecdsa", "ed25519"] {
        server.known_as_it_is(kind);
        Connection::open(&login).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
    let hashed = Command::new("ssh-keygen")
        .args(["-H", "-f"])
        .arg(server.path("known_hosts"))
        .output()
        .unwrap();
    assert!(hashed.status.success());
    assert!(fs::read_to_string(server.path("known_hosts")).unwrap().starts_with("|1|"));
    Connection::open(&login).unwrap();
}

#[test]
fn a_new_host_is_accepted_only_if_asked_for_and_only_once() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    let strict = server.login(&server.key("ed25519", ""));
    let accepting = Login { accept_new: true, ..strict.clone() };
    assert!(server.refusal(&strict).contains("is not known"));
    Connection::open(&accepting).unwrap();
    Connection::open(&strict).unwrap();
    Connection::open(&accepting).unwrap();
    assert_eq!(fs::read_to_string(server.path("known_hosts")).unwrap().lines().count(), 1);
    // A key that has changed is never accepted.
    let other = server.path("other");
    keygen(&other, "ed25519", "");
    let other = fs::read_to_string(other.with_extension("pub")).unwrap();
    server.known(&format!("[127.0.0.1]:{} {other}", server.port));
    assert!(server.refusal(&accepting).contains("has CHANGED"));
}

#[test]
fn commands_that_fail_are_told_from_those_that_are_killed_and_those_that_hang() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    let host = server.connect();
    let said = run(&host, "echo out; echo oh dear >&2; exit 7").unwrap_err().to_string();
    assert_eq!(said, "lab: the test failed with code 7: oh dear");
    let said = run(&host, "kill -9 $$").unwrap_err().to_string();
    assert_eq!(said, "lab: the test was ended there by signal KILL");
    let begun = Instant::now();
    let brief = Duration::from_millis(300);
    let hung = host.run("waiting", "sleep 60", &[], &mut std::io::empty(), brief).unwrap_err();
    assert!(hung.to_string().starts_with("lab: waiting timed out after"), "{hung}");
    // Neither the command nor its channel holds anybody up.
    drop(host);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn much_output_and_input_get_through() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    let host = server.connect();
    let bytes = vec![b'x'; 5 << 20];
    let script = "wc -c; head -c 300000 /dev/zero | tr '\\0' e >&2; head -c 300000 /dev/zero";
    let said = host.run("counting", script, &[], &mut bytes.as_slice(), LIMIT).unwrap();
    assert!(said.trim_start().starts_with(&bytes.len().to_string()));
    assert!(said.len() > 300_000);
    // A command that does not read what it is given says itself what it thinks of it.
    let said = host.run("full", "echo no space >&2; exit 1", &[], &mut bytes.as_slice(), LIMIT);
    assert_eq!(said.unwrap_err().to_string(), "lab: full failed with code 1: no space");
}

/// A program for the host that answers `--version`: any system has this one.
/// A host that takes up less than it is sent tells every now and then that there is room again. That it
/// says so is not to be missed, whatever is being done at that moment.
#[test]
fn a_host_that_takes_its_time_gets_everything() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    server.known_as_it_is("ed25519");
    let host = server.connect();
    let bytes = vec![7; 40 << 20];
    let script = r#"n=0; while [ "$(dd bs=32k count=1 iflag=fullblock 2>/dev/null | wc -c)" -gt 0 ]
        do n=$((n+1)); done; echo $n"#;
    let said = host.run("feeding", script, &[], &mut bytes.as_slice(), LIMIT).unwrap();
    assert_eq!(said.trim(), (bytes.len() >> 15).to_string());
}

fn some_program() -> Program {
    Program::read(Path::new("/bin/true")).unwrap()
}

#[test]
fn the_program_is_sent_once_and_again_if_it_was_damaged() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    let host = server.connect();
    let program = some_program();
    let dir = server.path("host dir's");
    let dir = dir.to_str().unwrap();
    let mut paths = Vec::new();
    let mut sent = |damage: bool| {
        let survey = program.survey(&host, dir).unwrap();
        let (path, sent) = program.install(&host, &survey).unwrap();
        assert_eq!(fs::read(&path).unwrap(), fs::read("/bin/true").unwrap());
        if damage {
            fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
        }
        paths.push(path);
        sent
    };
    assert_eq!([sent(false), sent(true), sent(false), sent(false)], [true, false, true, false]);
    paths.dedup();
    assert_eq!(paths, [format!("{dir}/bin/{}/sraft", program.sha256)]);
    let files = fs::read_dir(format!("{dir}/bin/{}", program.sha256)).unwrap();
    assert_eq!(files.count(), 1, "no temporary file is left");
}

#[test]
fn a_folder_that_cannot_be_made_is_said() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    let host = server.connect();
    fs::write(server.path("file"), "").unwrap();
    let dir = server.path("file/below").display().to_string();
    let said = some_program().survey(&host, &dir).unwrap_err().to_string();
    assert!(said.contains("looking at the host and its folder"), "{said}");
    assert!(said.contains("failed with code") && said.contains("mkdir"), "{said}");
}

// ---- the agent's channel ---------------------------------------------------------------------

/// Starts what pretends to be an agent.
fn converse(server: &Server, connection: Connection, script: &str) -> (Agent, Receiver<Input>) {
    let path = server.path("pretender");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let (sender, inbox) = channel();
    let agent = conversation::start(connection, path.to_str().unwrap(), 3, sender).unwrap();
    (agent, inbox)
}

fn lost(inbox: &Receiver<Input>) -> String {
    loop {
        match inbox.recv_timeout(LIMIT).unwrap() {
            Input::Lost { agent: 3, why } => return why,
            Input::Said { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_agent_and_harness_say_gets_through_and_the_end_has_its_reason() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    let answer = r#"echo '{"said":"failed","id":7,"error":"x"}'"#;
    for (ending, expected) in [
        ("exit 0", "it has ended"),
        ("echo no >&2; exit 3", "it ended with code 3; its last words: no"),
        ("kill -9 $$", "was ended by signal KILL"),
    ] {
        let script = format!("read request; {answer}; {ending}");
        let (mut agent, inbox) = converse(&server, server.connect(), &script);
        agent.send(Call::Ping {}).unwrap();
        match inbox.recv_timeout(LIMIT).unwrap() {
            Input::Said { agent: 3, said: Said::Failed { id: 7, .. } } => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(lost(&inbox), expected);
    }
}

#[test]
fn an_agent_is_told_by_the_end_of_its_input() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    let witness = server.path("witness");
    let script = format!("cat > /dev/null; echo over > {}", witness.display());
    let (mut agent, inbox) = converse(&server, server.connect(), &script);
    agent.close();
    assert_eq!(fs::read_to_string(witness).unwrap(), "over\n");
    assert_eq!(lost(&inbox), "it has ended");
}

/// A conversation by way of a cable.
fn by_cable(server: &Server) -> (Cable, Agent, Receiver<Input>) {
    let cable = Cable::to(server.port);
    server.known(&format!("* {}\n", server.host_key("ed25519")));
    let login = Login { port: cable.port, ..server.login(&server.key("ed25519", "")) };
    let connection = Connection::open(&login).unwrap();
    let (mut agent, inbox) =
        converse(server, connection, r#"read x; echo '{"said":"failed","id":7,"error":"x"}'; cat"#);
    agent.send(Call::Ping {}).unwrap();
    assert!(matches!(inbox.recv_timeout(LIMIT).unwrap(), Input::Said { .. }));
    (cable, agent, inbox)
}

#[test]
fn a_connection_that_breaks_is_noticed_at_once() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    let (cable, mut agent, inbox) = by_cable(&server);
    cable.cut();
    let why = lost(&inbox);
    assert!(why.starts_with("the connection was lost"), "{why}");
    // Nobody listens any more, and nothing waits for it.
    agent.close();
}

#[test]
fn a_connection_whose_packets_are_dropped_is_noticed_in_time() {
    let Some(server) = Server::start(&["ed25519"]) else { return };
    let (cable, mut agent, inbox) = by_cable(&server);
    cable.freeze(true);
    let begun = Instant::now();
    assert_eq!(lost(&inbox), "the connection was lost: nothing was heard for 8 s");
    assert!(begun.elapsed() < SILENCE * 2, "{:?}", begun.elapsed());
    agent.close();
    assert!(begun.elapsed() < SILENCE * 3, "closing waits");
}

#[test]
fn work_for_all_hosts_keeps_their_order() {
    let hosts: Vec<usize> = (0..50).collect();
    let at_once = AtomicUsize::new(0);
    let results = for_all(&hosts, |host| {
        let now = at_once.fetch_add(1, Ordering::SeqCst) + 1;
        std::thread::yield_now();
        at_once.fetch_sub(1, Ordering::SeqCst);
        (*host, now)
    });
    assert!(results.iter().map(|(host, _)| *host).eq(0..50));
    assert!(results.iter().all(|(_, now)| *now <= MOST_AT_ONCE));
}

#[test]
fn the_inventory_goes_before_the_users_own_configuration() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".ssh")).unwrap();
    let config = "Host lab-1\nHostName 10.0.0.9\nUser fromconfig\nPort 2200\nIdentityFile ~/k\n\
                  IdentitiesOnly yes\n";
    fs::write(home.path().join(".ssh/config"), config).unwrap();
    let of = |text: &str| {
        let inventory = inventory::Inventory::parse(Path::new("hosts.toml"), text).unwrap();
        login_of(&inventory.hosts[0], Options::default(), home.path(), Some("me".to_owned()))
    };
    let login = of("[[host]]\nssh = \"lab-1\"\n").unwrap();
    assert_eq!(
        (login.address.as_str(), login.port, login.user.as_str()),
        ("10.0.0.9", 2200, "fromconfig")
    );
    assert_eq!(login.keys[0].path, home.path().join("k"));
    assert!(!login.any_agent_key);
    let login =
        of("[[host]]\nssh = \"lab-1\"\nuser = \"ubuntu\"\nssh_port = 22\nkey = \"/k\"\n").unwrap();
    assert_eq!((login.port, login.user.as_str()), (22, "ubuntu"));
    assert_eq!(login.keys[0].path, Path::new("/k"));
    let login = of("[[host]]\nssh = \"other\"\n").unwrap();
    assert_eq!((login.address.as_str(), login.port, login.user.as_str()), ("other", 22, "me"));
    assert_eq!(login.keys.len(), USUAL_KEYS.len());
    assert!(login.any_agent_key);
}
