use std::fs;

use rustix::system::uname;

use crate::{clock, protocol};

/// What the manifest of a run says of this host. What cannot be found out is left empty.
pub(crate) fn gather() -> protocol::HostFacts {
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
