//! Whole runs over SSH. The hosts are all this machine, each with ports and a folder of its own.

mod sshd;

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sraft_events::{Event, Record};
use sshd::{Cable, Server, keygen};

/// Nothing here may take longer than this.
const LIMIT: Duration = Duration::from_secs(120);

const HOSTS: usize = 3;

/// A server, an inventory of it, and an experiment.
struct Place {
    server: Server,
}

impl Place {
    fn new(count: u32) -> Option<Place> {
        let server = Server::start(&["ed25519"])?;
        let place = Place { server };
        let key = place.server.key("ed25519", "");
        place.server.known_as_it_is("ed25519");
        place.inventory(&key, &[place.server.port; HOSTS]);
        let experiment = format!(
            r#"
name = "small"
[cluster]
size = {HOSTS}
[timing]
preset = "reference"
[fault]
kind = "kill"
target = "leader"
[trials]
count = {count}
block = 2
seed = 3
[[variant]]
name = "raft"
protocol = "raft"
[[variant]]
name = "s-raft"
protocol = "s-raft"
"#
        );
        fs::write(place.path("small.toml"), experiment).unwrap();
        Some(place)
    }

    /// Writes the inventory, with this key for all hosts, and these ports of their servers.
    fn inventory(&self, key: &Path, ssh_ports: &[u16; HOSTS]) {
        use std::fmt::Write as _;
        let mut text = format!(
            "[defaults]\nuser = \"{}\"\nkey = \"{}\"\nknown_hosts = \"known_hosts\"\n",
            self.server.user(),
            key.display(),
        );
        // All are held until all are found, so that none is found twice.
        let tcp: Vec<TcpListener> = (0..2 * HOSTS).map(|_| free_tcp()).collect();
        let udp: Vec<UdpSocket> =
            (0..HOSTS).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for host in 0..HOSTS {
            let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
            let clock = udp[host].local_addr().unwrap().port();
            write!(
                text,
                "[[host]]\nssh = \"127.0.0.1\"\nssh_port = {}\nport = {}\nclient_port = {}\nclock_port = {clock}\n\
                 dir = \"{}\"\n",
                ssh_ports[host],
                port(&tcp[2 * host]),
                port(&tcp[2 * host + 1]),
                self.host_dir(host).display(),
            )
            .unwrap();
        }
        fs::write(self.path("hosts.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.server.path(name)
    }

    fn host_dir(&self, host: usize) -> PathBuf {
        self.path(&format!("host-{}", host + 1))
    }

    fn sraft(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sraft"));
        command.args(args).current_dir(self.path("")).env("HOME", self.path("home"));
        command.env_remove("SSH_AUTH_SOCK").env_remove("SRAFT_SSH_PASSPHRASE");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        finish(self.sraft(args).spawn().unwrap())
    }

    fn results(&self) -> Option<PathBuf> {
        let mut runs = fs::read_dir(self.path("results/small")).ok()?;
        Some(runs.next()?.ok()?.path())
    }

    fn records(&self) -> Vec<Record> {
        let Some(results) = self.results() else { return Vec::new() };
        let text = fs::read_to_string(results.join("events.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn trials_ended(&self) -> usize {
        let ended = |r: &Record| matches!(r.event, Event::TrialEnded { trial, .. } if trial > 0);
        self.records().into_iter().filter(ended).count()
    }

    fn under_way(&self, trials: usize) -> Child {
        let child =
            self.sraft(&["run", "small.toml", "--inventory", "hosts.toml"]).spawn().unwrap();
        wait_until("trials to end", || self.trials_ended() >= trials);
        child
    }

    /// Rows of trials.csv, by the names of their columns.
    fn rows(&self) -> Vec<std::collections::BTreeMap<String, String>> {
        let text = fs::read_to_string(self.results().unwrap().join("trials.csv")).unwrap();
        let mut lines = text.lines().map(cells);
        let names = lines.next().unwrap();
        lines.map(|cells| names.iter().cloned().zip(cells).collect()).collect()
    }

    /// How many trials were given up because of the agent on this host. Others may be invalid for
    /// reasons of their own: a busy machine changes leaders unasked.
    fn given_up_for(&self, host: &str) -> usize {
        let why = format!("the agent on host {host}");
        let given_up = |row: &std::collections::BTreeMap<String, String>| {
            row["verdict"] == "invalid" && row["reason"].starts_with(&why)
        };
        self.rows().iter().filter(|row| given_up(row)).count()
    }

    fn manifest(&self) -> serde_json::Value {
        let text = fs::read(self.results().unwrap().join("manifest.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Nodes and agents: whatever runs from the program that was sent, and works on a host.
    fn processes(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.filter(|pid: &u32| {
            let at = |link: &str| fs::read_link(format!("/proc/{pid}/{link}"));
            at("exe").is_ok_and(|exe| exe.starts_with(self.path("host-1").parent().unwrap()))
        })
        .collect()
    }

    fn wait_until_clean(&self) {
        wait_until("every process to end and every working file to go", || {
            let tidy = (0..HOSTS).all(|host| {
                let left = fs::read_dir(self.host_dir(host)).unwrap();
                left.map(|entry| entry.unwrap().file_name()).eq(["bin"])
            });
            tidy && self.processes().is_empty()
        });
    }
}

/// The cells of a line, of which some may be in quotes.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
    }
    cells
}

/// A port below those that the kernel gives to outgoing connections: see `free_ports` of the
/// harness.
fn free_tcp() -> TcpListener {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    loop {
        let nth = NEXT.fetch_add(3, std::sync::atomic::Ordering::SeqCst);
        let port = 12_000 + (std::process::id() as u16 % 1000) * 15 + nth % 5000;
        // The one after it is the admin port of what serves clients here.
        let next = TcpListener::bind(("127.0.0.1", port + 1));
        if let (Ok(listener), Ok(_)) = (TcpListener::bind(("127.0.0.1", port)), next) {
            return listener;
        }
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn finish(mut child: Child) -> Output {
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("not ended in time: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_experiment_of_this_machine_runs_over_ssh_unchanged() {
    let Some(place) = Place::new(2) else { return };
    let planned = place.run(&["plan", "small.toml", "--inventory", "hosts.toml"]);
    let said = text(&planned.stdout);
    assert!(
        said.contains(
            "over SSH on node-1, node-2, node-3, of hosts.toml (the experiment says backend = \
             \"local\")"
        ),
        "{said}"
    );
    let output = place.run(&["run", "small.toml", "--inventory", "hosts.toml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("the program was sent to node-1, node-2, node-3"));
    place.wait_until_clean();
    let rows = place.rows();
    assert_eq!(rows.len(), 4);
    for row in &rows {
        let bound: f64 = row["clock_bound_us"].parse().unwrap();
        assert!(bound > 0.0 && bound < 10_000.0, "{row:?}");
    }
    assert!(rows.iter().any(|row| row["verdict"] == "ok"), "{rows:?}");
    let manifest = place.manifest();
    let names = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let hosts: Vec<String> = manifest["hosts"].as_array().unwrap().iter().map(names).collect();
    assert_eq!(hosts, ["node-1", "node-2", "node-3"]);
    // Each trial has the clocks of three hosts and the harness, at its beginning and at its end.
    let compared = |r: &&Record| matches!(r.event, Event::ClockMeasured { .. });
    assert_eq!(place.records().iter().filter(compared).count(), 4 * 2 * (HOSTS + 1));

    let results = place.results().unwrap();
    let before = fs::read(results.join("trials.csv")).unwrap();
    let again = place.run(&["report", results.to_str().unwrap()]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(fs::read(results.join("trials.csv")).unwrap(), before);

    // Nothing is sent a second time.
    let output = place.run(&["run", "small.toml", "--inventory", "hosts.toml", "--trials", "1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("was sent to"));
}

#[test]
fn a_killed_harness_leaves_nothing_on_the_hosts_and_its_run_can_be_finished() {
    let Some(place) = Place::new(4) else { return };
    let mut harness = place.under_way(2);
    kill_process(Pid::from_child(&harness), Signal::KILL).unwrap();
    harness.wait().unwrap();
    place.wait_until_clean();
    let results = place.results().unwrap();
    let run = results.to_str().unwrap();
    let here = place.run(&["run", "--resume", run]);
    assert_eq!(here.status.code(), Some(1));
    assert!(text(&here.stderr).contains("give the same --inventory"), "{}", text(&here.stderr));
    let output = place.run(&["run", "--resume", run, "--inventory", "hosts.toml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut numbers: Vec<u32> =
        place.rows().iter().map(|row| row["trial"].parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=8));
    place.wait_until_clean();
}

#[test]
fn an_agent_that_is_lost_is_replaced_and_its_trial_says_so() {
    let Some(place) = Place::new(4) else { return };
    let harness = place.under_way(1);
    let agent = place.manifest()["hosts"][1]["facts"]["pid"].as_u64().unwrap();
    kill_process(Pid::from_raw(agent as i32).unwrap(), Signal::KILL).unwrap();
    let output = finish(harness);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("the agent on host node-2: was ended by signal KILL; connecting again"),
        "{stderr}"
    );
    let rows = place.rows();
    assert_eq!(rows.len(), 8);
    // It may have gone between two trials.
    assert!(place.given_up_for("node-2") <= 1, "{rows:?}");
    place.wait_until_clean();
}

#[test]
fn a_connection_whose_packets_are_dropped_costs_one_trial() {
    let Some(place) = Place::new(3) else { return };
    let cable = Cable::to(place.server.port);
    let direct = place.server.port;
    place.inventory(&place.server.key("ed25519", ""), &[direct, cable.port, direct]);
    place.server.known(&format!("* {}\n", place.server.host_key("ed25519")));
    let harness = place.under_way(1);
    cable.freeze(true);
    // Neither end is told anything. Both find out, and what ran on the host has ended.
    let lost = || {
        place.records().into_iter().find_map(|record| match record.event {
            Event::TrialEnded { reason: Some(reason), .. } if reason.contains("agent") => {
                Some(reason)
            }
            _ => None,
        })
    };
    wait_until("the trial to be given up", || lost().is_some());
    let why = "the agent on host node-2: the connection was lost: nothing was heard for 8 s";
    assert_eq!(lost().unwrap(), why);
    let left = place.host_dir(1);
    wait_until("the agent to end for want of its harness", || {
        fs::read_dir(&left).unwrap().map(|entry| entry.unwrap().file_name()).eq(["bin"])
    });
    cable.freeze(false);
    let output = finish(harness);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = place.rows();
    assert_eq!(rows.len(), 6);
    assert_eq!(place.given_up_for("node-2"), 1, "{rows:?}");
    place.wait_until_clean();
}

#[test]
fn a_host_that_shares_this_machine_is_not_reset() {
    let Some(place) = Place::new(1) else { return };
    let experiment = fs::read_to_string(place.path("small.toml")).unwrap();
    let experiment = experiment.replace("\"kill\"", "\"reboot\"");
    fs::write(place.path("small.toml"), experiment).unwrap();
    let hosts = ["run", "small.toml", "--inventory", "hosts.toml"];
    let said = text(&place.run(&hosts).stderr);
    assert!(said.contains("say that they may be, with --allow-reboot"), "{said}");
    assert!(place.results().is_none(), "a run has begun");
    let output = place.run(&[&hosts[..], &["--allow-reboot"]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("host node-1 is on the same machine as this program"), "{said}");
    assert_eq!(place.records(), []);
    place.wait_until_clean();
}

#[test]
fn hosts_that_cannot_be_used_are_said_before_anything_is_begun() {
    let Some(place) = Place::new(2) else { return };
    let refused = |args: &[&str]| {
        let mut all = vec!["run", "small.toml"];
        all.extend(args);
        let output = place.run(&all);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(place.results().is_none(), "a run has begun");
        text(&output.stderr)
    };
    let hosts = ["--inventory", "hosts.toml"];
    let wrong = place.path("wrong");
    keygen(&wrong, "ed25519", "");
    let ports = [place.server.port; HOSTS];
    place.inventory(&wrong, &ports);
    let said = refused(&hosts);
    assert!(said.contains("3 hosts cannot be used"), "{said}");
    assert!(said.contains("node-2: permission denied for user"), "{said}");
    place.inventory(&place.server.key("ed25519", ""), &ports);
    place.server.known("");
    let said = refused(&hosts);
    assert!(said.contains("its host key is not known"), "{said}");

    fs::write(place.path("hosts.toml"), "[[host]]\nssh = \"127.0.0.1\"\n").unwrap();
    let said = refused(&hosts);
    assert!(said.contains("a cluster of 3 nodes needs 3 hosts, and hosts.toml has 1"), "{said}");
    let said = refused(&["--inventory", "nowhere.toml"]);
    assert!(said.contains("nowhere.toml: cannot read the inventory"), "{said}");
    for host in 0..HOSTS {
        assert!(!place.host_dir(host).exists(), "something was left on a host");
    }
}
