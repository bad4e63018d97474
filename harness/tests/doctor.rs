//! `sraft doctor` and `sraft cluster` on hosts with networks of their own: a testbed, whose packet
//! filters the tests may change. Skipped without root; where the variable CI is set, that is a
//! failure.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Output, Stdio},
};

#[allow(clippy::print_stderr)] // a test that is skipped says so
fn able() -> bool {
    let missing: Vec<&str> = ["ip", "nft", "sshd", "ssh-keygen", "unshare"]
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
    eprintln!("skipped: {why}");
    false
}

/// A testbed, taken down when the test ends, however it ends.
struct Testbed {
    name: String,
    folder: tempfile::TempDir,
}

impl Testbed {
    fn up(hosts: u8) -> Testbed {
        let folder = tempfile::tempdir().unwrap();
        let unique = std::fs::metadata(folder.path()).unwrap().ino() % 10_000_000;
        let testbed = Testbed { name: format!("d{unique}"), folder };
        let dir = testbed.folder.path().join("bed");
        let up = ["testbed", "up", "--name", &testbed.name, &hosts.to_string(), "--dir"];
        let output = sraft().args(up).arg(dir).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        testbed
    }

    /// What a command says, and whether it succeeds.
    fn run(&self, args: &[&str]) -> (bool, String) {
        let inventory = self.folder.path().join("bed/inventory.toml");
        let output = sraft().args(args).arg("--inventory").arg(inventory).output().unwrap();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    fn done(&self, args: &[&str]) -> String {
        let (succeeded, said) = self.run(args);
        assert!(succeeded, "{args:?}: {said}");
        said
    }

    fn fails(&self, args: &[&str]) -> String {
        let (succeeded, said) = self.run(args);
        assert!(!succeeded, "{args:?}: {said}");
        said
    }

    fn nft(&self, node: u8, words: &str) -> Output {
        let exec = ["testbed", "exec", "--name", &self.name, &node.to_string(), "--", "nft"];
        let output = sraft().args(exec).args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "{words}: {}", text(&output.stderr));
        output
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        let output = sraft().args(["testbed", "down", "--name", &self.name]).output().unwrap();
        if !output.status.success() && !std::thread::panicking() {
            panic!("{}", text(&output.stderr));
        }
    }
}

fn sraft() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sraft"));
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn closed_ports_are_found_from_both_sides_and_rules_of_dead_agents_removed() {
    if !able() {
        return;
    }
    let testbed = Testbed::up(3);
    testbed.done(&["cluster", "deploy"]);
    let said = testbed.done(&["doctor"]);
    assert!(said.contains("\n0 problems, "), "{said}");

    // What a security group does, and what a firewall of the host does.
    testbed.nft(2, "add table inet blocker");
    testbed.nft(2, "add chain inet blocker in { type filter hook input priority 0; }");
    testbed.nft(2, "add rule inet blocker in tcp dport 5000 drop");
    testbed.nft(2, "add rule inet blocker in udp dport 5000 drop");
    testbed.nft(2, "add rule inet blocker in tcp dport 6000 reject with tcp reset");
    testbed.nft(3, "add table inet sraft_agent_4000000_1_0");
    let said = testbed.fails(&["doctor"]);
    for from in ["node-1", "node-3"] {
        for why in
            ["TCP 5000 (peers): no answer", "TCP 6000 (clients): refused", "UDP 5000 (clocks)"]
        {
            let line = format!("no way from {from} to node-2, {why}");
            assert_eq!(said.matches(&line).count(), 1, "{line}: {said}");
        }
    }
    assert!(!said.contains("from node-2 to") && !said.contains("TCP 6001"), "{said}");
    assert!(said.contains("table inet sraft_agent_4000000_1_0 of an agent that died"), "{said}");
    assert!(said.contains("\n7 problems, "), "{said}");

    testbed.nft(2, "delete table inet blocker");
    let said = testbed.done(&["doctor", "--clean"]);
    assert!(said.contains("removed: table inet sraft_agent_4000000_1_0"), "{said}");
    assert!(!text(&testbed.nft(3, "list tables").stdout).contains("sraft_agent"));
}

#[test]
fn a_cluster_on_hosts_of_its_own_starts_and_stops() {
    if !able() {
        return;
    }
    let testbed = Testbed::up(2);
    assert_eq!(testbed.done(&["cluster", "start"]).matches(" started: process").count(), 2);
    // There is no systemd that could look after it.
    let said = testbed.fails(&["cluster", "start", "--restart", "always"]);
    assert_eq!(said.matches("use --restart no").count(), 2, "{said}");
    assert_eq!(testbed.done(&["cluster", "status"]).matches("  up  ").count(), 2);
    assert!(testbed.done(&["doctor"]).contains("runs as process"));
    assert_eq!(testbed.done(&["cluster", "stop"]).matches("stopped: process").count(), 2);
    assert_eq!(testbed.done(&["cluster", "stop"]).matches("was not running").count(), 2);
}
