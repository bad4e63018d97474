//! What a user gets wrong: one line that names the place and the remedy, and no panic.

use std::{fs, net::TcpListener};

use assert_cmd::Command;

fn node() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sraft-node"));
    for name in ["RAFT_NODE_ID", "RAFT_PORT", "RAFT_PEERS", "ENABLE_SUBLEADER"] {
        command.env_remove(name);
    }
    command.timeout(std::time::Duration::from_secs(30));
    command
}

/// The single line that the command leaves on its standard error.
fn error(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {text}", output.status);
    assert!(output.stdout.is_empty());
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

const PEERS: &str = "127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003";

#[test]
fn bad_peers_are_refused() {
    let cases: [(&[&str], &str); 7] = [
        (&[], "--peers"),
        (&["--peers", "127.0.0.1:7001,127.0.0.1"], "`127.0.0.1`: it has no port"),
        (&["--peers", "127.0.0.1:7001,127.0.0.1:7001"], "listed twice"),
        (&["--peers", PEERS], "--node-id"),
        (&["--peers", PEERS, "--node-id", "4"], "--node-id 4"),
        (&["--peers", PEERS, "--port", "7009"], "7009"),
        (&["--peers", PEERS, "--node-id", "1", "--port", "7002"], "--port 7002"),
    ];
    for (args, part) in cases {
        let text = error(node().args(args));
        assert!(text.contains(part), "{args:?}: {text}");
    }
    let text = error(node().env("RAFT_PEERS", "a:1,b:x"));
    assert!(text.contains("`b:x`"), "{text}");
}

#[test]
fn a_busy_port_is_named_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = holder.local_addr().unwrap().port();
    let peers = format!("127.0.0.1:{port}");
    let data = dir.path().join("data");
    let text =
        error(node().args(["--peers", &peers]).args(["--data-dir".as_ref(), data.as_os_str()]));
    assert!(text.contains(&format!("port {port}")) && text.contains("ss -ltnp"), "{text}");
    assert!(!data.exists());
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let peers = free.to_string();
    let with = |path: &std::path::Path| {
        error(node().args(["--peers", &peers]).args(["--data-dir".as_ref(), path.as_os_str()]))
    };
    let text = with(&file);
    assert!(text.contains("--data-dir") && text.contains("/file"), "{text}");

    let damaged = dir.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    fs::write(damaged.join("watermark"), "?").unwrap();
    let text = with(&damaged);
    assert!(text.contains("watermark is damaged"), "{text}");

    // A directory of the storage engine in which nothing is as it was.
    let garbled = dir.path().join("garbled");
    fs::create_dir_all(garbled.join("log/keyspaces/nonsense")).unwrap();
    fs::write(garbled.join("identity.toml"), "cluster = 'sraft'\nnode = 1\n").unwrap();
    fs::write(garbled.join("log/version"), "FJL\x03").unwrap();
    fs::write(garbled.join("log/lock"), "").unwrap();
    fs::write(garbled.join("log/0.jnl"), "nonsense").unwrap();
    let text = with(&garbled);
    assert!(text.contains("garbled"), "{text}");
}

#[test]
fn mistakes_in_the_configuration_name_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    fs::write(&path, "cluster = 'c'\n[timing]\nhartbeat = '50ms'\n").unwrap();
    let text = error(node().args(["--config".as_ref(), path.as_os_str()]));
    assert!(text.contains("node.toml:3") && text.contains("hartbeat"), "{text}");
}

#[test]
fn a_wrong_parent_is_refused() {
    let text = error(node().args(["--peers", PEERS, "--node-id", "1", "--die-with-parent", "1"]));
    assert!(text.contains("--die-with-parent 1"), "{text}");
}

#[test]
fn the_help_names_every_option() {
    let output = node().arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for option in [
        "--peers",
        "--node-id",
        "--host",
        "--port",
        "--data-dir",
        "--config",
        "--cluster",
        "--original-raft",
        "--preset",
        "--debug",
        "--log-file",
        "--metrics-file",
        "--pid-file",
        "--client-port",
        "--admin-port",
        "--max-clients",
        "--max-request-bytes",
        "--snapshot-bytes",
        "--seed",
        "RAFT_PEERS",
    ] {
        assert!(text.contains(option), "{option}: {text}");
    }
    assert!(!text.contains("--die-with-parent"));
}
