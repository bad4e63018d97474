use std::{io, os::fd::BorrowedFd};

use crate::protocol::MAX_LINE;

/// Cuts what arrives into lines, of bounded length.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    /// The line that is arriving was too long; what is left of it is dropped.
    dropping: bool,
}

/// What one read of the input yields.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// A line longer than [`MAX_LINE`] was dropped.
    TooLong,
}

impl Lines {
    /// Reads what is there, once: the caller has polled. Empty means that the input has closed.
    pub(crate) fn read(&mut self, input: BorrowedFd<'_>) -> io::Result<Option<Vec<Line>>> {
        let mut buffer = vec![0; 64 << 10];
        let n = match rustix::io::read(input, &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(Vec::new())),
            other => rustix::io::retry_on_intr(|| other)?,
        };
        Ok((n > 0).then(|| self.take_up(&buffer[..n])))
    }

    pub(crate) fn take_up(&mut self, mut bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.dropping || self.partial.len() + head.len() > MAX_LINE {
                if !self.dropping {
                    lines.push(Line::TooLong);
                }
                self.dropping = false;
                self.partial.clear();
                continue;
            }
            self.partial.extend_from_slice(head);
            lines.push(Line::Whole(std::mem::take(&mut self.partial)));
        }
        if !self.dropping {
            self.partial.extend_from_slice(bytes);
            if self.partial.len() > MAX_LINE {
                self.partial = Vec::new();
                self.dropping = true;
                lines.push(Line::TooLong);
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut lines = Lines::default();
        assert_eq!(lines.take_up(b"on"), []);
        assert_eq!(lines.take_up(b"e\ntwo\nth"), [whole("one"), whole("two")]);
        assert_eq!(lines.take_up(b"ree\n"), [whole("three")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_reported_once_and_the_next_is_whole() {
        let mut lines = Lines::default();
        let mut reported = Vec::new();
        for _ in 0..3 {
            reported.extend(lines.take_up(&vec![b'x'; MAX_LINE / 2 + 1]));
        }
        assert_eq!(reported, [Line::TooLong]);
        assert_eq!(lines.take_up(b"xx\nnext\n"), [whole("next")]);
    }
}
