//! The agent and its probe, which a shell script stands for, over the pipes that a harness would use.

use std::{
    io::{BufRead, BufReader, Write},
    os::fd::AsFd,
    os::unix::net::UnixStream,
    path::Path,
    thread::JoinHandle,
    time::Duration,
};

use rustix::process::{Pid, test_kill_process};
use sraft_agent::{
    AgentError,
    protocol::{Answer, Call, Request, Said, VERSION},
    serve,
};

/// A probe that writes its header, a row and the line of readiness, and a last row when told to end.
const PROBE: &str = "exec >> {dir}/ops.csv; trap 'echo last; exit 0' TERM; echo trial,op; \
                     echo 1,put; echo '# ready'; while :; do sleep 0.05; done";

/// The harness's end of an agent that runs in a thread.
struct Harness {
    requests: UnixStream,
    said: BufReader<UnixStream>,
    _stop: UnixStream,
    agent: JoinHandle<Result<(), AgentError>>,
    next_id: u64,
    rows: Vec<String>,
}

impl Harness {
    fn greeted(dir: &Path) -> Harness {
        let (requests, input) = UnixStream::pair().unwrap();
        let (said, output) = UnixStream::pair().unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        said.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let agent = std::thread::spawn(move || serve(input.as_fd(), output, stopped.as_fd()));
        let said = BufReader::new(said);
        let mut harness =
            Harness { requests, said, _stop: stop, agent, next_id: 1, rows: Vec::new() };
        let dir = dir.to_str().unwrap().to_owned();
        let hello = Call::Hello { version: VERSION, host: "here".into(), dir, keep: false };
        harness.ask(hello).unwrap();
        harness
    }

    fn send(&mut self, call: Call) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let line = serde_json::to_string(&Request { id, call }).unwrap();
        self.requests.write_all(format!("{line}\n").as_bytes()).unwrap();
        id
    }

    fn hear(&mut self) -> Said {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("the agent says something in time");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}`"))
    }

    fn answer(&mut self, wanted: u64) -> Result<Answer, String> {
        loop {
            match self.hear() {
                Said::Done { id, answer } if id == wanted => return Ok(answer),
                Said::Failed { id, error } if id == wanted => return Err(error),
                Said::Ops { lines } => self.rows.extend(lines),
                _ => {}
            }
        }
    }

    fn ask(&mut self, call: Call) -> Result<Answer, String> {
        let id = self.send(call);
        self.answer(id)
    }

    fn start(&mut self, script: &str) -> Result<u32, String> {
        match self.ask(probe(script))? {
            Answer::Started { pid } => Ok(pid),
            other => panic!("{other:?}"),
        }
    }

    fn hang_up(self) {
        drop(self.requests);
        self.agent.join().unwrap().unwrap();
    }
}

fn probe(script: &str) -> Call {
    Call::StartProbe {
        program: Some("/bin/sh".into()),
        args: vec!["-c".into(), script.into()],
        files: vec![("probe.toml".into(), "rate = 3\n".into())],
        ops_file: "ops.csv".into(),
    }
}

fn lives(pid: u32) -> bool {
    test_kill_process(Pid::from_raw(pid as i32).unwrap()).is_ok()
}

#[test]
fn rows_arrive_without_header_and_all_of_them_before_the_answer_to_stop() {
    let root = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(root.path());
    let pid = harness.start(PROBE).unwrap();
    assert!(lives(pid));
    assert_eq!(harness.rows, ["1,put"]);
    assert!(root.path().join("probe/probe.toml").exists());
    assert_eq!(harness.ask(Call::StopProbe {}), Ok(Answer::Ok));
    assert_eq!(harness.rows, ["1,put", "last"]);
    assert!(!lives(pid));
    // The next one begins with an empty directory.
    harness.rows.clear();
    harness.start(PROBE).unwrap();
    assert_eq!(harness.rows, ["1,put"]);
    harness.hang_up();
    assert!(!root.path().join("probe").exists());
}

#[test]
fn a_start_is_answered_only_once_a_write_was_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(root.path());
    let gate = root.path().join("gate");
    let script = format!(
        "echo trial > ops.csv; while ! test -e {gate}; do sleep 0.02; done; \
         echo '# ready' >> ops.csv; exec sleep 60",
        gate = gate.display()
    );
    let start = harness.send(probe(&script));
    // Other requests are answered meanwhile.
    assert!(matches!(harness.ask(Call::Ping {}), Ok(Answer::Clocks(_))));
    std::fs::write(gate, "").unwrap();
    assert!(matches!(harness.answer(start), Ok(Answer::Started { .. })));
    harness.hang_up();
}

#[test]
fn an_end_before_its_time_comes_with_the_last_words() {
    let root = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(root.path());
    let error = harness.start("echo head > ops.csv; echo no such host >&2; exit 1").unwrap_err();
    assert!(error.contains("exited with code 1") && error.contains("no such host"), "{error}");
    // Nobody has to be told to stop it.
    let error = harness.ask(Call::StopProbe {}).unwrap_err();
    assert!(error.contains("no probe"), "{error}");

    let script = "printf 'head\\n1\\n# ready\\n2\\n' > ops.csv; echo disk full >&2; exit 2";
    harness.start(script).unwrap();
    let error = harness.ask(Call::StopProbe {}).unwrap_err();
    assert!(error.contains("code 2") && error.contains("disk full"), "{error}");
    assert_eq!(harness.rows, ["1", "2"]);
    harness.hang_up();
}

#[test]
fn bad_requests_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(root.path());
    let fails = |harness: &mut Harness, call, reason: &str| {
        let error = harness.ask(call).unwrap_err();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    };
    let with = |program: &str, file: &str, ops: &str| Call::StartProbe {
        program: Some(program.into()),
        args: vec![],
        files: vec![(file.into(), String::new())],
        ops_file: ops.into(),
    };
    fails(&mut harness, Call::StopProbe {}, "no probe");
    fails(&mut harness, with("/bin/true", "../x", "ops.csv"), "plain file name");
    fails(&mut harness, with("/bin/true", "x", "a/b"), "plain file name");
    fails(&mut harness, with("/no/such/program", "x", "ops.csv"), "cannot start /no/such/program");
    harness.start(PROBE).unwrap();
    fails(&mut harness, probe(PROBE), "has not been stopped");
    harness.hang_up();
}

#[test]
fn stop_all_ends_the_probe_too_and_answers_who_waits() {
    let root = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(root.path());
    let start = harness.send(probe("trap '' TERM; echo head > ops.csv; exec sleep 60"));
    let stop_all = harness.send(Call::StopAll {});
    let error = harness.answer(start).unwrap_err();
    assert!(error.contains("everything is stopped"), "{error}");
    assert_eq!(harness.answer(stop_all), Ok(Answer::Ok));
    harness.start(PROBE).unwrap();
    harness.hang_up();
}

#[test]
fn no_probe_and_no_file_of_it_is_left_when_the_input_closes() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("agent");
    let mut harness = Harness::greeted(&dir);
    let script = "trap '' TERM HUP; sleep 60 & echo head > ops.csv; echo $! >> ops.csv; \
                  echo '# ready' >> ops.csv; wait";
    let pid = harness.start(script).unwrap();
    let child: u32 = harness.rows[0].parse().unwrap();
    assert!(lives(pid) && lives(child));
    harness.hang_up();
    assert!(!lives(pid));
    // The grandchild is reaped by init, so wait for it to be a zombie at least.
    let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z"), "{state}");
    assert!(!dir.exists());
}
