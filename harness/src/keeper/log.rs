//! A node's event log, from its last lines on.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::AsFd,
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify,
};

use super::place::{EVENT_LOG, Place};

#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    /// The host's folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The last so many lines; without it, all
    #[arg(long, value_name = "N")]
    lines: Option<u64>,
    /// Go on with what is written, until standard input closes
    #[arg(long)]
    follow: bool,
}

/// Writes the log to standard output.
pub(super) fn write_out(args: &LogArgs) -> anyhow::Result<()> {
    let path = Place::below(&args.dir).file(EVENT_LOG);
    let reading = || format!("cannot read {}", path.display());
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            anyhow::bail!("no node has ever been started here; use `sraft cluster start`")
        }
        opened => opened.with_context(reading)?,
    };
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)
        .context("cannot watch files (too many inotify instances?)")?;
    inotify::add_watch(&watch, &path, inotify::WatchFlags::MODIFY).with_context(reading)?;
    let from = args.lines.map_or(Ok(0), |lines| last_lines(&mut file, lines));
    file.seek(SeekFrom::Start(from.with_context(reading)?)).with_context(reading)?;
    let mut out = io::stdout().lock();
    let mut events = [0_u8; 4 << 10];
    loop {
        io::copy(&mut file, &mut out).and_then(|_| out.flush()).with_context(reading)?;
        if !args.follow {
            return Ok(());
        }
        let stdin = io::stdin();
        let mut both = [
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut both, None)).context("cannot wait for the log")?;
        if !both[0].revents().is_empty() {
            return Ok(()); // nobody is there any more
        }
        while rustix::io::read(&watch, &mut events).is_ok_and(|n| n > 0) {}
    }
}

/// Where the last lines of a file begin.
fn last_lines(file: &mut (impl Read + Seek), lines: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let end = file.seek(SeekFrom::End(0))?;
    let (mut at, mut found) = (end, 0);
    let mut block = Vec::new();
    while at > 0 && lines > 0 {
        let begin = at.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(begin))?;
        block.clear();
        file.by_ref().take(at - begin).read_to_end(&mut block)?;
        for (offset, byte) in block.iter().enumerate().rev() {
            let position = begin + offset as u64;
            // The line feed that ends the last line does not begin another.
            if *byte == b'\n' && position + 1 < end {
                found += 1;
                if found == lines {
                    return Ok(position + 1);
                }
            }
        }
        at = begin;
    }
    Ok(if lines == 0 { end } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found_across_blocks() {
        let line = |n: u64| format!("{n:07}\n");
        let text: String = (0..20_000).map(line).collect();
        let mut file = io::Cursor::new(text.as_bytes());
        for lines in [0, 1, 2, 9_000, 19_999, 20_000, 20_001] {
            let from = last_lines(&mut file, lines).unwrap() as usize;
            let rest = &text[from..];
            assert_eq!(rest.lines().count() as u64, lines.min(20_000), "{lines}");
        }
        let mut partial = io::Cursor::new("one\ntwo");
        assert_eq!(last_lines(&mut partial, 1).unwrap(), 4);
        assert_eq!(last_lines(&mut io::Cursor::new(""), 3).unwrap(), 0);
    }
}
