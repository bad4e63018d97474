//! The disk that nodes write to: room, and how long it takes to make something durable.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::statvfs;

use super::{Finding, Verdict};

/// Writes of a measurement.
const WRITES: usize = 200;

/// What is written each time, in bytes: a vote or a short entry.
const BYTES: usize = 256;

/// The measurement ends after so long, however few writes there have been.
const MEASURED_WITHIN: Duration = Duration::from_secs(3);

/// Slower writes than these delay votes by a good part of an election timeout of 150 ms.
const SLOW: Duration = Duration::from_millis(30);

/// Less room than this will not last for many experiments.
const LITTLE: u64 = 1 << 30;

pub(super) fn examine(dir: &Path, filesystem: Option<&str>, findings: &mut Vec<Finding>) {
    findings.push(room(dir));
    let kind = filesystem.unwrap_or("an unknown file system");
    if matches!(filesystem, Some("tmpfs" | "ramfs")) {
        findings.push(Finding::bad(
            "file system",
            Verdict::Warning,
            format!("{} is in memory ({kind}), where durable writes cost nothing", dir.display()),
            "name a folder on a disk as dir in the inventory",
        ));
    } else {
        findings.push(Finding::ok("file system", kind));
    }
    findings.push(match measure(dir) {
        Err(error) => Finding::bad(
            "durable writes",
            Verdict::Problem,
            format!("cannot write to {}: {error}", dir.display()),
            "name a folder that the user may write to as dir in the inventory",
        ),
        Ok(times) => judge(&times),
    });
}

fn room(dir: &Path) -> Finding {
    match statvfs(dir) {
        Err(error) => Finding::bad(
            "disk space",
            Verdict::Warning,
            format!("cannot be told: {error}"),
            "make sure that there is room",
        ),
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let found = format!("{:.1} GB free", free as f64 / 1e9);
            match free < LITTLE {
                true => Finding::bad("disk space", Verdict::Warning, found, "make room"),
                false => Finding::ok("disk space", found),
            }
        }
    }
}

/// How long small writes at the end of a file take until they are durable.
fn measure(dir: &Path) -> io::Result<Vec<Duration>> {
    let path = dir.join(format!(".durable-{}", std::process::id()));
    let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
    let times = write(&file);
    drop(file);
    std::fs::remove_file(path)?;
    times
}

fn write(mut file: &File) -> io::Result<Vec<Duration>> {
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < WRITES && begun.elapsed() < MEASURED_WITHIN {
        let write = Instant::now();
        file.write_all(&[0x5a; BYTES])?;
        file.sync_data()?;
        times.push(write.elapsed());
    }
    Ok(times)
}

fn judge(times: &[Duration]) -> Finding {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    // The nearest-rank percentile.
    let at = |share: f64| {
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    };
    let (median, p99) = (at(0.5), at(0.99));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let found = format!(
        "median {:.2} ms, p99 {:.2} ms ({} writes of {BYTES} bytes)",
        ms(median),
        ms(p99),
        sorted.len()
    );
    match p99 > SLOW {
        true => Finding::bad(
            "durable writes",
            Verdict::Warning,
            found,
            "votes wait for them: take a quicker disk, or larger timeouts",
        ),
        false => Finding::ok("durable writes", found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_disks_are_told_from_quick_ones() {
        let quick = vec![Duration::from_millis(2); 100];
        let found = judge(&quick);
        assert_eq!(found.verdict, Verdict::Ok);
        assert_eq!(found.found, "median 2.00 ms, p99 2.00 ms (100 writes of 256 bytes)");
        let mut slow = quick;
        slow[0] = Duration::from_millis(40);
        assert_eq!(judge(&slow).verdict, Verdict::Ok, "one in a hundred is beyond the p99");
        slow[1] = Duration::from_millis(50);
        assert_eq!(judge(&slow).verdict, Verdict::Warning);
    }

    #[test]
    fn nothing_is_left_of_a_measurement() {
        let folder = tempfile::tempdir().unwrap();
        let times = measure(folder.path()).unwrap();
        assert!(!times.is_empty() && times.iter().all(|time| !time.is_zero()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(measure(&folder.path().join("absent")).is_err());
    }
}
