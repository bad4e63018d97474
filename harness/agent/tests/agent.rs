//! The agent with real child processes, over the pipes that a harness would use.

use std::{
    io::{BufRead, BufReader, Write},
    os::fd::AsFd,
    os::unix::net::UnixStream,
    path::Path,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, test_kill_process};
use sraft_agent::{
    AgentError,
    protocol::{Answer, Call, Disk, LogFormat, Request, Said, VERSION},
    serve,
};
use sraft_events::{Event, FaultAction, Record, Source};

const LOG: &str = "events.jsonl";

/// The harness's end of an agent that runs in a thread.
struct Harness {
    requests: UnixStream,
    said: BufReader<UnixStream>,
    stop: UnixStream,
    agent: JoinHandle<Result<(), AgentError>>,
    next_id: u64,
    /// Everything that was not a reply.
    heard: Vec<Said>,
}

impl Harness {
    fn silent() -> Harness {
        let (requests, input) = UnixStream::pair().unwrap();
        let (said, output) = UnixStream::pair().unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        said.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let agent = std::thread::spawn(move || serve(input.as_fd(), output, stopped.as_fd()));
        Harness { requests, said: BufReader::new(said), stop, agent, next_id: 1, heard: vec![] }
    }

    fn greeted(dir: &Path) -> Harness {
        let mut harness = Harness::silent();
        match harness.ask(hello(dir)) {
            Ok(Answer::Hello(facts)) => {
                assert_eq!(facts.pid, std::process::id());
                assert!(facts.filesystem.is_some(), "{facts:?}");
                assert!(facts.cpus > 0 && facts.clocks.mono_ns > 0, "{facts:?}");
            }
            other => panic!("{other:?}"),
        }
        harness
    }

    fn hear(&mut self) -> Said {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("the agent says something in time");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}`"))
    }

    fn ask(&mut self, call: Call) -> Result<Answer, String> {
        let id = self.next_id;
        self.next_id += 1;
        let line = serde_json::to_string(&Request { id, call }).unwrap();
        self.requests.write_all(format!("{line}\n").as_bytes()).unwrap();
        loop {
            match self.hear() {
                Said::Done { id: to, answer } if to == id => return Ok(answer),
                Said::Failed { id: to, error } if to == id => return Err(error),
                said => self.heard.push(said),
            }
        }
    }

    fn shell(&mut self, node: u64, script: &str) -> u32 {
        match self.ask(shell(node, script)).unwrap() {
            Answer::Started { pid } => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Lines of logs and records so far, in the order in which they came.
    fn lines(&self) -> Vec<String> {
        let lines = self.heard.iter().filter_map(|said| match said {
            Said::Records { lines } => Some(lines.clone()),
            _ => None,
        });
        lines.flatten().collect()
    }

    fn wait_for_line(&mut self, wanted: impl Fn(&str) -> bool) {
        while !self.lines().iter().any(|line| wanted(line)) {
            let said = self.hear();
            self.heard.push(said);
        }
    }

    fn wait_for_exit(&mut self) {
        self.wait_for_line(|line| matches!(event(line), Some(Event::ProcessExited { .. })));
    }

    /// Closes the input and waits for the agent's end.
    fn hang_up(self) -> Result<(), AgentError> {
        drop(self.requests);
        self.agent.join().unwrap()
    }
}

fn hello(dir: &Path) -> Call {
    let dir = dir.to_str().unwrap().to_owned();
    Call::Hello { version: VERSION, host: "here".into(), dir, keep: false }
}

fn shell(node: u64, script: &str) -> Call {
    let args = ["-c", script].map(str::to_owned).to_vec();
    Call::Start {
        node,
        program: Some("/bin/sh".into()),
        args,
        files: vec![],
        fresh: true,
        log_file: LOG.into(),
        log_format: LogFormat::Records,
        disk: Disk::Shared,
    }
}

fn event(line: &str) -> Option<Event> {
    Some(serde_json::from_str::<Record>(line).ok()?.event)
}

/// The state of a process (proc(5), /proc/pid/stat, field 3).
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn wait_until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "it takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lives(pid: u32) -> bool {
    test_kill_process(Pid::from_raw(pid as i32).unwrap()).is_ok()
}

#[test]
fn text_of_another_system_arrives_stamped_between_its_start_and_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    let before = sraft_agent::clock::read();
    let mut call = shell(1, &format!("echo one >> {LOG}; echo two, not JSON >> {LOG}"));
    let Call::Start { log_format, .. } = &mut call else { panic!("it is a start") };
    *log_format = LogFormat::Text;
    let Answer::Started { pid } = harness.ask(call).unwrap() else { panic!("it has started") };
    harness.wait_for_exit();
    let mut order = Vec::new();
    for said in &harness.heard {
        match said {
            Said::Records { lines } => {
                order.extend(lines.iter().filter_map(|line| match event(line)? {
                    Event::ProcessStarted { .. } => Some("started".to_owned()),
                    Event::ProcessExited { .. } => Some("exited".to_owned()),
                    _ => None,
                }));
            }
            Said::Text { node, pid: of, clocks, lines } => {
                assert_eq!((*node, *of), (1, pid));
                assert!(clocks.mono_ns > before.mono_ns && clocks.wall_ns > before.wall_ns);
                order.extend(lines.clone());
            }
            _ => {}
        }
    }
    assert_eq!(order, ["started", "one", "two, not JSON", "exited"]);
    harness.hang_up().unwrap();
}

#[test]
fn lines_of_the_event_log_arrive_whole_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    harness.shell(
        1,
        "printf one >> {dir}/events.jsonl; printf -- '-two\\nthree\\n' >> {dir}/events.jsonl; exec sleep 60",
    );
    harness.wait_for_line(|line| line == "three");
    let lines = harness.lines();
    assert!(matches!(event(&lines[0]), Some(Event::ProcessStarted { node: 1, .. })), "{lines:?}");
    assert_eq!(lines[1..], ["one-two", "three"]);
    harness.hang_up().unwrap();
}

#[test]
fn a_kill_is_stamped_and_the_end_announced_after_the_last_line_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    let pid = harness.shell(3, "echo last >> events.jsonl; exec sleep 60");
    harness.wait_for_line(|line| line == "last");
    harness.ask(Call::Fault { actions: vec![(3, FaultAction::Kill)] }).unwrap();
    harness.wait_for_exit();
    let records: Vec<Record> =
        harness.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(records.iter().all(|record| record.source == Source::Agent("here".into())));
    assert!(records.iter().map(|record| record.seq).eq(0..3), "{records:?}");
    assert_eq!(records[1].event, Event::FaultApplied { node: 3, pid, action: FaultAction::Kill });
    assert_eq!(
        records[2].event,
        Event::ProcessExited { node: 3, pid, code: None, signal: Some(9) }
    );
    assert!(records[1].mono_ns < records[2].mono_ns);
    assert!(!harness.heard.iter().any(|said| matches!(said, Said::Died { .. })));
    harness.hang_up().unwrap();
}

#[test]
fn what_a_process_wrote_just_before_it_died_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    harness.shell(1, "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done >> events.jsonl");
    harness.wait_for_exit();
    let lines = harness.lines();
    let numbers: Vec<u32> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.into_iter().eq(0..2000));
    assert!(matches!(event(lines.last().unwrap()), Some(Event::ProcessExited { .. })));
    harness.hang_up().unwrap();
}

#[test]
fn a_death_unasked_for_comes_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    harness.shell(2, "echo the disk is on fire >&2; exit 3");
    let died = loop {
        match harness.hear() {
            Said::Died { node, how, stderr } => break (node, how, stderr),
            said => harness.heard.push(said),
        }
    };
    assert_eq!(died, (2, "exited with code 3".into(), "the disk is on fire".into()));
    harness.hang_up().unwrap();
}

#[test]
fn a_node_restarts_in_its_directory_and_its_log_is_followed_from_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    harness
        .shell(1, "printf 'first\\nunfinished' >> events.jsonl; echo kept > data; exec sleep 60");
    harness.wait_for_line(|line| line == "first");
    harness.ask(Call::Fault { actions: vec![(1, FaultAction::Kill)] }).unwrap();
    harness.wait_for_exit();
    let Call::Start { node, program, args, log_file, .. } =
        shell(1, "cat data >> events.jsonl; cat \"$0\" >> events.jsonl; exec sleep 60")
    else {
        unreachable!()
    };
    let args = args.into_iter().chain(["{dir}/note".to_owned()]).collect();
    let files = vec![("note".to_owned(), "written before\n".to_owned())];
    let log_format = LogFormat::Records;
    let (fresh, disk) = (false, Disk::Shared);
    let start = Call::Start { node, program, args, files, fresh, log_file, log_format, disk };
    harness.ask(start).unwrap();
    harness.wait_for_line(|line| line == "written before");
    let lines = harness.lines();
    let written: Vec<&String> = lines.iter().filter(|line| event(line).is_none()).collect();
    assert_eq!(written, ["first", "kept", "written before"]);
    harness.hang_up().unwrap();
}

#[test]
fn one_request_strikes_all_its_victims_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    for node in 1..=3 {
        harness.shell(node, "exec sleep 60");
    }
    let actions = (1..=3).map(|node| (node, FaultAction::Pause)).collect();
    harness.ask(Call::Fault { actions }).unwrap();
    let stamps: Vec<u64> = harness
        .lines()
        .iter()
        .filter_map(|line| serde_json::from_str::<Record>(line).ok())
        .filter(|record| matches!(record.event, Event::FaultApplied { .. }))
        .map(|record| record.seq)
        .collect();
    assert_eq!(stamps, [3, 4, 5]);
    harness.hang_up().unwrap();
}

#[test]
fn nothing_is_left_when_the_input_closes_not_even_what_is_paused() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("agent");
    let mut harness = Harness::greeted(&dir);
    let paused = harness.shell(1, "trap '' TERM; exec sleep 60");
    // A node that started something of its own, which ignores the polite signals.
    let parent = harness.shell(2, "trap '' TERM HUP; sleep 60 & echo $! >> events.jsonl; wait");
    harness.wait_for_line(|line| line.parse::<u32>().is_ok());
    let child = harness.lines().iter().find_map(|line| line.parse().ok()).unwrap();
    harness.ask(Call::Fault { actions: vec![(1, FaultAction::Pause)] }).unwrap();
    assert!([paused, parent, child].into_iter().all(lives));
    harness.hang_up().unwrap();
    assert!(!lives(paused) && !lives(parent));
    // The grandchild is reaped by init, so wait for it to be a zombie at least.
    let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z"), "{state}");
    assert!(!dir.exists());
}

#[test]
fn a_signal_ends_the_agent_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    let pid = harness.shell(1, "exec sleep 60");
    harness.stop.write_all(b"x").unwrap();
    harness.agent.join().unwrap().unwrap();
    assert!(!lives(pid));
}

#[test]
fn a_broken_output_ends_the_agent_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    let pid = harness.shell(1, "exec sleep 60");
    let Harness { mut requests, said, agent, .. } = harness;
    drop(said);
    // More than one, because a child that another test is just starting may hold a copy of the
    // pipe for a moment. Writing fails once the agent has gone.
    while requests.write_all(b"{\"id\":9,\"call\":\"ping\"}\n").is_ok() {}
    let error = agent.join().unwrap().unwrap_err();
    assert!(matches!(error, AgentError::Pipe { end: "output", .. }), "{error}");
    assert!(!lives(pid));
}

#[test]
fn stop_all_ends_everything_and_the_agent_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    let pids = [1, 2].map(|node| harness.shell(node, "exec sleep 60"));
    harness.ask(Call::StopAll {}).unwrap();
    assert!(!pids.into_iter().any(lives));
    let lines = harness.lines();
    let killed =
        |line: &&String| matches!(event(line), Some(Event::ProcessExited { signal: Some(9), .. }));
    assert_eq!(lines.iter().filter(killed).count(), 2);
    harness.shell(1, "exec sleep 60");
    harness.hang_up().unwrap();
}

#[test]
fn what_is_kept_is_kept_and_only_one_agent_uses_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("agent");
    let mut harness = Harness::silent();
    let Call::Hello { version, host, dir: path, .. } = hello(&dir) else { unreachable!() };
    harness.ask(Call::Hello { version, host, dir: path, keep: true }).unwrap();
    harness.shell(1, "exec sleep 60");
    let mut second = Harness::silent();
    let error = second.ask(hello(&dir)).unwrap_err();
    assert!(error.contains("another agent uses"), "{error}");
    second.hang_up().unwrap();
    harness.hang_up().unwrap();
    assert!(dir.join("node-1").join(LOG).exists());
    // The lock is gone with the agent.
    Harness::greeted(&dir).hang_up().unwrap();
}

#[test]
fn a_machine_that_is_to_be_spared_is_not_reset() {
    let root = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(&root.path().join("agent"));
    let spared = vec![sraft_agent::boot_id().unwrap()];
    // Where that cannot be done anyhow (a container, no rights) another reason comes first.
    harness.ask(Call::ArmReboot { spared }).unwrap_err();
    let error = harness.ask(Call::Reboot { nodes: vec![1] }).unwrap_err();
    assert!(error.contains("no reset was armed"), "{error}");
    harness.ask(Call::Ping {}).unwrap();
    harness.hang_up().unwrap();
}

#[test]
fn a_bad_request_is_answered_with_its_reason_and_the_agent_lives_on() {
    let root = tempfile::tempdir().unwrap();
    let mut harness = Harness::silent();
    let fails = |harness: &mut Harness, call, reason: &str| {
        let error = harness.ask(call).unwrap_err();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    };
    let dir = root.path().to_str().unwrap().to_owned();
    let version = VERSION + 1;
    fails(&mut harness, shell(1, "exit"), "hello");
    fails(
        &mut harness,
        Call::Hello { version, host: "here".into(), dir, keep: false },
        "same program on every host",
    );
    let relative = Path::new("here");
    fails(&mut harness, hello(relative), "not absolute");
    harness.ask(hello(root.path())).unwrap();
    fails(&mut harness, hello(root.path()), "already");

    let outside = root.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "x").unwrap();
    std::os::unix::fs::symlink(&outside, root.path().join("node-1")).unwrap();
    fails(&mut harness, shell(1, "exit"), "not a directory");
    assert!(outside.join("precious").exists());

    let start = |program: &str, file: &str, log: &str| Call::Start {
        node: 2,
        program: Some(program.into()),
        args: vec![],
        files: vec![(file.into(), String::new())],
        fresh: true,
        log_file: log.into(),
        log_format: LogFormat::Records,
        disk: Disk::Shared,
    };
    fails(&mut harness, start("/bin/true", "../x", LOG), "plain file name");
    fails(&mut harness, start("/bin/true", "x", "a/b"), "plain file name");
    fails(&mut harness, start("/no/such/program", "x", LOG), "cannot start /no/such/program");
    let strike = Call::Fault { actions: vec![(2, FaultAction::Kill)] };
    fails(&mut harness, strike, "node 2 does not run");
    harness.shell(3, "exec sleep 60");
    fails(&mut harness, shell(3, "exit"), "still runs");

    harness.requests.write_all(b"{\"id\":77,\"call\":\"dance\"}\nnot json\n").unwrap();
    for expected in [77, 0] {
        let said = loop {
            match harness.hear() {
                Said::Records { .. } => {}
                said => break said,
            }
        };
        assert!(matches!(said, Said::Failed { id, .. } if id == expected), "{said:?}");
    }
    assert!(matches!(harness.ask(Call::Ping {}), Ok(Answer::Clocks(_))));
    harness.hang_up().unwrap();
    assert!(outside.join("precious").exists());
}

#[test]
fn an_agent_that_hears_nothing_ends_although_its_input_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    harness.ask(Call::Lease { silence_ms: 1000 }).unwrap();
    let pid = harness.shell(1, "sleep 60");
    // Empty lines are enough to keep it.
    for _ in 0..30 {
        harness.requests.write_all(b"\n").unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(matches!(harness.ask(Call::Ping {}), Ok(Answer::Clocks(_))));
    harness.agent.join().unwrap().unwrap();
    assert!(test_kill_process(Pid::from_raw(pid as i32).unwrap()).is_err(), "the node lives");
    assert!(!dir.path().join("node-1").exists());
    // Its input has been open all the time.
    drop(harness.requests);
}

/// An agent whose node has recorded far more than any pipe holds, to a harness that reads no more.
fn unheard(dir: &Path, lease_ms: u64) -> (Harness, u32) {
    let mut harness = Harness::greeted(dir);
    let script =
        "head -c 3000000 /dev/zero | tr '\\0' x | fold -w 99 >> events.jsonl; exec sleep 60";
    let pid = harness.shell(1, script);
    harness.ask(Call::Lease { silence_ms: lease_ms }).unwrap();
    // Something has arrived, so all of it is on its way, or about to be.
    harness.wait_for_line(|line| line.starts_with("xxx"));
    (harness, pid)
}

#[test]
fn an_agent_whose_words_are_not_taken_notices_silence_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (harness, pid) = unheard(dir.path(), 300);
    harness.agent.join().unwrap().unwrap();
    assert!(!lives(pid));
    drop((harness.requests, harness.said));
}

#[test]
fn an_agent_whose_words_are_not_taken_obeys_signals_and_requests_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (mut harness, pid) = unheard(dir.path(), 60_000);
    // The answers are not read, but what was asked for is done.
    let kill = Request { id: 99, call: Call::Fault { actions: vec![(1, FaultAction::Kill)] } };
    let line = serde_json::to_string(&kill).unwrap();
    harness.requests.write_all(format!("{line}\n").as_bytes()).unwrap();
    wait_until(|| !lives(pid) || state(pid) == Some('Z'));
    harness.stop.write_all(b"x").unwrap();
    harness.agent.join().unwrap().unwrap();
    drop((harness.requests, harness.said));
}

#[test]
fn a_harness_that_was_slow_to_read_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::greeted(dir.path());
    harness.shell(1, "seq 1 300000 >> events.jsonl; exec sleep 60");
    let log = dir.path().join("node-1").join(LOG);
    wait_until(|| std::fs::metadata(&log).is_ok_and(|log| log.len() == 1_988_895));
    harness.wait_for_line(|line| line == "300000");
    let lines = harness.lines();
    let numbers = lines.iter().filter_map(|line| line.parse::<u32>().ok());
    assert!(numbers.eq(1..=300_000));
    harness.hang_up().unwrap();
}

#[test]
fn agents_compare_their_clocks() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut reference = Harness::greeted(dirs[0].path());
    let mut other = Harness::greeted(dirs[1].path());
    let at = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    // Twice is as good as once.
    for _ in 0..2 {
        assert_eq!(reference.ask(Call::AnswerClocks { at: at.clone() }), Ok(Answer::Ok));
    }
    match other.ask(Call::CompareClocks { with: at.clone() }) {
        Ok(Answer::Compared(found)) => {
            assert!(found.offset_ns.unsigned_abs() <= found.bound_ns(), "{found:?}");
        }
        other => panic!("{other:?}"),
    }
    reference.hang_up().unwrap();
    let said = other.ask(Call::CompareClocks { with: at.clone() }).unwrap_err();
    assert!(said.contains(&at), "{said}");
}

#[test]
fn what_a_killed_agent_has_left_is_removed_by_the_next() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("agent");
    std::fs::create_dir_all(dir.join("node-7/data")).unwrap();
    std::fs::write(dir.join("agent.lock"), "").unwrap();
    let harness = Harness::greeted(&dir);
    harness.hang_up().unwrap();
    assert!(!dir.exists());
    // What no agent has made is nobody's to remove.
    std::fs::create_dir_all(dir.join("node-7")).unwrap();
    Harness::greeted(&dir).hang_up().unwrap();
    assert!(dir.join("node-7").exists());
}
