use std::{fs, path::Path};

use rustix::system::uname;

use crate::{clock, protocol};

/// What the manifest of a run says of this host. What cannot be found out is left empty.
pub(crate) fn gather(dir: &Path) -> protocol::HostFacts {
    let system = uname();
    let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
    protocol::HostFacts {
        version: protocol::VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        kernel: format!("{} {}", text(system.sysname()), text(system.release())),
        arch: text(system.machine()),
        hostname: text(system.nodename()),
        cpu: field("/proc/cpuinfo", "model name"),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok())
            .map(|kib| kib * 1024),
        filesystem: filesystem(dir),
        clocks: clock::read(),
    }
}

/// The first `name : value` of a file in /proc.
fn field(path: &str, name: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()?
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

/// The type of the file system that a directory is on: that of the longest mount point above it.
/// What is mounted last hides what was there before.
fn filesystem(dir: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    mounts
        .filter(|(point, _)| dir.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind.to_owned())
}
