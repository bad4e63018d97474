use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use sraft_core::{Index, NodeId, Term};

const MAGIC: &[u8; 8] = b"SRAFTWM1";
const SIZE: usize = 8 + 4 * 8 + 4;

/// A state that was durable at some time, and from which the durable state only moves forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watermark {
    pub(super) term: Term,
    pub(super) voted_for: Option<NodeId>,
    pub(super) last_index: Index,
    pub(super) last_term: Term,
}

impl Watermark {
    pub(super) fn encode(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(MAGIC);
        // Node ids count from 1, so 0 is free to mean nobody.
        let fields = [self.term, self.voted_for.unwrap_or(0), self.last_index, self.last_term];
        for (slot, field) in bytes[8..40].chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        let sum = crc32fast::hash(&bytes[..40]);
        bytes[40..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Watermark> {
        let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
        if &bytes[..8] != MAGIC || bytes[40..] != crc32fast::hash(&bytes[..40]).to_le_bytes() {
            return None;
        }
        let field = |n: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 + 8 * n..16 + 8 * n]);
            u64::from_le_bytes(word)
        };
        Some(Watermark {
            term: field(0),
            voted_for: Some(field(1)).filter(|node| *node != 0),
            last_index: field(2),
            last_term: field(3),
        })
    }
}

/// The file that holds it. It is far below a sector, so it is never half written.
#[derive(Debug)]
pub(super) struct WatermarkFile {
    file: File,
    path: PathBuf,
}

impl WatermarkFile {
    /// Opens the file; the second value is what it holds. A content that makes no sense is
    /// `InvalidData`.
    pub(super) fn open(path: &Path) -> io::Result<(WatermarkFile, Watermark)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut bytes = [0; SIZE + 1];
        let length = file.read_at(&mut bytes, 0)?;
        let mark = Watermark::decode(&bytes[..length]).ok_or(io::ErrorKind::InvalidData)?;
        Ok((WatermarkFile { file, path: path.to_owned() }, mark))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it forward. No sync: a watermark that a power failure sets back only promises less.
    pub(super) fn raise(&self, mark: Watermark) -> io::Result<()> {
        self.file.write_all_at(&mark.encode(), 0)
    }

    /// Moves it back, durably: a watermark that promises more than is there would keep the node
    /// from starting.
    pub(super) fn lower(&self, mark: Watermark) -> io::Result<()> {
        self.raise(mark)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_the_file_and_a_flipped_bit_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        std::fs::write(&path, Watermark::default().encode()).unwrap();
        let (file, nothing) = WatermarkFile::open(&path).unwrap();
        assert_eq!(nothing, Watermark::default());
        let mark = Watermark { term: 7, voted_for: Some(3), last_index: 1 << 40, last_term: 6 };
        file.raise(mark).unwrap();
        assert_eq!(WatermarkFile::open(&path).unwrap().1, mark);
        let bytes = std::fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Watermark::decode(&flipped), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(Watermark::decode(&bytes[..length]), None);
        }
    }
}
