//! Hosts on this machine, and faults of links between them: real namespaces, real packet filters.
//!
//! Everything happens within namespaces that the tests make. Without root, or without the programs,
//! they are skipped; where the variable CI is set, that is a failure.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use sraft_agent::protocol::{Answer, Call, Effect, Flow, Hook, Needs, Request, Said, VERSION};
use sraft_events::{Event, FaultAction, Record};

/// Nothing here may take longer than this.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether the tests can run here.
fn able() -> bool {
    let missing: Vec<&str> = ["ip", "nft", "sshd", "ssh-keygen", "nsenter", "unshare", "bash"]
        .into_iter()
        .filter(|program| {
            let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
            !usual.iter().any(|dir| Path::new(dir).join(program).is_file())
        })
        .collect();
    let root = rustix::process::geteuid().is_root();
    if root && missing.is_empty() {
        return true;
    }
    let why = if root { format!("without {}", missing.join(", ")) } else { "without root".into() };
    assert!(std::env::var_os("CI").is_none(), "cannot run {why}, and CI is set");
    #[expect(clippy::print_stderr, reason = "a test that is skipped has to show")]
    {
        eprintln!("skipped: {why}");
    }
    false
}

fn sraft() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sraft"));
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A testbed, taken down when the test ends, however it ends.
struct Testbed {
    name: String,
    folder: tempfile::TempDir,
}

impl Testbed {
    /// Names are `t` and a number: several tests, and several runs of them, may go on at once.
    fn new() -> Testbed {
        let folder = tempfile::tempdir().unwrap();
        let unique = fs::metadata(folder.path()).map(|meta| {
            use std::os::unix::fs::MetadataExt;
            meta.ino() % 10_000_000
        });
        Testbed { name: format!("t{}", unique.unwrap()), folder }
    }

    fn up(hosts: u8) -> Testbed {
        let testbed = Testbed::new();
        let output = testbed.command("up", &[&hosts.to_string(), "--dir", &testbed.path()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout).lines().last(), Some(testbed.inventory().as_str()));
        testbed
    }

    /// The testbed's folder: below /tmp, which its hosts have one of their own of.
    fn path(&self) -> String {
        self.folder.path().join("bed").to_str().unwrap().to_owned()
    }

    fn inventory(&self) -> String {
        format!("{}/inventory.toml", self.path())
    }

    fn command(&self, command: &str, args: &[&str]) -> Output {
        let mut all = sraft();
        all.args(["testbed", command, "--name", &self.name]).args(args);
        all.output().unwrap()
    }

    fn exec(&self, node: u8, args: &[&str]) -> Command {
        let mut command = sraft();
        command.args(["testbed", "exec", "--name", &self.name, &node.to_string(), "--"]);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, node: u8, args: &[&str]) -> String {
        let output = self.exec(node, args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The hosts' addresses, from the inventory.
    fn addresses(&self) -> Vec<String> {
        let inventory: toml::Table = fs::read_to_string(self.inventory()).unwrap().parse().unwrap();
        let hosts = inventory["host"].as_array().unwrap().iter();
        hosts.map(|host| host["addr"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether a connection from a host to another's SSH server comes about, however long the
    /// machine takes for it.
    fn reaches(&self, from: u8, to: u8) -> bool {
        self.connects(from, to, "30")
    }

    /// Whether none does: two seconds are long for a machine that is not cut off.
    fn is_cut_off(&self, from: u8, to: u8) -> bool {
        !self.connects(from, to, "2")
    }

    fn connects(&self, from: u8, to: u8, seconds: &str) -> bool {
        let address = &self.addresses()[usize::from(to) - 1];
        let script = format!("exec 3<>/dev/tcp/{address}/22 && head -c 4 <&3");
        let command = ["timeout", seconds, "bash", "-c", &script];
        let output = self.exec(from, &command).output().unwrap();
        output.status.success() && output.stdout == b"SSH-"
    }

    /// Tables of agents in a host's packet filter.
    fn tables(&self, node: u8) -> Vec<String> {
        let tables = self.run(node, &["nft", "list", "tables"]);
        tables.lines().filter(|line| line.contains("sraft_agent_")).map(str::to_owned).collect()
    }

    /// Gives a host the program, which is where the host cannot see it.
    fn install(&self, node: u8) -> &'static str {
        let place = format!("{}/node-{node}/root/sraft", self.path());
        if !Path::new(&place).exists() {
            fs::copy(assert_cmd::cargo::cargo_bin!("sraft"), place).unwrap();
        }
        "/root/sraft"
    }

    fn agent(&self, node: u8) -> Agent {
        let program = self.install(node);
        let mut command = self.exec(node, &[program, "agent"]);
        let mut process = command.stdin(Stdio::piped()).spawn().unwrap();
        let requests = process.stdin.take();
        let said = BufReader::new(process.stdout.take().unwrap());
        let mut agent = Agent { process, requests, said, next_id: 1, pid: 0, records: vec![] };
        let dir = "/var/tmp/agent".to_owned();
        match agent.ask(Call::Hello { version: VERSION, host: "h".into(), dir, keep: false }) {
            Ok(Answer::Hello(facts)) => agent.pid = facts.pid,
            other => panic!("{other:?}"),
        }
        agent
    }

    /// Messages from a host to another, with the SSH server's port as that of peers.
    fn flow(&self, from: u8, to: u8, hook: Hook, answers: bool) -> Flow {
        let addresses = self.addresses();
        let at = |node: u8| {
            (addresses[usize::from(node) - 1].parse::<std::net::IpAddr>().unwrap(), 22).into()
        };
        Flow { from: at(from), to: at(to), hook, answers }
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        let output = self.command("down", &[]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("{}", text(&output.stderr));
        }
    }
}

/// An agent on a host, as the harness would speak with it.
struct Agent {
    process: Child,
    requests: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
    next_id: u64,
    pid: u32,
    records: Vec<Record>,
}

impl Agent {
    fn ask(&mut self, call: Call) -> Result<Answer, String> {
        let id = self.next_id;
        self.next_id += 1;
        let line = serde_json::to_string(&Request { id, call }).unwrap();
        writeln!(self.requests.as_mut().unwrap(), "{line}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the agent has ended");
            match serde_json::from_str(&line).unwrap() {
                Said::Done { answer, .. } => return Ok(answer),
                Said::Failed { error, .. } => return Err(error),
                Said::Records { lines } => {
                    let records = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
                    self.records.extend(records);
                }
                Said::Text { .. } | Said::Ops { .. } | Said::Died { .. } => {}
            }
        }
    }

    fn strike(&mut self, flows: &[Flow], effect: Effect, lease_ms: u64) {
        self.ask(Call::Arm { flows: flows.to_vec(), effect, lease_ms }).unwrap();
        self.ask(Call::Strike { strikes: vec![(1, FaultAction::Isolate)] }).unwrap();
    }

    fn heal(&mut self) {
        self.ask(Call::Heal { nodes: vec![1] }).unwrap();
    }

    /// Closes the agent's input and waits for its end.
    fn hang_up(mut self) {
        self.requests = None;
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        assert!(self.process.wait().unwrap().success());
    }

    /// Kills it without a chance to clean up.
    fn kill(mut self) {
        kill_process(Pid::from_raw(self.pid as i32).unwrap(), Signal::KILL).unwrap();
        self.process.wait().unwrap();
    }
}

/// Lines of what a command says that have to do with a testbed.
fn traces(testbed: &Testbed) -> Vec<String> {
    let mut traces = Vec::new();
    for args in [&["netns", "list"][..], &["-o", "link", "show"], &["-o", "addr", "show"]] {
        let output = Command::new("ip").args(args).output().unwrap();
        let out = text(&output.stdout);
        traces.extend(out.lines().filter(|l| l.contains(&testbed.name)).map(str::to_owned));
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if text(&command).contains(&testbed.path()) || cwd.starts_with(testbed.path()) {
            traces.push(text(&command).replace('\0', " "));
        }
    }
    let state = PathBuf::from(format!("/var/lib/sraft/testbed/{}.json", testbed.name));
    traces.extend(
        [state, PathBuf::from(testbed.path())]
            .iter()
            .filter(|p| p.exists())
            .map(|p| p.display().to_string()),
    );
    traces
}

#[test]
fn hosts_come_up_apart_from_each_other_and_leave_nothing() {
    if !able() {
        return;
    }
    let testbed = Testbed::up(3);
    assert_eq!(testbed.run(2, &["cat", "/proc/sys/kernel/hostname"]), "node-2\n");
    let addresses: BTreeSet<String> = testbed.addresses().into_iter().collect();
    assert_eq!(addresses.len(), 3);
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        assert!(testbed.reaches(from, to), "{from} to {to}");
    }
    assert_ne!(testbed.run(1, &["ip", "route"]).matches("default").count(), 1, "no way out");

    // Files that a host writes to the usual places are its own.
    testbed.run(1, &["touch", "/tmp/one", "/var/tmp/one", "/root/one"]);
    let seen = testbed.run(2, &["ls", "/tmp", "/var/tmp", "/root"]);
    assert!(!seen.contains("one\n"), "{seen}");

    // Somebody logs in and leaves a process behind.
    let (key, known) =
        (format!("{}/key", testbed.path()), format!("{}/known_hosts", testbed.path()));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    if Path::new("/usr/bin/ssh").is_file() {
        let output = Command::new("/usr/bin/ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", &key])
            .args(["-o", &format!("UserKnownHostsFile={known}"), "-o", "StrictHostKeyChecking=yes"])
            .arg(format!("root@{}", testbed.addresses()[0]))
            .arg("setsid sleep 1000 </dev/null >/dev/null 2>&1 & cat /proc/sys/kernel/hostname")
            .output()
            .unwrap();
        assert_eq!(text(&output.stdout), "node-1\n", "{}", text(&output.stderr));
        let status = text(&testbed.command("status", &[]).stdout);
        let lines: Vec<&str> = status.lines().filter(|line| line.starts_with("node-")).collect();
        assert!(lines.len() == 3 && lines.iter().all(|line| line.contains("  up  ")), "{status}");
        assert!(!lines[0].ends_with("  1 processes"), "somebody left one: {status}");
    }

    // A second one of the same name is refused, and harms nothing.
    let again = testbed.command("up", &["2"]);
    assert!(!again.status.success());
    assert!(text(&again.stderr).contains("sraft testbed down --name"), "{}", text(&again.stderr));
    assert!(testbed.reaches(1, 2));

    for _ in 0..2 {
        assert!(testbed.command("down", &[]).status.success());
        assert_eq!(traces(&testbed), Vec::<String>::new());
    }
    let code = testbed.exec(1, &["true"]).output().unwrap();
    assert!(text(&code.stderr).contains("there is no testbed"), "{}", text(&code.stderr));
}

#[test]
fn a_testbed_that_cannot_be_made_leaves_nothing() {
    if !able() {
        return;
    }
    // The second host's device is taken by somebody else.
    let testbed = Testbed::new();
    let (device, bed) = (format!("sr-{}-2", testbed.name), testbed.path());
    let ip = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success());
    ip(&["link", "add", &device, "type", "bridge"]);
    let output = testbed.command("up", &["3", "--dir", &bed]);
    ip(&["link", "del", &device]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains(&format!("ip link del {device}")));
    assert_eq!(traces(&testbed), Vec::<String>::new());

    // Half of it is made, and then the hosts' servers cannot start.
    let broken = testbed.folder.path().join("bin");
    fs::create_dir(&broken).unwrap();
    let sshd = broken.join("sshd");
    fs::write(&sshd, "#!/bin/sh\necho no more entropy >&2\nexit 3\n").unwrap();
    fs::set_permissions(&sshd, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", broken.display(), std::env::var("PATH").unwrap_or_default());
    let mut up = sraft();
    up.args(["testbed", "up", "2", "--name", &testbed.name, "--dir", &bed]).env("PATH", path);
    let output = up.output().unwrap();
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("nothing of it is left") && said.contains("does not answer"), "{said}");
    assert_eq!(traces(&testbed), Vec::<String>::new());

    // A folder that somebody uses is not taken.
    let output = testbed.command("up", &["2", "--dir", testbed.folder.path().to_str().unwrap()]);
    assert!(text(&output.stderr).contains("does not exist"), "{}", text(&output.stderr));
    assert_eq!(traces(&testbed), Vec::<String>::new());
}

#[test]
fn a_host_that_goes_down_while_the_program_is_sent_is_said_to_and_may_be_tried_again() {
    if !able() {
        return;
    }
    let testbed = Testbed::up(2);
    let inventory = testbed.inventory();
    let deploy =
        || sraft().args(["cluster", "deploy", "--inventory", &inventory]).output().unwrap();
    // What arrives after so much is lost: no word, no reset.
    testbed.run(2, &["nft", "add table inet power; add chain inet power in { type filter hook input priority 0; }; add rule inet power in tcp dport 22 quota over 2 mbytes drop"]);
    let left = Path::new(&testbed.path()).join("node-2/var-tmp/sraft/bin/old");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join(".sraft-1"), "half of it").unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(left.join(".sraft-1")).unwrap().set_modified(long_ago).unwrap();

    let begun = Instant::now();
    let output = deploy();
    assert!(begun.elapsed() < LIMIT, "it is given up long before an upload may take");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.contains("FAILED: the connection was lost while uploading the program"), "{said}");
    assert!(said.contains("node-1  the program was sent"), "{said}");

    testbed.run(2, &["nft", "delete table inet power"]);
    let output = deploy();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!left.join(".sraft-1").exists(), "what such an upload leaves goes with a later one");
}

#[test]
fn rules_cut_what_they_should_and_go_with_their_agent() {
    if !able() {
        return;
    }
    let testbed = Testbed::up(3);
    let own = "table inet own { chain c { type filter hook input priority 0; policy accept; tcp \
               dport 9 drop; }; }";
    testbed.run(1, &["nft", own]);
    let own = testbed.run(1, &["nft", "list", "table", "inet", "own"]);

    let mut agent = testbed.agent(1);
    agent.ask(Call::CheckFaults { needs: Needs { rules: true, ..Needs::default() } }).unwrap();
    let both =
        |a: u8, b: u8| [testbed.flow(a, b, Hook::Out, true), testbed.flow(b, a, Hook::In, true)];

    // Armed is not struck; a later plan replaces it.
    let flows = [both(1, 2), both(1, 3)].concat();
    agent
        .ask(Call::Arm { flows: both(1, 3).to_vec(), effect: Effect::Drop, lease_ms: 60_000 })
        .unwrap();
    assert!(testbed.reaches(1, 3));
    agent.strike(&flows, Effect::Drop, 60_000);
    for (from, to, reaches) in
        [(1, 2, false), (2, 1, false), (1, 3, false), (3, 1, false), (2, 3, true), (3, 2, true)]
    {
        let as_it_should = match reaches {
            true => testbed.reaches(from, to),
            false => testbed.is_cut_off(from, to),
        };
        assert!(as_it_should, "isolated: {from} to {to}");
    }
    assert_eq!(testbed.tables(1).len(), 1);
    agent.heal();
    assert!(testbed.tables(1).is_empty());
    assert!(testbed.reaches(1, 2) && testbed.reaches(3, 1));

    // One way: what 1 dials is lost, what dials 1 is answered.
    agent.strike(&[testbed.flow(1, 2, Hook::Out, false)], Effect::Drop, 60_000);
    assert!(testbed.is_cut_off(1, 2) && testbed.reaches(2, 1) && testbed.reaches(1, 3));
    agent.heal();

    // A connection takes three packets at least, and one of a thousand arrives.
    agent.strike(&both(1, 2), Effect::Loss { per_mille: 999 }, 60_000);
    assert!(testbed.is_cut_off(1, 2) && testbed.reaches(1, 3));
    agent.heal();
    assert_eq!(testbed.run(1, &["nft", "list", "table", "inet", "own"]), own);

    // Stamps: before, and when in force; each heals once.
    agent.ask(Call::Ping {}).unwrap();
    let of = |wanted: FaultAction| {
        let applied =
            |r: &&Record| matches!(r.event, Event::FaultApplied { action, .. } if action == wanted);
        agent.records.iter().filter(applied).count()
    };
    assert_eq!((of(FaultAction::Isolate), of(FaultAction::Heal)), (3, 3));
    let forces: Vec<&Record> =
        agent.records.iter().filter(|r| matches!(r.event, Event::FaultInForce { .. })).collect();
    assert_eq!(forces.len(), 6);
    for pair in agent.records.windows(2) {
        assert!(pair[0].mono_ns <= pair[1].mono_ns && pair[0].seq + 1 == pair[1].seq);
    }

    // What makes no sense is refused, and nothing is done.
    let refused = agent.ask(Call::Strike { strikes: vec![] }).unwrap_err();
    assert!(refused.contains("nothing was armed"), "{refused}");

    // The agent's input closes with rules in force and others armed.
    agent.strike(&both(1, 2), Effect::Drop, 60_000);
    agent
        .ask(Call::Arm { flows: both(1, 3).to_vec(), effect: Effect::Drop, lease_ms: 60_000 })
        .unwrap();
    assert!(testbed.is_cut_off(1, 2));
    agent.hang_up();
    assert!(testbed.tables(1).is_empty());
    assert!(testbed.reaches(1, 2) && testbed.reaches(1, 3));
    assert_eq!(testbed.run(1, &["nft", "list", "table", "inet", "own"]), own);
}

#[test]
fn rules_of_an_agent_that_was_killed_lose_their_force_and_are_found() {
    if !able() {
        return;
    }
    let testbed = Testbed::up(2);
    let cut = [testbed.flow(2, 1, Hook::In, true)];

    // Killed while armed: the rules never come into force.
    let mut agent = testbed.agent(1);
    let call = Call::Arm { flows: cut.to_vec(), effect: Effect::Drop, lease_ms: 60_000 };
    agent.ask(call).unwrap();
    agent.kill();
    assert!(testbed.reaches(2, 1));
    assert!(testbed.tables(1).is_empty());

    // Killed with rules in force: the kernel forgets their addresses when the lease ends.
    let mut agent = testbed.agent(1);
    agent.strike(&cut, Effect::Drop, 10_000);
    assert!(testbed.is_cut_off(2, 1));
    agent.kill();
    let deadline = Instant::now() + LIMIT;
    while testbed.is_cut_off(2, 1) {
        assert!(Instant::now() < deadline, "the lease does not end");
    }
    assert_eq!(testbed.tables(1).len(), 1, "without effect, but there");

    // The next agent tells, and removes what is left of dead ones; a living one's stays.
    let mut other = testbed.agent(1);
    match other.ask(Call::Leftovers { remove: false }).unwrap() {
        Answer::Leftovers { found } => assert_eq!(found.len(), 1, "{found:?}"),
        answer => panic!("{answer:?}"),
    }
    other.strike(&cut, Effect::Drop, 60_000);
    assert_eq!(testbed.tables(1).len(), 2);
    other.ask(Call::CheckFaults { needs: Needs { rules: true, ..Needs::default() } }).unwrap();
    assert_eq!(testbed.tables(1).len(), 1);
    assert!(testbed.is_cut_off(2, 1));
    other.hang_up();
    assert!(testbed.tables(1).is_empty());
}

/// An experiment on the local backend, to be run within a host.
const ISOLATE: &str = r#"
name = "cut"
[cluster]
size = 3
[timing]
preset = "lan"
[fault]
kind = "isolate"
target = "leader"
duration = "DURATION"
[trials]
count = 1
timeout = "30s"
[[variant]]
name = "raft"
protocol = "raft"
[[variant]]
name = "s-raft"
protocol = "s-raft"
[matrix]
"fault.direction" = ["both", "out"]
"#;

impl Testbed {
    /// The results folder of the only run, as seen from outside.
    fn results(&self) -> Option<PathBuf> {
        let runs = format!("{}/node-1/root/out/results/cut", self.path());
        Some(fs::read_dir(runs).ok()?.next()?.ok()?.path())
    }

    fn records(&self) -> Vec<Record> {
        let Some(results) = self.results() else { return Vec::new() };
        let text = fs::read_to_string(results.join("events.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// A run within host 1.
    fn start(&self, duration: &str, args: &[&str]) -> Child {
        let program = self.install(1);
        let experiment = ISOLATE.replace("DURATION", duration);
        fs::write(format!("{}/node-1/root/cut.toml", self.path()), experiment).unwrap();
        self.exec(1, &[&[program, "run"], args].concat()).spawn().unwrap()
    }

    /// Processes within host 1 whose command line holds some words.
    fn processes(&self, words: &str) -> Vec<u32> {
        let inside = self.run(1, &["bash", "-c", "readlink /proc/self/ns/net"]);
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let space = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap_or_default();
                text(&command).replace('\0', " ").contains(words)
                    && space.to_str() == Some(inside.trim())
            })
            .collect()
    }
}

#[test]
fn an_isolated_leader_is_replaced_and_steps_down_and_a_killed_harness_leaves_no_rule() {
    if !able() {
        return;
    }
    let testbed = Testbed::up(1);

    // The harness is killed while the leader's links are cut.
    let mut child = testbed.start("20s", &["/root/cut.toml", "--out", "/root/out"]);
    let deadline = Instant::now() + LIMIT;
    while testbed.tables(1).is_empty() {
        assert!(Instant::now() < deadline, "no fault is done");
        assert!(child.try_wait().unwrap().is_none(), "the run has ended");
    }
    let harness = testbed.processes("sraft run");
    let agents = testbed.processes("sraft agent");
    assert_eq!((harness.len(), agents.len()), (1, 1));
    let agent = pidfd_open(Pid::from_raw(agents[0] as i32).unwrap(), PidfdFlags::empty()).unwrap();
    kill_process(Pid::from_raw(harness[0] as i32).unwrap(), Signal::KILL).unwrap();
    child.wait().unwrap();
    let limit = Timespec::try_from(LIMIT).unwrap();
    let ended = poll(&mut [PollFd::new(&agent, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ended, 1, "the agent outlives its harness");
    assert!(testbed.tables(1).is_empty());
    assert_eq!(testbed.processes("sraft"), Vec::<u32>::new());

    // Another run, to its end. The lease of the preset is well below the fault's duration.
    fs::remove_dir_all(format!("{}/node-1/root/out", testbed.path())).unwrap();
    let child = testbed.start("2500ms", &["/root/cut.toml", "--out", "/root/out"]);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(testbed.tables(1).is_empty());
    let rows = fs::read_to_string(testbed.results().unwrap().join("trials.csv")).unwrap();
    let mut reader = rows.lines();
    let header: Vec<&str> = reader.next().unwrap().split(',').collect();
    let at = |name: &str| header.iter().position(|column| *column == name).unwrap();
    assert_eq!(reader.clone().count(), 4, "{rows}");
    for row in reader {
        let cells: Vec<&str> = row.split(',').collect();
        assert_eq!((cells[at("verdict")], cells[at("reason")]), ("ok", ""), "{row}");
        assert_eq!(cells[at("max_leaders_per_term")], "1", "{row}");
        assert_ne!(cells[at("new_leader")], cells[at("old_leader")], "{row}");
    }
    let records = testbed.records();
    let stepped = records.iter().filter(|r| matches!(r.event, Event::SteppedDown { .. })).count();
    let healed =
        |r: &&Record| matches!(&r.event, Event::FaultApplied { action: FaultAction::Heal, .. });
    assert!(stepped >= 4, "every isolated leader steps down, {stepped} did");
    assert_eq!(records.iter().filter(healed).count(), 4);
}
