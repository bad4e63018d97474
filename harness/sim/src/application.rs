//! What the simulated nodes replicate: a state machine that remembers nothing but how much it has
//! applied, and a digest of all of it in order.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use sraft_core::{Entry, Index};

/// The state of one node's application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Application {
    pub applied: Index,
    pub digest: u64,
}

const WORDS: usize = 3;

impl Application {
    pub(crate) fn apply(&mut self, entry: &Entry) {
        self.applied = entry.index;
        let mut hasher = DefaultHasher::new();
        (self.digest, entry.term, &entry.command).hash(&mut hasher);
        self.digest = hasher.finish();
    }

    /// The state in at least `padding` bytes. The same state is serialised differently with another
    /// `salt`, as by two nodes, and a mixture of the two is neither.
    pub(crate) fn encode(self, salt: u64, padding: usize) -> Arc<[u8]> {
        let words = [self.applied, self.digest, salt];
        let words = words.iter().flat_map(|word| word.to_le_bytes());
        let padding = (0..padding as u64).map(|place| filler(salt, place));
        words.chain(padding).collect()
    }

    /// The state that a snapshot holds, if it is whole.
    pub(crate) fn decode(data: &[u8]) -> Option<Application> {
        let (words, padding) = data.split_at_checked(WORDS * 8)?;
        let (words, _) = words.as_chunks::<8>();
        let [applied, digest, salt] = [0, 1, 2].map(|word| u64::from_le_bytes(words[word]));
        let mut places = (0u64..).zip(padding);
        let whole = places.all(|(place, byte)| *byte == filler(salt, place));
        whole.then_some(Application { applied, digest })
    }
}

fn filler(salt: u64, place: u64) -> u8 {
    (salt.rotate_left(place as u32) ^ place) as u8
}
