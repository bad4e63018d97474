//! `sraft check` and `sraft check-history`, from files to verdict and exit code.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn sraft(args: &[&str], paths: &[&Path]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sraft"));
    command.args(args).args(paths).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const GOOD: &str = "INFO  jepsen.util - 0\t:invoke\t:write\t1\n\
                    INFO  jepsen.util - 0\t:ok\t:write\t1\n\
                    INFO  jepsen.util - 1\t:invoke\t:read\tnil\n\
                    INFO  jepsen.util - 1\t:ok\t:read\t1\n";

#[test]
fn histories_are_judged_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let good = file("good.log", GOOD);
    let bad = file("bad.log", &GOOD.replace(":read\t1", ":read\t2"));
    let check = ["check-history", "--format", "jepsen-register"];
    let output = sraft(&check, &[&good]);
    assert_eq!(text(&output.stdout), format!("{} linearizable\n", good.display()));
    assert!(output.status.success());

    let svg = folder.path().join("drawings");
    let svg_option = [&check[..], &["--svg", svg.to_str().unwrap()]].concat();
    let output = sraft(&svg_option, &[&good, &bad]);
    let expected = format!("{} linearizable\n{} not-linearizable\n", good.display(), bad.display());
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(1));
    assert!(fs::read_to_string(svg.join("bad.svg")).unwrap().contains("<title>read 2</title>"));
    assert!(!svg.join("good.svg").exists());

    let kv = file("kv.txt", "{:process 0, :type :invoke, :f :get, :key \"a\", :value nil}\n");
    let output = sraft(&["check-history", "--format", "jepsen-kv"], &[&kv]);
    assert_eq!(text(&output.stdout), format!("{} linearizable\n", kv.display()));
}

#[test]
fn what_is_wrong_with_a_history_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.log");
    let cases: [(&[u8], &str); 3] = [
        (b"0\t:invoke\t:write\t1\n0\t:oh\t:write\t1\n", "x.log: line 2: `:oh` is none of"),
        (b"\n\xff\n", "x.log, line 2: it is not UTF-8"),
        (GOOD.as_bytes(), ""),
    ];
    for (bytes, told) in cases {
        fs::write(&path, bytes).unwrap();
        let output = sraft(&["check-history", "--format", "jepsen-register"], &[&path]);
        assert_eq!(output.status.success(), told.is_empty());
        assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
    }
    let output = sraft(&["check-history", "--format", "jepsen-register"], &[Path::new("/none")]);
    assert!(text(&output.stderr).starts_with("error: cannot read /none"));
}

/// A copy of the run that is kept with the project, without what is derived from its records.
fn run(folder: &Path) -> PathBuf {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/detectors/reference-run");
    let run = folder.join("results/detectors/reference-run");
    fs::create_dir_all(&run).unwrap();
    for file in ["plan.json", "events.jsonl"] {
        fs::copy(kept.join(file), run.join(file)).unwrap();
    }
    run
}

const HEADER: &str = "trial,op,key,value,expected,intended_ns,start_ns,end_ns,outcome,found,\
                      revision,endpoint,error\n";

#[test]
fn run_without_a_probe_is_checked_as_far_as_possible() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let output = sraft(&["check"], &[&run]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(
        said.starts_with("leaders per term     ok         at most 1 in 120 trials\n"),
        "{said}"
    );
    assert_eq!(said.matches("not known  there is no ops.csv: the run had no probe").count(), 2);
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("check.json")).unwrap()).unwrap();
    assert_eq!((&json["passed"], &json["writes"]), (&true.into(), &serde_json::Value::Null));
}

#[test]
fn violation_is_told_drawn_and_fails_and_goes_with_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let ops = |read: &str| {
        let lines = format!(
            "1,put,r/0,1.1,,1,1,2,ok,,5,a:1,\n\
             1,put,r/0,1.2,,3,3,4,ok,,6,a:1,\n\
             1,get,r/0,{read},,5,5,6,ok,true,6,a:1,\n\
             1,put,w/1/0,1.3,,7,7,8,ok,,7,a:1,\n\
             1,audit,,1,,,9,10,ok,,7,a:1,\n"
        );
        fs::write(run.join("ops.csv"), HEADER.to_owned() + &lines).unwrap();
    };
    ops("1.1");
    let output = sraft(&["check"], &[&run]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}{}", text(&output.stderr));
    assert!(said.contains("lost writes          ok         0 of 1 acknowledged"), "{said}");
    assert!(
        said.contains("VIOLATED   1 histories of 3 operations: 0 linearizable, 1 not"),
        "{said}"
    );
    let drawing = run.join("violation-1-r-0.svg");
    assert!(said.contains(&drawing.display().to_string()), "{said}");
    assert!(fs::read_to_string(&drawing).unwrap().starts_with("<svg"));

    ops("1.2");
    let output = sraft(&["check", "--json"], &[&run]);
    assert!(output.status.success());
    assert_eq!(output.stdout, fs::read(run.join("check.json")).unwrap());
    assert!(!drawing.exists());

    fs::write(run.join("ops.csv"), HEADER.to_owned() + "1,put\n").unwrap();
    let output = sraft(&["check"], &[&run]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("ops.csv: line 2: there are 2 cells, not 13"), "{said}");
}
