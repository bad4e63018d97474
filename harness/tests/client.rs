//! `sraft load` and `sraft probe`: refusals, and what ends them.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

fn sraft() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("sraft"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn refused(args: &[&str], reason: &str) {
    let output = sraft().args(args).output().unwrap();
    let error = text(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}: {error}");
    assert!(error.contains(reason), "{args:?} does not say `{reason}`: {error}");
}

/// Waits for something that becomes true in another process.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ended(mut child: Child) -> Output {
    until("the process ends", || child.try_wait().unwrap().is_some());
    child.wait_with_output().unwrap()
}

/// One member on loopback, killed when this is dropped.
struct Etcd {
    process: Child,
    endpoint: String,
    dir: tempfile::TempDir,
}

impl Etcd {
    /// Empty where there is no etcd, except in CI.
    #[expect(clippy::print_stderr, reason = "a test that is skipped has to say so")]
    fn start() -> Option<Etcd> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "no etcd in PATH: install etcd-server");
            eprintln!("skipped: there is no etcd in PATH; install etcd-server");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [client, peer] =
            listeners.map(|listener| format!("http://{}", listener.local_addr().unwrap()));
        let process = Command::new("etcd")
            .args(["--data-dir", dir.path().join("etcd").to_str().unwrap()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let endpoint = client.trim_start_matches("http://").to_owned();
        Some(Etcd { process, endpoint, dir })
    }

    /// A probe's configuration, and where its rows go.
    fn probe(&self) -> [String; 4] {
        let (config, ops) = (self.dir.path().join("probe.toml"), self.ops());
        let text = format!("trial = 4\nendpoints = [\"{}\"]\nrate = 100\n", self.endpoint);
        fs::write(&config, text).unwrap();
        ["--config".into(), config.to_str().unwrap().into(), "--ops".into(), ops]
    }

    fn ops(&self) -> String {
        self.dir.path().join("ops.csv").to_str().unwrap().to_owned()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn bad_options_of_load_are_refused() {
    let endpoint = ["load", "--endpoints", "127.0.0.1:1"];
    let with = |args: &[&'static str]| [&endpoint[..], args].concat();
    refused(&["load", "--max"], "--endpoints");
    refused(&["load", "--max", "--endpoints", "somewhere"], "HOST:PORT");
    refused(&["load", "--max", "--endpoints", "https://a:1"], "TLS");
    refused(&with(&[]), "--rate");
    refused(&with(&["--max", "--rate", "5"]), "cannot be used with");
    refused(&with(&["--rate", "0"]), "1..");
    refused(&with(&["--max", "--clients", "0"]), "1..");
    refused(&with(&["--max", "--reads", "1.5"]), "share from 0 to 1");
    refused(&with(&["--max", "--duration", "soon"]), "such as 10s");
    refused(&with(&["--max", "--duration", "1ms"]), "100ms");
    refused(&with(&["--max", "--keys", "0"]), "1..");
    refused(&with(&["--max", "--value-size", "99999999"]), "1048576");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    refused(&["load", "--max", "--endpoints", &nobody], &format!("{nobody}: Connection refused"));
}

#[test]
fn a_bad_probe_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (config, ops) = (dir.path().join("probe.toml"), dir.path().join("ops.csv"));
    let args = ["--config", config.to_str().unwrap(), "--ops", ops.to_str().unwrap()];
    let with = |more: &[&'static str]| [&["probe"], &args[..], more].concat();
    refused(&with(&[]), "cannot read");
    fs::write(&config, "trial = 1\nrate = 5\nendpoints = [\"a\"]\n").unwrap();
    refused(&with(&[]), "HOST:PORT");
    refused(&with(&["--die-with-parent", "1"]), "--die-with-parent 1");
    assert!(!ops.exists());
}

#[test]
fn an_interrupted_load_shows_what_it_has() {
    let Some(etcd) = Etcd::start() else { return };
    let seconds = etcd.dir.path().join("seconds.csv");
    let start = || {
        let mut load = sraft();
        load.args(["load", "--max", "--clients", "2", "--duration", "1h", "--warmup", "0s"]);
        load.args(["--endpoints", &etcd.endpoint, "--csv", seconds.to_str().unwrap()]);
        load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut load = start();
    until("a second is over", || {
        // etcd may not be up yet.
        if load.try_wait().unwrap().is_some() {
            load = start();
        }
        read(&seconds).lines().count() >= 2
    });
    kill_process(Pid::from_child(&load), Signal::INT).unwrap();
    let output = ended(load);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(table.contains("then interrupted") && table.contains("p50 "), "{table}");
    assert!(table.contains('#'), "there is a histogram: {table}");
}

#[test]
fn a_probe_ends_with_its_audit_when_told_to() {
    let Some(etcd) = Etcd::start() else { return };
    let probe = sraft().arg("probe").args(etcd.probe()).spawn().unwrap();
    until("a write is acknowledged", || read(etcd.ops()).contains("\n# ready\n"));
    kill_process(Pid::from_child(&probe), Signal::TERM).unwrap();
    let output = ended(probe);
    assert_eq!(output.status.code(), Some(0));
    let rows = read(etcd.ops());
    assert!(rows.lines().last().unwrap().starts_with("4,audit,,"), "{rows}");

    let load = sraft()
        .args(["load", "--rate", "50", "--duration", "200ms", "--warmup", "0s", "--json"])
        .args(["--endpoints", &etcd.endpoint])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&load.stdout).unwrap();
    assert_eq!((&report["schedule"], &report["acknowledged"]), (&"open".into(), &10.into()));
}

#[test]
fn a_probe_dies_with_its_parent() {
    let Some(etcd) = Etcd::start() else { return };
    let quoted: Vec<String> = etcd.probe().iter().map(|arg| format!("'{arg}'")).collect();
    let script = format!(
        "'{}' probe {} --die-with-parent $$ & echo $! > '{}'; wait",
        assert_cmd::cargo::cargo_bin!("sraft").display(),
        quoted.join(" "),
        etcd.dir.path().join("pid").display()
    );
    let mut shell = Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
    until("a write is acknowledged", || read(etcd.ops()).contains("\n# ready\n"));
    let pid: i32 = read(etcd.dir.path().join("pid")).trim().parse().unwrap();
    shell.kill().unwrap();
    shell.wait().unwrap();
    // Reaped by init, it is gone, or a zombie where init does not.
    until("the probe has died", || {
        let stat = read(format!("/proc/{pid}/stat"));
        test_kill_process(Pid::from_raw(pid).unwrap()).is_err() || stat.contains(") Z")
    });
}
