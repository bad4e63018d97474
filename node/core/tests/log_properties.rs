//! Properties of the log, against the plainest model of what Raft says about it.

use proptest::prelude::*;
use sraft_core::{Entry, Log};

fn log_of(terms: &[u64]) -> Vec<Entry> {
    let entry = |(position, &term): (usize, &u64)| Entry {
        index: position as u64 + 1,
        term,
        command: format!("{term}/{position}").into_bytes(),
    };
    terms.iter().enumerate().map(entry).collect()
}

prop_compose! {
    /// Terms that never fall.
    fn terms()(steps in prop::collection::vec(0..3u64, 0..12)) -> Vec<u64> {
        steps.iter().scan(1, |term, step| { *term += step; Some(*term) }).collect()
    }
}

proptest! {
    /// After a splice that fits, the log holds the leader's entries as far as they were sent, and
    /// it keeps its own tail if and only if nothing contradicted it (paper, figure 2).
    #[test]
    fn splice_agrees_with_the_model(mine in terms(), theirs in terms(), cut in any::<(u8, u8)>()) {
        let (mine, theirs) = (log_of(&mine), log_of(&theirs));
        let prev = usize::from(cut.0) % (theirs.len() + 1);
        let end = prev + usize::from(cut.1) % (theirs.len() - prev + 1);
        let prev_term = if prev == 0 { 0 } else { theirs[prev - 1].term };
        let sent = &theirs[prev..end];
        let mut log = Log::new(mine.clone());
        let result = log.splice(prev as u64, prev_term, sent, 0);

        let fits = prev == 0 || mine.get(prev - 1).is_some_and(|entry| entry.term == prev_term);
        prop_assert_eq!(result.is_ok(), fits);
        let mut model = mine.clone();
        if fits {
            let clash = sent.iter().position(|new| {
                mine.get(new.index as usize - 1).is_none_or(|old| old.term != new.term)
            });
            if let Some(clash) = clash {
                model.truncate(prev + clash);
                model.extend_from_slice(&sent[clash..]);
            }
        }
        prop_assert_eq!(log.range(1, u64::MAX), &model[..]);
        // Idempotent: the same message again changes nothing.
        let again = log.splice(prev as u64, prev_term, sent, 0);
        prop_assert_eq!(again.is_ok(), fits);
        prop_assert_eq!(log.range(1, u64::MAX), &model[..]);
    }

    /// Following the hints, a leader reaches the point of agreement in at most one round trip per
    /// term and never steps past it.
    #[test]
    fn hints_lead_to_agreement(mine in terms(), theirs in terms()) {
        let follower = Log::new(log_of(&mine));
        let leader = Log::new(log_of(&theirs));
        let mut next = leader.last_index() + 1;
        for _ in 0..=mine.len() + theirs.len() {
            let prev = next - 1;
            let mut copy = follower.clone();
            let Err(hint) = copy.splice(prev, leader.term_at(prev).unwrap(), &[], 0) else {
                return Ok(());
            };
            let shared = hint.term.and_then(|term| leader.last_index_of_term(term));
            let step = shared.map_or(hint.first_index, |index| index + 1).min(prev).max(1);
            prop_assert!(step < next, "a hint must lead back");
            next = step;
        }
        prop_assert!(false, "no agreement found");
    }
}
