use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

use rustix::system::uname;

use crate::{clock, protocol};

/// Where Linux says which boot this is: another one after every start of the kernel (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The boot that this host is up by.
///
/// # Errors
/// What the system said, with the file that should tell.
pub fn boot_id() -> io::Result<String> {
    let id = fs::read_to_string(BOOT_ID)
        .map_err(|error| io::Error::new(error.kind(), format!("{BOOT_ID}: {error}")))?;
    Ok(id.trim().to_owned())
}

/// What the manifest of a run says of this host and the file system of a folder. What cannot be found
/// out is left empty.
pub fn gather(dir: &Path) -> protocol::HostFacts {
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
        boot: boot_id().ok(),
        chrony: chrony(),
    }
}

/// What `chronyc -c tracking` says, if there is one and it is at work.
fn chrony() -> Option<protocol::Chrony> {
    let said = Command::new("chronyc")
        .args(["-c", "tracking"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    tracking(&String::from_utf8_lossy(&said.stdout))
}

/// The fields of `chronyc -c tracking`: reference, its name, stratum, time, system offset, last
/// offset, RMS offset, frequency, residual frequency, skew, root delay, root dispersion, ...;
/// times in seconds (chronyc(1)).
fn tracking(text: &str) -> Option<protocol::Chrony> {
    let fields: Vec<&str> = text.trim().split(',').collect();
    let seconds = |at: usize| fields.get(at)?.parse::<f64>().ok().filter(|s| s.is_finite());
    let stratum: u32 = fields.get(2)?.parse().ok().filter(|stratum| *stratum > 0)?;
    let (offset, delay, dispersion) = (seconds(4)?, seconds(10)?, seconds(11)?);
    Some(protocol::Chrony {
        offset_ns: (offset * 1e9).round() as i64,
        bound_ns: ((offset.abs() + dispersion + delay / 2.0) * 1e9).ceil() as u64,
        stratum,
    })
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
pub(crate) fn filesystem(dir: &Path) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chronys_own_bound_is_taken_from_its_tracking() {
        let text = "A9FEA97B,169.254.169.123,4,1700000000.1,-0.000002,0.000001,0.000003,1.5,0.0,\
                    0.02,0.000400,0.000100,16.2,Normal\n";
        let said = tracking(text).unwrap();
        assert_eq!(said, protocol::Chrony { offset_ns: -2000, bound_ns: 302_000, stratum: 4 });
        // Not synchronised, not there, something else.
        assert_eq!(tracking("00000000,,0,0,0,0,0,0,0,0,1,1,0,Not synchronised\n"), None);
        assert_eq!(tracking("506 Cannot talk to daemon\n"), None);
        assert_eq!(tracking(""), None);
    }
}
