//! A disk of a node's own, so that it can be filled: an ext4 file system in a file of the node's
//! directory, mounted where only the node's process sees it.
//!
//! # How it ends
//! The mount is in a namespace that the process alone is in, and the loop device is one that goes
//! with its mount. So both end with the process, whatever ends it: nobody has to unmount anything,
//! and nobody can be left who would have to. What remains is a file in the node's directory.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
    process::geteuid,
};

use crate::{
    label,
    program::{find, missing, one_line, run, seen_by_another},
    protocol::OWN_DISK,
};

/// The file that holds the file system. It takes room only for what has been written to it.
const IMAGE: &str = "disk.img";

/// What fills it.
const FILLER: &str = "filler";

/// Mounts (`$1`) the image `$2` at `$3`, removes what fills it, and becomes the rest of the
/// arguments: the same process, with the same parent.
const SCRIPT: &str = "\"$1\" -t ext4 -o loop,nosuid,nodev \"$2\" \"$3\" && rm -f \"$3/filler\" && \
                      shift 3 && exec \"$@\"";

/// The most that is asked for at once, and the least: no file system has smaller blocks.
const LARGEST: u64 = 1 << 30;
const SMALLEST: u64 = 1 << 10;

/// Whether nodes can have disks of their own below `dir`: tried, and gone again.
pub(crate) fn able(dir: &Path) -> Result<(), String> {
    for program in ["mkfs.ext4", "unshare", "mount"] {
        find(program).ok_or_else(|| missing(program))?;
    }
    if !geteuid().is_root() {
        return Err(not_root());
    }
    let place = dir.join(format!(".{}", label::new()?));
    let tried = fs::create_dir(&place)
        .map_err(|error| format!("cannot make {}: {error}", place.display()))
        .and_then(|()| trial(&place));
    let _ = fs::remove_dir_all(&place); // it may not be there
    tried
}

fn not_root() -> String {
    "disk-full gives every node a file system of its own, which only root can mount; start sraft as \
     root on this machine, log in as root on others (user = \"root\" in the inventory), or take \
     another fault"
        .to_owned()
}

fn trial(place: &Path) -> Result<(), String> {
    make(place, 64 << 20)?;
    let (program, args) = wrap(Path::new("/bin/sh"), &["-c".to_owned(), ":".to_owned()])?;
    let here = place.to_string_lossy();
    let args = args.iter().map(|arg| arg.replace("{dir}", &here));
    let output = run(Command::new(program).args(args), None)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "a file system cannot be mounted for one process ({}); use a kernel with loop devices, \
             ext4 and mount namespaces, outside of containers that may not mount, or take another \
             fault",
            one_line(&String::from_utf8_lossy(&output.stderr))
        )),
    }
}

/// Makes an empty file system in a node's directory, unless there is one.
pub(crate) fn make(dir: &Path, bytes: u64) -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display| {
        format!("cannot make a file system in {}: {why}", dir.join(IMAGE).display())
    };
    fs::create_dir_all(dir.join(OWN_DISK)).map_err(|error| failed(&error))?;
    if dir.join(IMAGE).exists() {
        return Ok(());
    }
    // Under another name until it is whole.
    let staged = dir.join(format!("{IMAGE}.new"));
    File::create(&staged).and_then(|image| image.set_len(bytes)).map_err(|error| failed(&error))?;
    let mut mkfs = Command::new(find("mkfs.ext4").ok_or_else(|| missing("mkfs.ext4"))?);
    // Nothing is set aside for root, who the node may be. The rest keeps mkfs, and the kernel later
    // on, from writing zeros where there are zeros.
    mkfs.args(["-q", "-F", "-m", "0", "-N", "4096", "-J", "size=16", "-E"]);
    mkfs.arg("lazy_itable_init=0,lazy_journal_init=1,nodiscard").arg(&staged);
    let output = run(&mut mkfs, None)?;
    if !output.status.success() {
        return Err(failed(&one_line(&String::from_utf8_lossy(&output.stderr))));
    }
    fs::rename(&staged, dir.join(IMAGE)).map_err(|error| failed(&error))
}

/// The program and the arguments that start another program with the disk of its directory, which
/// `{dir}` stands for.
pub(crate) fn wrap(program: &Path, args: &[String]) -> Result<(PathBuf, Vec<String>), String> {
    let tool = |name: &str| find(name).ok_or_else(|| missing(name));
    let (unshare, mount) = (tool("unshare")?, tool("mount")?);
    let program = seen_by_another(program);
    let before = ["--mount", "--propagation", "private", "--", "/bin/sh", "-c", SCRIPT, "sh"];
    let places = [
        mount.to_string_lossy().into_owned(),
        format!("{{dir}}/{IMAGE}"),
        format!("{{dir}}/{OWN_DISK}"),
        program,
    ];
    let before = before.into_iter().map(str::to_owned);
    Ok((unshare, before.chain(places).chain(args.iter().cloned()).collect()))
}

/// Takes all the room on the disk of a node that runs, from process `pid`, in `dir`.
pub(crate) fn fill(pid: u32, dir: &Path) -> io::Result<()> {
    let seen = PathBuf::from(format!("/proc/{pid}/root{}", dir.display()));
    let disk = seen.join(OWN_DISK);
    // Whatever has gone wrong, the host's own disk is not filled.
    if fs::metadata(&disk)?.dev() == fs::metadata(&seen)?.dev() {
        return Err(io::Error::other("it has no disk of its own"));
    }
    let file = File::create(disk.join(FILLER))?;
    let (mut at, mut step) = (0, LARGEST);
    while step >= SMALLEST {
        match fallocate(&file, FallocateFlags::empty(), at, step) {
            Ok(()) => at += step,
            Err(Errno::NOSPC | Errno::FBIG) => step /= 2,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_removes_what_fills() {
        assert!(SCRIPT.contains(&format!("rm -f \"$3/{FILLER}\"")));
    }

    #[test]
    fn the_hosts_own_disk_is_never_filled() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(OWN_DISK)).unwrap();
        let refused = fill(std::process::id(), dir.path()).unwrap_err();
        assert_eq!(refused.to_string(), "it has no disk of its own");
        assert!(!dir.path().join(OWN_DISK).join(FILLER).exists());
    }

    #[test]
    fn who_may_not_mount_is_told_what_to_do() {
        insta::assert_snapshot!(not_root(), @r#"disk-full gives every node a file system of its own, which only root can mount; start sraft as root on this machine, log in as root on others (user = "root" in the inventory), or take another fault"#);
        insta::assert_snapshot!(missing("mkfs.ext4"), @"mkfs.ext4 is not installed on this host; install the package e2fsprogs, with apt-get or dnf");
    }
}
