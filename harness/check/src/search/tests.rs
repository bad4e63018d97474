//! One behaviour each, as histories that can be read: in a line a process, `[` and `]` around each
//! operation, `[...>` if its answer never came. Columns are time.

use std::sync::Arc;

use super::*;
use crate::model::{Action, Register, RegisterOp};

/// `w1` writes, `r1` reads, `r-` reads nil, `c12` compares and sets, `x12` was refused.
fn action(word: &str) -> Action {
    let value = |c: char| (c != '-').then(|| Arc::from(c.to_string()));
    let chars: Vec<char> = word.chars().collect();
    let written = |c: char| value(c).expect("a value is written");
    match chars[..] {
        ['w', new] => Action::Write(written(new)),
        ['r', seen] => Action::Read(value(seen)),
        ['c', expected, new] => {
            Action::Cas { expected: value(expected), new: written(new), swapped: true }
        }
        ['x', expected, new] => {
            Action::Cas { expected: value(expected), new: written(new), swapped: false }
        }
        _ => panic!("{word}"),
    }
}

fn history(picture: &str) -> Vec<Operation<RegisterOp>> {
    let mut history = Vec::new();
    for (process, line) in picture.lines().enumerate() {
        let mut rest = line.char_indices();
        while let Some((call, c)) = rest.next() {
            if c != '[' {
                continue;
            }
            let mut word = String::new();
            let (back, end) = loop {
                match rest.next().expect("an end") {
                    (at, end @ (']' | '>')) => break (at, end),
                    (_, ' ') => {}
                    (_, c) => word.push(c),
                }
            };
            history.push(Operation {
                process: process as u64,
                call: call as u64,
                back: (end == ']').then_some(back as u64),
                op: RegisterOp { key: Arc::from("x"), action: action(&word) },
            });
        }
    }
    history
}

fn judged(model: Register, picture: &str) -> Checked {
    check(&model, &history(picture), &Budget::default())
}

#[track_caller]
fn accepts(picture: &str) {
    assert_eq!(judged(Register::absent(), picture).verdict(), Verdict::Linearizable);
}

/// Refuses, and says what was stuck.
#[track_caller]
fn refuses(picture: &str, stuck: &str) -> Prefix {
    let checked = judged(Register::absent(), picture);
    assert_eq!(checked.verdict(), Verdict::NotLinearizable);
    let prefix = checked.keys[0].prefix.clone().expect("a prefix");
    assert_eq!(history(picture)[prefix.stuck].op.action, action(stuck));
    prefix
}

#[test]
fn nothing_is_linearizable() {
    accepts("");
    assert_eq!(check(&Register::absent(), &[], &Budget::default()).keys, []);
}

#[test]
fn register_is_nil_at_first() {
    accepts("[r-] [w1] [r1]");
    refuses("[r1]", "r1");
}

#[test]
fn read_after_a_write_must_see_it() {
    refuses("[w1] [w2]\n          [r1]", "r1");
}

#[test]
fn read_during_a_write_may_see_it_or_not() {
    accepts("[w1] [ w2 ]\n      [r1]");
    accepts("[w1] [ w2 ]\n      [r2]");
}

#[test]
fn what_was_seen_once_is_not_unseen_by_a_later_read() {
    refuses("[w1] [    w2    ]\n      [r2] [r1]", "r1");
}

#[test]
fn overlapping_writes_may_come_in_either_order() {
    accepts("[w1 ]\n [w2]\n      [r1]");
    accepts("[w1 ]\n [w2]\n      [r2]");
    refuses("[w1 ]\n [w2]\n      [r1] [r2]", "r2");
}

#[test]
fn write_may_be_hidden_by_another() {
    accepts("[w1]  [    w2    ]\n       [w3] [r3] [r3]");
    // But not by one that does not overlap it.
    refuses("[w1]      [  w2  ]\n     [w3]         [r3]", "r3");
}

#[test]
fn compare_and_set_needs_what_it_expects() {
    accepts("[w1] [c12] [r2]");
    refuses("[w1] [c32]", "c32");
    accepts("[c-1] [r1]");
}

#[test]
fn refused_compare_and_set_needs_anything_else() {
    accepts("[w1] [x32] [r1]");
    refuses("[w1] [x12]", "x12");
}

#[test]
fn one_of_two_equal_compare_and_sets_wins() {
    accepts("[w1] [c12]\n     [x12]");
    refuses("[w1] [c12]\n     [c12]", "c12");
}

#[test]
fn operation_of_unknown_outcome_may_take_effect_late_or_never() {
    accepts("[w1] [w2>\n          [r1] [r1]");
    accepts("[w1] [w2>\n          [r1] [r2]");
    refuses("[w1] [w2>\n          [r2] [r1]", "r1");
}

#[test]
fn operation_of_unknown_outcome_takes_effect_at_most_once() {
    refuses("[w1>\n     [r1] [w2] [r1]", "r1");
    accepts("[w1>\n[w1>\n     [r1] [w2] [r1]");
}

#[test]
fn operation_of_unknown_outcome_takes_no_effect_before_its_call() {
    refuses("[r1]\n     [w1>", "r1");
}

#[test]
fn read_of_unknown_outcome_says_nothing() {
    accepts("[w1] [r7>");
}

#[test]
fn carried_over_register_has_one_first_value() {
    let carried = |picture| judged(Register::carried_over(), picture).verdict();
    assert_eq!(carried("[r7] [r7] [w1] [r1]"), Verdict::Linearizable);
    assert_eq!(carried("[r-] [c-1]"), Verdict::Linearizable);
    assert_eq!(carried("[x12] [x32]"), Verdict::Linearizable);
    assert_eq!(carried("[r7] [r8]"), Verdict::NotLinearizable);
    assert_eq!(carried("[w1] [r7]"), Verdict::NotLinearizable);
    assert_eq!(carried("[x72] [r7]"), Verdict::NotLinearizable);
}

#[test]
fn touching_operations_overlap() {
    let op = |call, back, word| Operation {
        process: call,
        call,
        back: Some(back),
        op: RegisterOp { key: Arc::from("x"), action: action(word) },
    };
    let verdict = |history: &[Operation<RegisterOp>]| {
        check(&Register::absent(), history, &Budget::default()).verdict()
    };
    assert_eq!(verdict(&[op(0, 5, "w1"), op(5, 9, "r-")]), Verdict::Linearizable);
    assert_eq!(verdict(&[op(0, 5, "w1"), op(6, 9, "r-")]), Verdict::NotLinearizable);
}

#[test]
fn keys_are_judged_one_by_one() {
    let mut all = history("[w1] [r1]");
    all.extend(history("[w1] [r-]").into_iter().map(|operation| Operation {
        op: RegisterOp { key: Arc::from("y"), ..operation.op },
        ..operation
    }));
    let checked = check(&Register::absent(), &all, &Budget::default());
    let verdicts: Vec<(&str, Verdict)> =
        checked.keys.iter().map(|key| (&*key.key, key.verdict)).collect();
    assert_eq!(verdicts, [("x", Verdict::Linearizable), ("y", Verdict::NotLinearizable)]);
    assert_eq!(checked.verdict(), Verdict::NotLinearizable);
}

#[test]
fn prefix_is_the_longest_that_can_be_explained() {
    let picture = "[w1] [ c12 ] [r2] [r1] [r2]\n      [w3>";
    let prefix = refuses(picture, "r1");
    let history = history(picture);
    let words: Vec<String> = prefix.placed.iter().map(|at| history[*at].op.to_string()).collect();
    assert_eq!(words, ["write 1", "cas 1 → 2", "read 2"]);
    assert_eq!(prefix.state, "2");
    let open: Vec<String> = prefix.open.iter().map(|at| history[*at].op.to_string()).collect();
    assert_eq!(open, ["write 3"]);
}

/// Many overlapping compare-and-sets that fit together in no way, which takes very long to find out.
fn knot(clients: u64) -> Vec<Operation<RegisterOp>> {
    let op = |process: u64, call, back, action| Operation {
        process,
        call,
        back: Some(back),
        op: RegisterOp { key: Arc::from("x"), action },
    };
    let text = |n: u64| Arc::from(n.to_string());
    let mut history = vec![op(0, 0, 1, Action::Write(text(0)))];
    for n in 0..clients {
        let (expected, new) = (Some(text(n % 3)), text(n * n % 3));
        history.push(op(n + 1, 2, 100, Action::Cas { expected, new, swapped: true }));
    }
    history.push(op(0, 200, 201, Action::Read(Some(text(9)))));
    history
}

#[test]
fn budget_ends_a_search_that_would_not_end() {
    let history = knot(40);
    let within =
        |time, bytes| check(&Register::absent(), &history, &Budget { time, bytes }).verdict();
    assert_eq!(within(Duration::ZERO, 1 << 40), Verdict::Undecided(Spent::Time));
    let hour = Duration::from_secs(3600);
    assert_eq!(within(hour, 1 << 20), Verdict::Undecided(Spent::Memory));
}

#[test]
fn small_knot_is_untied() {
    let verdict = check(&Register::absent(), &knot(12), &Budget::default()).verdict();
    assert_eq!(verdict, Verdict::NotLinearizable);
}

#[test]
fn too_many_at_once_are_undecided() {
    let lost = |n: u64| Operation {
        process: n,
        call: n,
        back: None,
        op: RegisterOp { key: Arc::from("x"), action: Action::Write(n.to_string().into()) },
    };
    let mut history: Vec<_> = (0..=MOST_AT_ONCE as u64).map(lost).collect();
    let end = MOST_AT_ONCE as u64 + 1;
    history.push(Operation { call: end, back: Some(end + 1), ..history[5].clone() });
    let verdict = check(&Register::absent(), &history, &Budget::default()).verdict();
    assert_eq!(verdict, Verdict::Undecided(Spent::Memory));
}
