//! The command line: help, refusals, and what is not allowed to happen.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Output, Stdio},
};

fn sraft() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("sraft"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn help(args: &[&str]) -> String {
    let output = sraft().args(args).arg("--help").env("COLUMNS", "100").output().unwrap();
    assert!(output.status.success());
    text(&output.stdout)
}

const EXPERIMENT: &str = r#"
name = "small"
[cluster]
size = 3
[fault]
kind = "kill"
target = "leader"
[trials]
count = 2
[[variant]]
name = "raft"
protocol = "raft"
"#;

/// Runs a command on an experiment in an otherwise empty folder, in which nothing may appear.
fn refused(command: &str, experiment: &str, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.toml"), experiment).unwrap();
    let output =
        sraft().arg(command).arg("x.toml").args(args).current_dir(&folder).output().unwrap();
    let left: Vec<_> = fs::read_dir(&folder).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    output
}

#[test]
fn help_names_every_command_and_option() {
    insta::assert_snapshot!(help(&[]), @r"
    Kills Raft leaders, again and again, and measures how long the cluster is without one

    Usage: sraft <COMMAND>

    Commands:
      run            Run an experiment: figures, tables and a report come out
      plan           Say what an experiment would run, and how long that takes
      report         Derive everything from the records of a run again
      check          Judge the safety of a run: leaders per term, lost writes, linearizability
      check-history  Judge whether histories in files are linearizable
      sim            Look for broken invariants in simulated clusters under random faults
      load           Put load on any system with etcd's API: throughput and latencies
      ec2            Make, list and remove EC2 instances to experiment on
      testbed        Make hosts on this machine to rehearse on, with an SSH server each (root)
      cluster        Run a cluster that stays up, on the hosts of an inventory
      doctor         Look for what could keep an experiment from working on the hosts of an inventory
      node           Run one consensus node
      help           Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version
    ");
    insta::assert_snapshot!(help(&["run"]), @r#"
    Run an experiment: figures, tables and a report come out

    Usage: sraft run [OPTIONS] [EXPERIMENT.toml]

    Arguments:
      [EXPERIMENT.toml]
              The experiment, a TOML file; may be left out with --resume

    Options:
          --trials <N>
              Trials per variant and cell, instead of the experiment's own number

          --seed <S>
              Seed of everything random, instead of the experiment's own

          --out <DIR>
              Folder in which results/ and plots/ are written
              
              [default: .]

          --name <RUN>
              Name of the run's folder, instead of the time at which it begins

          --resume <RUN>
              Go on with a run that was interrupted: its folder, results/EXPERIMENT/RUN

          --json
              Write the summary to standard output as JSON

          --keep
              Keep the nodes' directories and say where they are

          --attach
              Use the nodes that `sraft cluster start` has started; they stay up, and those killed come
              back

          --allow-reboot
              Let an experiment with kind = "reboot" reset the hosts, whatever else they do

          --inventory <FILE>
              Run on these hosts over SSH, also if the experiment says backend = "local"

          --host-keys <HOW>
              What to do with hosts that are met for the first time

              Possible values:
              - known:      Only those whose key is in known_hosts
              - accept-new: Also those that are not there yet, which are then added
              
              [default: known]

          --program <FILE>
              The program to put on the hosts, instead of this very one

      -h, --help
              Print help (see a summary with '-h')
    "#);
}

#[test]
fn a_bad_experiment_is_refused_before_anything_starts() {
    for command in ["run", "plan"] {
        let output = refused(command, &EXPERIMENT.replace("count = 2", "count = -2"), &[]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            text(&output.stderr),
            "error: x.toml, line 9: trials.count is -2; write a number from 1 to 1000000\n"
        );
    }
    let output = refused("run", &EXPERIMENT.replace("size = 3", "sise = 3"), &[]);
    assert_eq!(
        text(&output.stderr),
        "error: x.toml, line 4: unknown field `sise`, expected `size` or `backend`\n"
    );
}

#[test]
fn a_wrong_option_is_a_matter_of_usage() {
    for args in [&["--trials", "0"][..], &["--trials", "-1"], &["--speed", "high"]] {
        assert_eq!(refused("run", EXPERIMENT, args).status.code(), Some(2));
    }
}

#[test]
fn what_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (vec!["run", "none.toml"], "none.toml: cannot read the experiment: No such file"),
        (vec!["report", "none"], "none"),
        (vec!["run", "--resume", "none"], "none"),
    ];
    for (args, said) in cases {
        let output = sraft().args(&args).current_dir(&folder).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr.starts_with("error: ") && stderr.contains(said), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    fs::write(&file, EXPERIMENT).unwrap();
    let run = |out: &str, tmp: &str| {
        let mut command = sraft();
        command.args(["run", "x.toml", "--out", out]).env("TMPDIR", tmp).current_dir(&folder);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let stderr = run("x.toml", "/tmp");
    assert!(stderr.contains("x.toml/results"), "{stderr}");
    let stderr = run(".", file.to_str().unwrap());
    assert!(stderr.contains("as the agent's directory"), "{stderr}");
}

#[test]
fn an_agent_ends_upon_sigterm_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("agent");
    let mut command = sraft();
    command.arg("agent").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut agent = command.spawn().unwrap();
    let mut input = agent.stdin.take().unwrap();
    let hello = serde_json::json!({
        "id": 1, "call": "hello", "version": sraft_agent::protocol::VERSION, "host": "here", "dir": dir,
    });
    writeln!(input, "{hello}").unwrap();
    let mut answer = String::new();
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    assert!(answer.contains("\"done\"") && dir.exists(), "{answer}");
    let pid = rustix::process::Pid::from_child(&agent);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(agent.wait().unwrap().success());
    assert!(!dir.exists());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.toml"), EXPERIMENT).unwrap();
    let mut command = sraft();
    command.args(["plan", "x.toml"]).current_dir(&folder);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
