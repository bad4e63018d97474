use super::*;

fn register_of(lines: &[&str]) -> Result<Vec<(u64, Option<u64>, Action)>, String> {
    let history = register(&lines.join("\n")).map_err(|error| error.to_string())?;
    Ok(history.into_iter().map(|o| (o.call, o.back, o.op.action)).collect())
}

fn some(text: &str) -> Value {
    Some(text.into())
}

#[test]
fn failed_cas_is_a_completed_comparison() {
    let lines = ["INFO  jepsen.util - 3\t:invoke\t:cas\t[3 0]", "INFO x - 3\t:fail\t:cas\t[3 0]"];
    let refused = Action::Cas { expected: some("3"), new: "0".into(), swapped: false };
    assert_eq!(register_of(&lines).unwrap(), [(1, Some(2), refused)]);
}

#[test]
fn read_without_an_answer_says_nothing() {
    let lines = ["0\t:invoke\t:read\tnil", "0\t:fail\t:read\t:timed-out", "1\t:invoke\t:read\tnil"];
    assert_eq!(register_of(&lines).unwrap(), []);
}

#[test]
fn failed_write_did_not_happen() {
    let lines = ["0\t:invoke\t:write\t1", "0\t:fail\t:write\t1"];
    assert_eq!(register_of(&lines).unwrap(), []);
}

#[test]
fn operation_that_timed_out_or_never_ended_may_have_happened() {
    let lines = [
        "0\t:invoke\t:write\t1",
        "0\t:info\t:write\t:timed-out",
        "1\t:invoke\t:cas\t[1 2]",
        "2\t:invoke\t:cas\t[1 4]",
        "2\t:fail\t:cas\t:timed-out",
    ];
    let cas = |new: &str| Action::Cas { expected: some("1"), new: new.into(), swapped: true };
    let expected = [(1, None, Action::Write("1".into())), (3, None, cas("2")), (4, None, cas("4"))];
    assert_eq!(register_of(&lines).unwrap(), expected);
}

#[test]
fn store_is_read() {
    let text = "{:process 0, :type :invoke, :f :append, :key \"4\", :value \"x \\\"y\\\"\"}\n\
                {:process 1, :type :invoke, :f :get, :key \"4\", :value nil}\n\
                {:process 1, :type :ok, :f :get, :key \"4\", :value \"\"}\n\
                {:process 2 :type :invoke :f :cas :key \"4\" :value [\"\" \"b\"]}\n\
                {:process 2 :type :fail :f :cas :key \"4\" :value [\"\" \"b\"]}\n";
    let history = store(text).unwrap();
    assert_eq!(history[0].op.action, StoreAction::Append("x \"y\"".into()));
    assert_eq!(history[1].op.action, StoreAction::Get("".into()));
    let (expected, new) = ("".into(), "b".into());
    assert_eq!(history[2].op.action, StoreAction::Cas { expected, new, swapped: false });
    assert_eq!((history[0].back, history[2].back), (None, Some(5)));
}

#[test]
fn what_is_wrong_is_told_with_the_line() {
    let good = "0\t:invoke\t:write\t1";
    for (lines, told) in [
        (&["nonsense"][..], "line 1: 1 fields instead of process"),
        (&[good, "x\t:ok\t:write\t1"], "line 2: `x` is no process number"),
        (&[good, "0\t:done\t:write\t1"], "line 2: `:done` is none of"),
        (&[good, "0\t:ok\t:read\t1"], "line 2: process 0 ends another operation"),
        (&[good, "1\t:ok\t:write\t1"], "line 2: process 1 ends an operation that it never"),
        (&[good, good], "line 2: process 0 invokes `:write` although"),
        (&["0\t:invoke\t:write\tnil"], "line 1: a write needs a value"),
        (&["", "0\t:invoke\t:cas\t[1 2"], "line 2: `]` is missing"),
        (&["0\t:invoke\t:cas\t5"], "line 1: `5` where [expected new]"),
        (&["0\t:invoke\t:swap\t5"], "line 1: `:swap` is none of"),
        (&["0\t:invoke\t:read\tnil", "0\t:ok\t:read\tx"], "line 2: `x` is no value"),
    ] {
        let error = register_of(lines).unwrap_err();
        assert!(error.starts_with(told), "{error}");
    }
    for (line, told) in [
        ("{:process 0, :type :invoke", "line 1: `}` is missing"),
        ("{:process 0, :type :invoke}", "line 1: there is no `:f`"),
        ("{:process 0, :process 1}", "line 1: `:process` stands there twice"),
        ("{:process -1, :type :ok}", "line 1: a negative process"),
        ("{:a [[[[[[", "line 1: a vector within a vector"),
        ("\"abc", "line 1: the string has no end"),
        ("5", "line 1: not a map"),
    ] {
        let error = store(line).unwrap_err().to_string();
        assert!(error.starts_with(told), "{error}");
    }
}
