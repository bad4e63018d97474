//! `sraft cluster` and `sraft doctor` over SSH. The hosts are all this machine, each with ports and a
//! folder of its own.

mod sshd;

use std::{
    fmt::Write as _,
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sshd::{Server, keygen};

/// Nothing here may take longer than this.
const LIMIT: Duration = Duration::from_secs(120);

const HOSTS: usize = 3;

/// A server and three hosts of it.
struct Place {
    server: Server,
    /// Key, SSH port and address of each host, as its inventory says.
    hosts: Vec<(PathBuf, u16, String)>,
    ports: Vec<[u16; 3]>,
}

impl Place {
    fn new() -> Option<Place> {
        let server = Server::start(&["ed25519"])?;
        server.known_as_it_is("ed25519");
        let key = server.key("ed25519", "");
        // All are held until all are found, so that none is found twice.
        let tcp: Vec<TcpListener> = (0..2 * HOSTS).map(|_| free_tcp()).collect();
        let udp: Vec<UdpSocket> =
            (0..HOSTS).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let ports = (0..HOSTS).map(|host| {
            let clock = udp[host].local_addr().unwrap().port();
            [port(&tcp[2 * host]), port(&tcp[2 * host + 1]), clock]
        });
        let ports = ports.collect();
        let hosts = vec![(key, server.port, "127.0.0.1".to_owned()); HOSTS];
        let place = Place { server, hosts, ports };
        place.write();
        Some(place)
    }

    /// Writes the inventory.
    fn write(&self) {
        let mut text = format!(
            "[defaults]\nuser = \"{}\"\nknown_hosts = \"known_hosts\"\n",
            self.server.user()
        );
        for (host, (key, ssh_port, addr)) in self.hosts.iter().enumerate() {
            let [peer, client, clock] = self.ports[host];
            write!(
                text,
                "[[host]]\nssh = \"127.0.0.1\"\naddr = \"{addr}\"\nssh_port = {ssh_port}\nkey = \"{}\"\n\
                 port = {peer}\nclient_port = {client}\nclock_port = {clock}\ndir = \"{}\"\n",
                key.display(),
                self.dir(host + 1).display(),
            )
            .unwrap();
        }
        fs::write(self.server.path("hosts.toml"), text).unwrap();
    }

    fn dir(&self, node: usize) -> PathBuf {
        self.server.path(&format!("host-{node}"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sraft"));
        command.args(args).args(["--inventory", "hosts.toml"]);
        command.current_dir(self.server.path("")).env("HOME", self.server.path("home"));
        command.env_remove("SSH_AUTH_SOCK").env_remove("SRAFT_SSH_PASSPHRASE");
        // What a node would read as an option must not get there from here.
        command.env("RAFT_NODE_ID", "99");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        finish(self.command(args).spawn().unwrap())
    }

    /// What a command says that succeeds.
    fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (said, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{args:?}: {said}{errors}");
        said
    }

    /// What a command says that fails.
    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output.stdout));
        text(&output.stdout) + &text(&output.stderr)
    }

    fn start(&self) -> String {
        self.done(&["cluster", "start", "--detach"])
    }

    fn status(&self) -> Vec<Value> {
        let output = self.run(&["cluster", "status", "--json"]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    }

    fn pid(&self, node: usize) -> u32 {
        self.status()[node - 1]["process"]["pid"].as_u64().unwrap() as u32
    }

    /// Processes of the nodes of this place.
    fn processes(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc").unwrap();
        let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.filter(|pid: &u32| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe.starts_with(self.server.path("")))
        })
        .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that fails half-way must not leave nodes behind either.
        for pid in self.processes() {
            signal(pid, Signal::KILL);
        }
    }
}

/// Sends a signal, unless the process has ended already.
fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), signal);
}

/// The state of a process (proc(5), /proc/pid/stat, field 3).
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A port below those that the kernel gives to outgoing connections, with the next one free too.
fn free_tcp() -> TcpListener {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    loop {
        let nth = NEXT.fetch_add(3, std::sync::atomic::Ordering::SeqCst);
        let port = 12_000 + (std::process::id() as u16 % 1000) * 15 + nth % 5000;
        let next = TcpListener::bind(("127.0.0.1", port + 1));
        if let (Ok(listener), Ok(_)) = (TcpListener::bind(("127.0.0.1", port)), next) {
            return listener;
        }
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn finish(mut child: Child) -> Output {
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stdout, &mut bytes).unwrap();
        bytes
    });
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("not ended in time: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    Output { stdout: reader.join().unwrap(), ..output }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_cluster_stays_up_until_it_is_stopped_and_everything_may_be_said_twice() {
    let Some(place) = Place::new() else { return };
    assert_eq!(place.done(&["cluster", "deploy"]).matches("was sent").count(), HOSTS);
    assert_eq!(place.done(&["cluster", "deploy"]).matches("was there").count(), HOSTS);
    assert_eq!(place.fails(&["cluster", "status"]).matches("never started").count(), HOSTS);
    assert_eq!(place.done(&["cluster", "stop"]).matches("was not running").count(), HOSTS);

    assert_eq!(place.start().matches(" started: process").count(), HOSTS);
    assert_eq!(place.start().matches("runs already: process").count(), HOSTS);
    wait_until("a leader whom all follow", || {
        let leaders: Vec<Value> =
            place.status().iter().map(|node| node["said"]["leader"].clone()).collect();
        leaders[0].is_u64() && leaders.iter().all(|leader| *leader == leaders[0])
    });
    let status = place.done(&["cluster", "status"]);
    assert_eq!(status.matches(" leader ").count(), 2, "the heading and one: {status}");
    let said = place.fails(&["cluster", "start", "--detach", "--protocol", "raft"]);
    assert_eq!(said.matches("with another protocol; `sraft cluster stop` it first").count(), HOSTS);

    // One that is killed is down, and only it is started again.
    let killed = place.pid(2);
    kill_process(Pid::from_raw(killed as i32).unwrap(), Signal::KILL).unwrap();
    wait_until("node 2 to be down", || {
        let output = place.run(&["cluster", "status"]);
        !output.status.success() && text(&output.stdout).contains(" down")
    });
    let said = place.start();
    assert_eq!((said.matches("already").count(), said.matches(" started").count()), (2, 1));
    assert_ne!(place.pid(2), killed);

    // Logs: as they are, and in words.
    let raw = place.done(&["cluster", "logs", "--raw"]);
    for line in raw.lines() {
        let _: sraft_events::Record = serde_json::from_str(line).unwrap();
    }
    assert_eq!(raw.matches("\"node_started\"").count(), HOSTS + 1, "{raw}");
    let words = place.done(&["cluster", "logs", "--node", "2"]);
    assert_eq!(words.matches("[Node 2] Started: cluster sraft").count(), 2, "{words}");
    assert_eq!(
        place.done(&["cluster", "logs", "--node", "2", "--raw", "--lines", "1"]).lines().count(),
        1
    );

    let said = place.done(&["cluster", "stop"]);
    assert_eq!(said.matches("stopped: process").count(), HOSTS, "{said}");
    assert!(place.processes().is_empty());
    assert_eq!(place.done(&["cluster", "stop"]).matches("was not running").count(), HOSTS);
    // What they knew is still there, until it is not wanted any more.
    assert_eq!(place.done(&["cluster", "start", "--detach", "--node", "1"]).lines().count(), 2);
    assert!(place.status()[0]["said"]["term"].as_u64().unwrap() > 0);
    place.done(&["cluster", "stop", "--node", "1"]);
    place.done(&["cluster", "start", "--detach", "--node", "1", "--fresh"]);
    let raw = place.done(&["cluster", "logs", "--raw", "--node", "1"]);
    assert_eq!(raw.matches("\"node_started\"").count(), 1, "{raw}");
    place.done(&["cluster", "stop"]);
    assert!(place.processes().is_empty());
}

const ATTACHED: &str = r#"
name = "attached"
question = "How long without a leader, on a cluster that is up already?"
cluster = { size = 3, backend = "local" }
fault = { kind = "kill", target = "leader" }
trials = { count = 2, block = 2, warmup = 0, timeout = "10s", seed = 1 }
variant = [
    { name = "raft", protocol = "raft", baseline = true },
    { name = "s-raft", protocol = "s-raft" },
]
"#;

#[test]
fn an_experiment_uses_the_running_nodes_and_puts_back_those_that_it_has_killed() {
    let Some(place) = Place::new() else { return };
    fs::write(place.server.path("attached.toml"), ATTACHED).unwrap();
    let raft = ATTACHED.replace("    { name = \"s-raft\", protocol = \"s-raft\" },\n", "");
    fs::write(place.server.path("raft.toml"), raft).unwrap();
    let said = place.fails(&["run", "attached.toml", "--attach", "--name", "down"]);
    assert_eq!(said.matches("its node does not run; `sraft cluster start` it").count(), HOSTS);

    place.start();
    let said = place.fails(&["run", "raft.toml", "--attach", "--name", "other"]);
    assert!(said.contains("variant raft is raft, and the nodes run s-raft"), "{said}");
    assert!(!place.server.path("results").exists(), "something was begun");

    let pids = || (1..=HOSTS).map(|node| place.pid(node)).collect::<Vec<u32>>();
    let before = pids();
    let output = place.run(&["run", "attached.toml", "--attach", "--name", "whole"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("on cluster sraft, which stays up"), "{said}");
    assert!(said.contains("it runs with other settings than raft"), "{said}");
    let after = pids();
    let results = place.server.path("results/attached/whole");
    let trials = fs::read_to_string(results.join("trials.csv")).unwrap();
    assert_eq!(trials.lines().count(), 1 + 2, "{trials}");
    let events = fs::read_to_string(results.join("events.jsonl")).unwrap();
    let records: Vec<sraft_events::Record> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut killed: Vec<u64> = Vec::new();
    let mut started = 0;
    for record in &records {
        match &record.event {
            sraft_events::Event::FaultApplied { node, pid, .. } => {
                assert!(before.contains(pid) || after.contains(pid) || killed.contains(node));
                killed.push(*node);
            }
            sraft_events::Event::NodeStarted { .. } => started += 1,
            _ => {}
        }
    }
    assert_eq!(killed.len(), 2, "{trials}");
    // What the nodes had recorded before is no part of it.
    assert_eq!(started, killed.len(), "{events}");
    for node in 1..=HOSTS {
        let same = before[node - 1] == after[node - 1];
        assert_eq!(same, !killed.contains(&(node as u64)), "node {node}: {before:?} {after:?}");
    }
    assert_eq!(place.processes().len(), HOSTS, "somebody stayed behind");

    // The harness dies between two trials, or in the middle of one.
    let mut command =
        place.command(&["run", "attached.toml", "--attach", "--name", "cut", "--trials", "500"]);
    let mut cut = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let rows = place.server.path("results/attached/cut/trials.csv");
    wait_until("a trial", || fs::read_to_string(&rows).is_ok_and(|rows| rows.lines().count() > 1));
    cut.kill().unwrap();
    cut.wait().unwrap();
    wait_until("the agents to end and all nodes to be up", || {
        place.processes().len() == HOSTS && place.status().iter().all(|node| node["up"] == true)
    });
    for node in 1..=HOSTS {
        let left = fs::read_dir(place.dir(node)).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["bin", "cluster"], "something was left on node {node}");
    }
    place.done(&["cluster", "stop"]);
    assert!(place.processes().is_empty());
}

#[test]
fn a_running_node_that_is_paused_wakes_even_if_nobody_is_left_to_wake_it() {
    let Some(place) = Place::new() else { return };
    let pause = ATTACHED
        .replace(r#"kind = "kill""#, r#"kind = "pause", duration = "60s""#)
        .replace(r#"timeout = "10s""#, r#"timeout = "90s""#);
    fs::write(place.server.path("pause.toml"), pause).unwrap();
    place.start();
    let nodes = place.processes();
    let mut command = place.command(&["run", "pause.toml", "--attach"]);
    let mut harness = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let is_paused = |pid: &u32| state(*pid) == Some('T');
    wait_until("a node to be paused", || nodes.iter().any(is_paused));
    // First the harness, which would start other agents; it is not to end them either.
    signal(harness.id(), Signal::STOP);
    wait_until("the harness to stop", || is_paused(&harness.id()));
    for agent in place.processes().into_iter().filter(|pid| !nodes.contains(pid)) {
        signal(agent, Signal::KILL);
    }
    wait_until("the node to wake", || !nodes.iter().any(is_paused));
    harness.kill().unwrap();
    harness.wait().unwrap();
    place.done(&["cluster", "stop"]);
    assert!(place.processes().is_empty());
}

#[test]
fn what_is_recorded_is_shown_as_it_happens_and_nobody_stays_behind() {
    use std::io::BufRead;
    let Some(place) = Place::new() else { return };
    place.start();
    let mut follow =
        place.command(&["cluster", "logs", "--raw", "--follow", "--lines", "0"]).spawn().unwrap();
    let mut lines = std::io::BufReader::new(follow.stdout.take().unwrap()).lines();
    // The log of each host is followed before its node stops.
    wait_until("the logs to be followed", || place.processes().len() == 2 * HOSTS);
    place.done(&["cluster", "stop", "--node", "3"]);
    let stopped = lines.find(|line| {
        let line = line.as_ref().unwrap();
        line.contains("\"node_stopped\"") && line.contains("\"node:3\"")
    });
    assert!(stopped.is_some());
    follow.kill().unwrap();
    follow.wait().unwrap();
    wait_until("the keepers to end", || place.processes().len() == HOSTS - 1);
    place.done(&["cluster", "stop"]);
    assert!(place.processes().is_empty());
}

#[test]
fn each_host_that_fails_says_why_and_the_others_do_their_work() {
    let Some(mut place) = Place::new() else { return };
    let wrong = place.server.path("wrong");
    keygen(&wrong, "ed25519", "");
    let good = place.hosts[0].clone();
    // A wrong key, and a port that nobody listens at.
    place.hosts[1].0 = wrong;
    place.hosts[2].1 = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    place.write();
    for command in [&["cluster", "deploy"][..], &["cluster", "start", "--detach"]] {
        let said = place.fails(command);
        assert!(said.contains("2     node-2  FAILED: permission denied for user"), "{said}");
        assert!(said.contains("3     node-3  FAILED: connection refused at"), "{said}");
        assert!(said.contains("1     node-1  ") && said.contains("2 of 3 hosts failed"), "{said}");
    }
    let said = place.fails(&["cluster", "status"]);
    assert!(said.contains("node-1  up") && said.contains("permission denied"), "{said}");
    let said = place.fails(&["doctor"]);
    for (host, why) in [("node-2", "permission denied"), ("node-3", "connection refused")] {
        let line = said.lines().find(|line| line.contains(why)).unwrap();
        assert!(line.starts_with("PROBLEM") && line.contains(host), "{said}");
    }
    assert!(said.contains("-> check key and user"), "{said}");
    let said = place.fails(&["cluster", "stop"]);
    assert!(said.contains("stopped: process"), "{said}");

    // A host that nobody knows, until it is accepted.
    place.hosts = vec![good; HOSTS];
    place.write();
    place.server.known("");
    assert_eq!(
        place.fails(&["cluster", "status"]).matches("its host key is not known").count(),
        HOSTS
    );
    place.done(&["cluster", "deploy", "--host-keys", "accept-new"]);
    assert!(place.fails(&["cluster", "status", "--node", "4"]).contains("has the nodes 1 to 3"));

    // A node that cannot start says why.
    let taken = TcpListener::bind(("127.0.0.1", place.ports[1][0])).unwrap();
    let said = place.fails(&["cluster", "start", "--detach", "--node", "2"]);
    assert!(said.contains("right after it was started") && said.contains("in use"), "{said}");
    drop(taken);
    place.done(&["cluster", "start", "--detach", "--node", "2"]);
    place.done(&["cluster", "stop"]);
    assert!(place.processes().is_empty());
}

#[test]
fn a_host_that_goes_away_is_said_to_and_its_node_goes_on() {
    let Some(mut place) = Place::new() else { return };
    let Some(second) = Server::start(&["ed25519"]) else { return };
    place.server.known(&format!(
        "[127.0.0.1]:{} {}\n[127.0.0.1]:{} {}\n",
        place.server.port,
        place.server.host_key("ed25519"),
        second.port,
        second.host_key("ed25519")
    ));
    place.hosts[2] = (second.key("ed25519", ""), second.port, "127.0.0.1".to_owned());
    place.write();
    place.start();
    let pid = place.pid(3);
    let kept = second.folder.path().join("key_ed25519_0");
    let copy = place.server.path("second_key");
    fs::copy(&kept, &copy).unwrap();
    place.hosts[2].0 = copy;
    place.write();
    drop(second);
    let said = place.fails(&["cluster", "status"]);
    assert!(said.contains("3     node-3  connection refused"), "{said}");
    assert_eq!(said.matches("  up  ").count(), 2, "{said}");
    assert!(place.processes().contains(&pid), "its node has ended");
    assert_eq!(place.fails(&["cluster", "stop"]).matches("stopped: process").count(), 2);
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::TERM).unwrap();
    wait_until("the last node to end", || place.processes().is_empty());
}

#[test]
fn the_doctor_finds_what_is_wrong_and_cleans_up_if_asked_to() {
    let Some(mut place) = Place::new() else { return };
    let healthy = place.done(&["doctor"]);
    for check in ["durable writes", "leftovers", "ports", "ways", "clocks", "round trips, us"] {
        assert!(healthy.contains(check), "{check}: {healthy}");
    }
    assert!(healthy.contains("\n0 problems, "), "{healthy}");

    // Left by an agent that was killed.
    let left = place.dir(2).join("old-run/node-2");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.parent().unwrap().join("agent.lock"), "").unwrap();
    // A program at a node's port, and an address that is another host's.
    let taken = TcpListener::bind(("127.0.0.1", place.ports[0][1])).unwrap();
    place.hosts[2].2 = "192.0.2.1".to_owned();
    place.write();
    let output = place.run(&["doctor", "--json", "--node", "1", "--node", "2"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems: Vec<(String, String)> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["verdict"] == "problem")
        .map(|f| (f["host"].as_str().unwrap().to_owned(), f["found"].as_str().unwrap().to_owned()))
        .collect();
    let client = place.ports[0][1];
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].1.starts_with(&format!("nobody can listen at TCP port {client}")));
    assert_eq!(problems[0].0, "node-1");
    assert_eq!(
        problems[1],
        ("node-2".into(), format!("folder {}", left.parent().unwrap().display()))
    );
    assert!(left.exists(), "it was removed without being asked to");
    let said = place.fails(&["doctor", "--clean"]);
    assert!(said.contains("removed: folder"), "{said}");
    assert!(!left.parent().unwrap().exists());
    assert!(said.contains("192.0.2.1 is no address of this host"), "{said}");
    assert!(said.contains("-> write addr = \"127.0.0.1\""), "{said}");
    drop(taken);
    place.hosts[2].2 = "127.0.0.1".to_owned();
    place.write();

    // A running cluster is no problem.
    place.start();
    let running = place.done(&["doctor"]);
    assert_eq!(running.matches("runs as process").count(), HOSTS, "{running}");
    place.done(&["cluster", "stop"]);
    assert!(place.processes().is_empty());
    for node in 1..=HOSTS {
        let left = fs::read_dir(place.dir(node)).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["bin", "cluster"], "something was left on node {node}");
    }
}

#[test]
fn systemd_looks_after_a_node_where_there_is_one() {
    if !Path::new("/run/systemd/system").is_dir() || !may_sudo() {
        eprintln!("skipped: no systemd that takes orders");
        return;
    }
    let Some(place) = Place::new() else { return };
    let started = place.done(&["cluster", "start", "--node", "3", "--restart", "always"]);
    assert!(started.contains("sraft-node-3.service"), "{started}");
    let first = place.pid(3);
    kill_process(Pid::from_raw(first as i32).unwrap(), Signal::KILL).unwrap();
    wait_until("another process", || {
        let status = &place.status()[2];
        status["up"] == true && status["process"]["pid"].as_u64() != Some(u64::from(first))
    });
    assert!(place.done(&["cluster", "stop", "--node", "3"]).contains("stopped: process"));
    assert!(place.processes().is_empty());
    assert!(place.done(&["cluster", "stop", "--node", "3"]).contains("was not running"));
}

fn may_sudo() -> bool {
    rustix::process::geteuid().is_root()
        || Command::new("sudo").args(["-n", "true"]).status().is_ok_and(|status| status.success())
}
