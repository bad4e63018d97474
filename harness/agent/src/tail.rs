//! Following what node processes write: the event log in a file, standard error in a pipe.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::inotify;

use crate::protocol::LogFormat;

/// A line this long is no record. It is handed on as it is, for the harness to refuse.
const LONGEST: usize = 1 << 20;

/// Follows an event log from where it ended when the process was started.
#[derive(Debug)]
pub(crate) struct EventLog {
    file: File,
    format: LogFormat,
    partial: Vec<u8>,
}

impl EventLog {
    /// Opens the log, makes it if it is absent, and has `inotify` tell of writes to it.
    pub(crate) fn open(
        path: &Path,
        format: LogFormat,
        inotify: BorrowedFd<'_>,
    ) -> io::Result<EventLog> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        inotify::add_watch(inotify, path, inotify::WatchFlags::MODIFY)?;
        // A line that a process which died left unfinished is behind this position.
        file.seek(SeekFrom::End(0))?;
        Ok(EventLog { file, format, partial: Vec::new() })
    }

    /// Opens a log that is there, to be read from its beginning, and has `inotify` tell of writes
    /// to it.
    pub(crate) fn whole(path: &Path, inotify: BorrowedFd<'_>) -> io::Result<EventLog> {
        let file = File::open(path)?;
        inotify::add_watch(inotify, path, inotify::WatchFlags::MODIFY)?;
        Ok(EventLog { file, format: LogFormat::Records, partial: Vec::new() })
    }

    /// What its lines are.
    pub(crate) fn format(&self) -> LogFormat {
        self.format
    }

    /// Makes the file and reads it from its beginning. Nobody tells of writes to it.
    pub(crate) fn unwatched(path: &Path) -> io::Result<EventLog> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        Ok(EventLog { file, format: LogFormat::Records, partial: Vec::new() })
    }

    /// Appends the lines that were completed since the last call.
    pub(crate) fn drain(&mut self, lines: &mut Vec<String>) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            let n = match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for piece in buffer[..n].split_inclusive(|&byte| byte == b'\n') {
                self.partial.extend_from_slice(piece);
                if piece.ends_with(b"\n") || self.partial.len() > LONGEST {
                    let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
                    self.partial.clear();
                    if !line.is_empty() {
                        lines.push(line);
                    }
                }
            }
        }
    }
}

/// The last of what a process wrote to its standard error.
#[derive(Debug)]
pub(crate) struct ErrorTail {
    pipe: Option<OwnedFd>,
    last: VecDeque<u8>,
}

impl ErrorTail {
    /// How much is kept, in bytes.
    const KEPT: usize = 4 << 10;

    pub(crate) fn new(pipe: Option<OwnedFd>) -> io::Result<ErrorTail> {
        if let Some(pipe) = &pipe {
            // A process that the node started may hold the other end open for ever.
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(ErrorTail { pipe, last: VecDeque::new() })
    }

    /// What to poll, while the other end is open.
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there.
    pub(crate) fn drain(&mut self) {
        let mut buffer = [0; 4 << 10];
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(n) if n > 0 => {
                    self.last.extend(&buffer[..n]);
                    let surplus = self.last.len().saturating_sub(Self::KEPT);
                    self.last.drain(..surplus);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return,
                Ok(_) | Err(_) => self.pipe = None,
            }
        }
    }

    /// What is kept, as text.
    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = self.last.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}
