//! etcd's own command line against the servers.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::double::Double;

/// What it prints with these arguments and this input; it must succeed unless it is told not to.
fn etcdctl(double: &Double, arguments: &[&str], input: &str, succeeds: bool) -> String {
    let mut child = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={}", double.client))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.success(), succeeds, "{arguments:?}: {text}");
    text
}

/// Whether there is an etcdctl; on CI there must be one.
fn available() -> bool {
    let found = Command::new("etcdctl").arg("version").env("ETCDCTL_API", "3").output().is_ok();
    assert!(
        found || std::env::var_os("CI").is_none(),
        "etcdctl is missing: apt-get install etcd-client"
    );
    found
}

#[test]
fn etcdctl_works() {
    if !available() {
        eprintln!("skipped: etcdctl is missing (apt-get install etcd-client)");
        return;
    }
    let double = Double::start();
    let run = |arguments: &[&str]| etcdctl(&double, arguments, "", true);
    assert_eq!(run(&["put", "a", "1"]), "OK\n");
    assert_eq!(run(&["put", "ab", "2"]), "OK\n");
    assert_eq!(run(&["put", "--prev-kv", "b", "3"]), "OK\n");
    assert_eq!(run(&["put", "--prev-kv", "b", "4"]), "OK\nb\n3\n");
    assert_eq!(run(&["get", "a"]), "a\n1\n");
    assert_eq!(run(&["get", "none"]), "");
    assert_eq!(run(&["get", "--prefix", "a"]), "a\n1\nab\n2\n");
    assert_eq!(run(&["get", "--consistency=s", "a"]), "a\n1\n");
    assert_eq!(run(&["get", "--from-key", "", "--keys-only"]), "a\n\nab\n\nb\n\n");
    assert_eq!(run(&["get", "", "--prefix", "--order=DESCEND", "--limit=1"]), "b\n4\n");
    let json = run(&["get", "b", "-w", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["header"]["revision"], 5);
    assert_eq!(json["header"]["member_id"], 2);
    assert_eq!(json["kvs"][0]["version"], 2);
    assert_eq!(run(&["del", "--prefix", "a"]), "2\n");
    assert_eq!(run(&["del", "a"]), "0\n");

    let input = "value(\"b\") = \"4\"\nversion(\"c\") = \"0\"\n\nput c new\nget b\n\nget c\n\n";
    let told = etcdctl(&double, &["txn", "--interactive"], input, true);
    assert!(told.ends_with("SUCCESS\n\nOK\n\nb\n4\n"), "{told}");
    let told = etcdctl(&double, &["txn", "--interactive"], input, true);
    assert!(told.ends_with("FAILURE\n\nc\nnew\n"), "{told}");

    let table = run(&["endpoint", "status", "-w", "table"]);
    assert!(table.contains("| IS LEADER |") && table.contains("|      true |"), "{table}");
    assert!(table.contains(&double.client.to_string()), "{table}");
    let health = run(&["endpoint", "health"]);
    assert!(health.contains("is healthy"), "{health}");
    let members = run(&["member", "list"]);
    let line = format!("3, started, node-3, http://10.0.0.3:5000, http://{}, false", double.client);
    assert!(members.lines().any(|found| found == line), "{members}");

    for (arguments, words) in [
        (&["watch", "a"][..], "not offered"),
        (&["lease", "grant", "5"], "not offered"),
        (&["put", "a", "1", "--lease=5"], "leases are not offered"),
        (&["get", "b", "--rev=2"], "required revision has been compacted"),
        (&["get", "b", "--rev=99"], "required revision is a future revision"),
        (&["compact", "2"], "latest revision"),
        (&["member", "remove", "3"], "not offered"),
    ] {
        let told = etcdctl(&double, arguments, "", false);
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
}
