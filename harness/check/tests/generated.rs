//! Generated histories: small ones against a checker that tries every order, long ones of a
//! simulated register, with and without a flaw.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sraft_check::{
    Budget, KeyValue, Model, Operation, Register, Verdict, check,
    model::{Action, RegisterOp, StoreAction, StoreOp},
};

fn value(n: impl ToString) -> Arc<str> {
    n.to_string().into()
}

// ---- every order ---------------------------------------------------------------------------

/// Tries every order that respects time, by the definition and with no cleverness at all.
fn any_order_explains<M: Model>(model: &M, history: &[Operation<M::Op>]) -> bool {
    fn go<M: Model>(
        model: &M,
        history: &[Operation<M::Op>],
        left: &[usize],
        state: &M::State,
    ) -> bool {
        if left.iter().all(|at| history[*at].back.is_none()) {
            return true;
        }
        left.iter().any(|at| {
            // Whatever returned before this one's call must come before it.
            let first = left.iter().all(|other| {
                history[*other].back.is_none_or(|back| history[*at].call <= back) || other == at
            });
            let rest: Vec<usize> = left.iter().copied().filter(|other| other != at).collect();
            first
                && model
                    .step(state, &history[*at].op)
                    .is_some_and(|next| go(model, history, &rest, &next))
        })
    }
    let all: Vec<usize> = (0..history.len()).collect();
    let initial = model.initial(history.iter().map(|operation| &operation.op));
    initial.iter().any(|state| go(model, history, &all, state))
}

fn timed<O: std::fmt::Debug + Clone + 'static>(
    op: impl Strategy<Value = O> + 'static,
) -> impl Strategy<Value = Vec<Operation<O>>> {
    let operation = (0..12_u64, proptest::option::weighted(0.75, 0..6_u64), op);
    let operation = operation.prop_map(|(call, length, op)| Operation {
        process: call,
        call,
        back: length.map(|length| call + length),
        op,
    });
    proptest::collection::vec(operation, 0..8)
}

fn register_action() -> impl Strategy<Value = Action> {
    let any = || (0..3_u8).prop_map(value);
    let or_nil = || proptest::option::weighted(0.8, any());
    prop_oneof![
        or_nil().prop_map(Action::Read),
        any().prop_map(Action::Write),
        (or_nil(), any(), proptest::bool::ANY).prop_map(|(expected, new, swapped)| Action::Cas {
            expected,
            new,
            swapped
        }),
    ]
}

fn store_action() -> impl Strategy<Value = StoreAction> {
    let any = || prop_oneof!["", "a", "b", "aa", "ab"].prop_map(value);
    prop_oneof![
        any().prop_map(StoreAction::Get),
        any().prop_map(StoreAction::Put),
        any().prop_map(StoreAction::Append),
        (any(), any(), proptest::bool::ANY).prop_map(|(expected, new, swapped)| StoreAction::Cas {
            expected,
            new,
            swapped
        }),
    ]
}

/// An operation of unknown outcome carries the answer of its taking effect.
fn unknown_takes_effect(history: &mut [Operation<RegisterOp>]) {
    for operation in history.iter_mut().filter(|operation| operation.back.is_none()) {
        if let Action::Cas { swapped, .. } = &mut operation.op.action {
            *swapped = true;
        }
    }
}

/// What is told of a failure must be true: the order is one that time and object allow.
fn assert_prefix_holds<M: Model>(model: &M, history: &[Operation<M::Op>], key: &str)
where
    M::Op: std::fmt::Debug,
{
    let own: Vec<&M::Op> =
        history.iter().map(|o| &o.op).filter(|op| model.key(op) == key).collect();
    let checked = check(model, history, &Budget::default());
    let of_key = checked.keys.iter().find(|checked| checked.key == key).unwrap();
    let Some(prefix) = &of_key.prefix else { return };
    let limit = history[prefix.stuck].back.unwrap();
    let explained = model.initial(own.into_iter()).into_iter().any(|mut state| {
        prefix.placed.iter().all(|at| match model.step(&state, &history[*at].op) {
            Some(next) => {
                state = next;
                true
            }
            None => false,
        }) && state.to_string() == prefix.state
    });
    assert!(explained, "{prefix:?} of {history:?}");
    for (nth, at) in prefix.placed.iter().enumerate() {
        for later in &prefix.placed[nth + 1..] {
            let back = history[*later].back.unwrap_or(u64::MAX);
            assert!(history[*at].call <= back, "{later} ended before {at} began: {prefix:?}");
        }
    }
    for (at, operation) in history.iter().enumerate() {
        let ended = operation.back.is_some_and(|back| back < limit);
        if ended && model.key(&operation.op) == key {
            assert!(prefix.placed.contains(&at), "{at} has no place in {prefix:?}");
        }
    }
    assert!(!prefix.placed.contains(&prefix.stuck));
    // And there is no longer one: with the operation that is stuck, nothing explains it.
    let last = (limit, prefix.stuck);
    let cut: Vec<Operation<M::Op>> = (history.iter().enumerate())
        .map(|(at, operation)| Operation {
            back: operation.back.filter(|back| (*back, at) <= last),
            ..operation.clone()
        })
        .collect();
    assert!(!any_order_explains(model, &cut), "{prefix:?} of {history:?} is not the longest");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn registers_agree_with_every_order(
        actions in timed(register_action()),
        carried_over in any::<bool>(),
    ) {
        let mut history: Vec<_> = actions.into_iter().map(|operation| Operation {
            process: operation.process,
            call: operation.call,
            back: operation.back,
            op: RegisterOp { key: value("r"), action: operation.op },
        }).collect();
        unknown_takes_effect(&mut history);
        let model = if carried_over { Register::carried_over() } else { Register::absent() };
        let expected = match any_order_explains(&model, &history) {
            true => Verdict::Linearizable,
            false => Verdict::NotLinearizable,
        };
        prop_assert_eq!(check(&model, &history, &Budget::default()).verdict(), expected);
        if expected == Verdict::NotLinearizable {
            assert_prefix_holds(&model, &history, "r");
        }
    }

    #[test]
    fn stores_agree_with_every_order(actions in timed(store_action())) {
        let history: Vec<_> = actions.into_iter().map(|operation| Operation {
            process: operation.process,
            call: operation.call,
            back: operation.back,
            op: StoreOp { key: value("k"), action: operation.op },
        }).collect();
        let expected = match any_order_explains(&KeyValue, &history) {
            true => Verdict::Linearizable,
            false => Verdict::NotLinearizable,
        };
        prop_assert_eq!(check(&KeyValue, &history, &Budget::default()).verdict(), expected);
        if expected == Verdict::NotLinearizable {
            assert_prefix_holds(&KeyValue, &history, "k");
        }
    }
}

// ---- long histories --------------------------------------------------------------------------

/// A register with concurrent clients: each operation takes effect at one instant between its call
/// and its return, so the history is linearizable by construction. One operation in `lost_one_in`
/// gets no answer, and then takes effect or not.
fn simulated(
    seed: u64,
    operations: usize,
    clients: u64,
    lost_one_in: u32,
    values: u32,
) -> Vec<Operation<RegisterOp>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut held: Option<Arc<str>> = None;
    let mut now = 0;
    let mut history = Vec::new();
    // What each client is doing: its call, its action, and whether it has taken effect.
    let mut busy: Vec<Option<(u64, Action, bool)>> = vec![None; clients as usize];
    while history.len() < operations {
        now += 1;
        let client = rng.random_range(0..clients as usize);
        let fresh = |rng: &mut ChaCha8Rng, now: u64| match values {
            0 => value(now),
            values => value(rng.next_u32() % values),
        };
        match busy[client].take() {
            None => {
                let new = fresh(&mut rng, now);
                let action = match rng.random_range(0..10) {
                    0..4 => Action::Write(new),
                    4..6 => Action::Cas { expected: held.clone(), new, swapped: false },
                    _ => Action::Read(None),
                };
                busy[client] = Some((now, action, false));
            }
            Some((call, mut action, false)) => {
                let lost = lost_one_in > 0 && rng.random_range(0..lost_one_in) == 0;
                let happens = !lost || rng.random_range(0..2) == 0;
                match &mut action {
                    Action::Read(seen) => seen.clone_from(&held),
                    Action::Write(new) if happens => held = Some(new.clone()),
                    Action::Cas { expected, new, swapped } if happens => {
                        *swapped = *expected == held;
                        if *swapped {
                            held = Some(new.clone());
                        }
                    }
                    _ => {}
                }
                if !lost {
                    busy[client] = Some((call, action, true));
                    continue;
                }
                if let Action::Cas { swapped, .. } = &mut action {
                    *swapped = true;
                }
                let op = RegisterOp { key: value("r"), action };
                history.push(Operation { process: client as u64, call, back: None, op });
            }
            Some((call, action, true)) => {
                let op = RegisterOp { key: value("r"), action };
                history.push(Operation { process: client as u64, call, back: Some(now), op });
            }
        }
    }
    // What others may have seen already belongs to the history as well.
    for (client, (call, mut action, _)) in
        busy.into_iter().enumerate().filter_map(|(n, b)| Some((n, b?)))
    {
        if let Action::Cas { swapped, .. } = &mut action {
            *swapped = true;
        }
        let op = RegisterOp { key: value("r"), action };
        history.push(Operation { process: client as u64, call, back: None, op });
    }
    history
}

/// Lets a read near the end return what it was long before: the first read after the one that it
/// copies a value from that is surely another one now.
fn make_stale(history: &mut [Operation<RegisterOp>]) {
    let old = history[history.len() / 4..]
        .iter()
        .find_map(|operation| match &operation.op.action {
            Action::Read(Some(seen)) => Some(seen.clone()),
            _ => None,
        })
        .unwrap();
    let late = history.len() * 3 / 4;
    let read = history[late..].iter_mut().find(|operation| {
        operation.back.is_some() && matches!(operation.op.action, Action::Read(_))
    });
    read.unwrap().op.action = Action::Read(Some(old));
}

/// Long enough for a slow and busy machine; speed is not asserted.
fn patient() -> Budget {
    Budget { time: Duration::from_secs(120), ..Budget::default() }
}

/// How long it took, to be told.
fn judge(name: &str, history: &[Operation<RegisterOp>], expected: Verdict) -> String {
    let begun = Instant::now();
    let verdict = check(&Register::absent(), history, &patient()).verdict();
    assert_eq!(verdict, expected, "{name}");
    format!("{:>10.1?}  {name}", begun.elapsed())
}

#[test]
fn long_history_of_a_register_is_accepted_and_a_stale_read_in_it_is_not() {
    for (clients, lost_one_in) in [(5, 0), (10, 500)] {
        for values in [0, 5] {
            let name = format!(
                "10,000 operations, {clients} clients, 1 of {lost_one_in} lost, {values} values"
            );
            let mut history = simulated(7, 10_000, clients, lost_one_in, values);
            println!("{}", judge(&name, &history, Verdict::Linearizable));
            if values == 0 {
                make_stale(&mut history);
                let stale = format!("{name}, stale read");
                println!("{}", judge(&stale, &history, Verdict::NotLinearizable));
            }
        }
    }
}
