//! What /proc and /sys say of control groups and devices, and how a limit is written.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// The control groups that the kernel's block-io controller is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// Where they are mounted.
    pub(super) root: PathBuf,
}

/// Both are in use: a controller is in one of them only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// A disk as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl Hierarchy {
    /// Finds them among the lines of /proc/self/mounts; `controllers` reads what version 2 offers.
    pub(super) fn among(mounts: &str, controllers: impl Fn(&Path) -> String) -> Option<Self> {
        let mounts = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((Path::new(fields.next()?), fields.next()?, fields.next()?))
        });
        let found = |version, root: &Path| Hierarchy { version, root: root.to_owned() };
        mounts
            .filter_map(|(root, kind, options)| match kind {
                "cgroup" if options.split(',').any(|option| option == "blkio") => {
                    Some(found(Version::One, root))
                }
                "cgroup2" if has(&controllers(root), "io") => Some(found(Version::Two, root)),
                _ => None,
            })
            .next()
    }

    /// The file of a group that holds its limits.
    pub(super) fn limits(&self) -> &'static str {
        match self.version {
            Version::One => "blkio.throttle.write_iops_device",
            Version::Two => "io.max",
        }
    }

    /// What is written there: so many writes in a second, or no limit. `device` is as in the file.
    pub(super) fn limit(&self, device: impl fmt::Display, iops: Option<u32>) -> String {
        match (self.version, iops) {
            (Version::One, iops) => format!("{device} {}\n", iops.unwrap_or(0)),
            (Version::Two, Some(iops)) => format!("{device} wiops={iops}\n"),
            (Version::Two, None) => format!("{device} wiops=max\n"),
        }
    }
}

/// Whether a list of controllers names one.
pub(super) fn has(list: &str, controller: &str) -> bool {
    list.split_whitespace().any(|word| word == controller)
}

/// The disk that this device, or this part of a disk, is; as /sys/dev/block (`sys`) has it. Limits
/// are those of whole disks.
pub(super) fn whole(sys: &Path, part: Device) -> Option<Device> {
    let place = sys.join(part.to_string()).canonicalize().ok()?;
    if !place.join("partition").exists() {
        return Some(part);
    }
    let disk = fs::read_to_string(place.parent()?.join("dev")).ok()?;
    let (major, minor) = disk.trim().split_once(':')?;
    Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const OLD: &str = "/dev/vda / ext4 rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                       cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                       cgroup /sys/fs/cgroup/blkio cgroup rw,relatime,blkio 0 0\n";
    const NEW: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n";

    #[test]
    fn the_controller_is_found_in_whichever_version_has_it() {
        let old = Hierarchy::among(OLD, |_| "hugetlb\n".to_owned()).unwrap();
        assert_eq!((old.version, old.root.to_str()), (Version::One, Some("/sys/fs/cgroup/blkio")));
        let new = Hierarchy::among(NEW, |_| "cpuset cpu io memory\n".to_owned()).unwrap();
        assert_eq!((new.version, new.root.to_str()), (Version::Two, Some("/sys/fs/cgroup")));
        assert_eq!(Hierarchy::among(NEW, |_| "cpu memory iocost\n".to_owned()), None);
        assert_eq!(Hierarchy::among("", |_| String::new()), None);

        let disk = Device { major: 254, minor: 16 };
        assert_eq!(old.limit(disk, Some(20)), "254:16 20\n");
        assert_eq!(old.limit(disk, None), "254:16 0\n");
        assert_eq!(new.limit(disk, Some(20)), "254:16 wiops=20\n");
        assert_eq!(new.limit("254:16", None), "254:16 wiops=max\n");
    }

    #[test]
    fn a_partition_is_limited_as_the_disk_that_it_is_of() {
        let sys = tempfile::tempdir().unwrap();
        let (disk, part) = (sys.path().join("devices/vda"), sys.path().join("devices/vda/vda1"));
        fs::create_dir_all(&part).unwrap();
        fs::write(disk.join("dev"), "254:0\n").unwrap();
        fs::write(part.join("partition"), "1\n").unwrap();
        symlink(&disk, sys.path().join("254:0")).unwrap();
        symlink(&part, sys.path().join("254:1")).unwrap();
        let vda = Device { major: 254, minor: 0 };
        assert_eq!(whole(sys.path(), Device { major: 254, minor: 1 }), Some(vda));
        assert_eq!(whole(sys.path(), vda), Some(vda));
        assert_eq!(whole(sys.path(), Device { major: 0, minor: 43 }), None);
    }
}
