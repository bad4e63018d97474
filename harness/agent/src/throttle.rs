//! Slow disks: a limit on the writes of a node's process alone, by the kernel's block-io controller
//! (control groups, version 1 or 2).
//!
//! # What is limited
//! Write operations on the disk that the node's directory is on, in a second: every block that the
//! process has written there and every flush that it asks for counts as one. A durable write of a
//! node is one of each, usually. What the file system's own thread writes for all (the journal of
//! its metadata) is nobody's, so it is neither held back nor counted; nor do other processes wait,
//! except for a moment if that thread has to wait for a block of the slow one.
//!
//! # How quickly
//! As with rules: everything is made ready beforehand (`Armed::prepare`), and what strikes is one
//! line in a pipe, upon which the kernel moves the process, with all of its threads, into the group
//! that has the limit.
//!
//! # How they end
//! `Installed::remove` lifts the limit, moves the process back to where it was, and removes the
//! group. If nobody is left to do that, the process is not left either: nodes die with their agent.
//! The empty group is found by its name ([`label`]) and removed by the next agent ([`leftovers`]).

mod hierarchy;

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use self::hierarchy::{Device, Hierarchy, Version, has, whole};
use crate::{
    facts, label,
    program::{DONE_WITHIN, find, missing, one_line, privileged, refusal, run, within},
};

/// The processes of a group.
const PROCESSES: &str = "cgroup.procs";

/// What version 2 gives to the groups of a group.
const CHILDREN_HAVE: &str = "cgroup.subtree_control";

/// Groups that are ready, with nobody in them yet.
#[derive(Debug)]
pub(crate) struct Armed {
    movers: Vec<Mover>,
    installed: Installed,
}

/// Moves a process once its input ends.
#[derive(Debug)]
struct Mover {
    tee: Child,
    input: Option<ChildStdin>,
    pid: u32,
}

/// Limits in force, or what of them has been made so far.
#[derive(Debug)]
pub(crate) struct Installed {
    hierarchy: Hierarchy,
    groups: Vec<Group>,
    /// Whether we have had the kernel offer limits to groups at all.
    enabled: bool,
}

/// A group of one process.
#[derive(Debug)]
struct Group {
    dir: PathBuf,
    /// The group that the process was in before.
    home: PathBuf,
}

impl Armed {
    /// Makes a group for each of these processes, which write below `dir`.
    pub(crate) fn prepare(pids: &[u32], iops: u32, dir: &Path) -> Result<Self, String> {
        let (hierarchy, disk) = (hierarchy()?, disk(dir)?);
        let installed = Installed { hierarchy, groups: Vec::new(), enabled: false };
        let mut armed = Armed { movers: Vec::new(), installed };
        match pids.iter().try_for_each(|pid| armed.add(*pid, iops, disk)) {
            Ok(()) => Ok(armed),
            Err(why) => {
                let undone = armed.disarm();
                Err(undone.err().map_or(why.clone(), |and| format!("{why}; {and}")))
            }
        }
    }

    fn add(&mut self, pid: u32, iops: u32, disk: Device) -> Result<(), String> {
        let Installed { hierarchy, groups, enabled } = &mut self.installed;
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"));
        let home = cgroups.ok().and_then(|text| hierarchy.home(&text));
        let home = home.ok_or_else(|| format!("cannot tell which group process {pid} is in"))?;
        *enabled |= enable(hierarchy)?;
        let dir = hierarchy.root.join(label::new()?);
        execute("mkdir", &dir)?;
        groups.push(Group { dir: dir.clone(), home });
        put(&dir.join(hierarchy.limits()), &hierarchy.limit(disk, Some(iops)))?;
        let mut tee = privileged("tee")?;
        tee.arg(dir.join(PROCESSES));
        tee.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut tee = tee.spawn().map_err(|error| format!("cannot start tee: {error}"))?;
        let input = tee.stdin.take();
        self.movers.push(Mover { tee, input, pid });
        Ok(())
    }

    /// Moves the processes into their groups. Returns when they are in.
    pub(crate) fn strike(mut self) -> Result<Installed, (Installed, String)> {
        for Mover { input, pid, .. } in &mut self.movers {
            // In one go, for each piece would be a line. Should it be gone already, its exit code tells.
            let line = format!("{pid}\n");
            let _ = input.take().map(|mut input| input.write_all(line.as_bytes()));
        }
        let mut failure = None;
        for Mover { tee, pid, .. } in &mut self.movers {
            let mut said = String::new();
            let ended = within(tee, DONE_WITHIN);
            if let Some(mut errors) = tee.stderr.take() {
                // It has ended, so this does not wait.
                let _ = errors.read_to_string(&mut said);
            }
            match ended {
                Ok(true) => {}
                Ok(false) => {
                    failure = Some(format!("process {pid} cannot be moved: {}", one_line(&said)));
                }
                Err(why) => failure = Some(why),
            }
        }
        match failure {
            None => Ok(self.installed),
            Some(why) => Err((self.installed, why)),
        }
    }

    /// Gives up what was prepared.
    pub(crate) fn disarm(mut self) -> Result<(), String> {
        for mut mover in self.movers {
            // It has got nothing to write, so it moves nobody.
            mover.input = None;
            within(&mut mover.tee, DONE_WITHIN)?;
        }
        self.installed.remove()
    }
}

impl Installed {
    /// Takes everything away again. May be called again if it failed.
    pub(crate) fn remove(&mut self) -> Result<(), String> {
        while let Some(Group { dir, home }) = self.groups.last() {
            if dir.exists() {
                dissolve(&self.hierarchy, dir, home)?;
            }
            self.groups.pop();
        }
        if std::mem::take(&mut self.enabled) && !others_use(&self.hierarchy.root) {
            put(&self.hierarchy.root.join(CHILDREN_HAVE), "-io\n")?;
        }
        Ok(())
    }
}

/// Whether writes can be limited here for processes that write below `dir`: tried, with a process
/// that writes to a file there.
pub(crate) fn able(dir: &Path) -> Result<(), String> {
    for program in ["mkdir", "tee", "rmdir", "dd"] {
        find(program).ok_or_else(|| missing(program))?;
    }
    hierarchy()?;
    disk(dir)?;
    let path = dir.join(format!(".{}", label::new()?));
    let tried = trial(dir, &path);
    let _ = fs::remove_file(&path); // it may not have come so far
    tried
}

/// The trial's writes, and how many of them a second may have.
const WRITES: u32 = 12;
const IOPS: u32 = 40;

/// Size of one: less than a block of any file system.
const BYTES: usize = 512;

fn trial(dir: &Path, path: &Path) -> Result<(), String> {
    let free = write(path, |_| Ok(()))?;
    let mut installed = None;
    // The same blocks again, so that nothing but these is written.
    let slow = write(path, |pid| {
        let (limit, struck) = match Armed::prepare(&[pid], IOPS, dir)?.strike() {
            Ok(limit) => (limit, Ok(())),
            Err((limit, why)) => (limit, Err(why)),
        };
        installed = Some(limit);
        struck
    });
    if let Some(mut installed) = installed {
        installed.remove()?;
    }
    judge(free, slow?)
}

/// How long a process takes for some durable writes, after something has been done to it.
fn write(path: &Path, before: impl FnOnce(u32) -> Result<(), String>) -> Result<Duration, String> {
    let failed =
        |what: &dyn std::fmt::Display| format!("cannot write to {}: {what}", path.display());
    let mut dd = Command::new(find("dd").ok_or_else(|| missing("dd"))?);
    dd.arg(format!("of={}", path.display())).arg(format!("bs={BYTES}"));
    dd.args(["oflag=dsync", "conv=notrunc", "status=none"]);
    dd.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut dd = dd.spawn().map_err(|error| failed(&error))?;
    let mut input = dd.stdin.take();
    let done = before(dd.id());
    let begun = Instant::now();
    let text = vec![0x5a; BYTES * WRITES as usize];
    // It may have ended without reading; then its exit code tells.
    let _ = input.take().map(|mut input| input.write_all(&text));
    let ended = within(&mut dd, DONE_WITHIN);
    let took = begun.elapsed();
    done?;
    match ended? {
        true => Ok(took),
        false => Err(failed(&"dd failed; is there room?")),
    }
}

/// Whether the limit has had an effect.
fn judge(free: Duration, slow: Duration) -> Result<(), String> {
    // Half of what the limit asks for: the kernel lets some pass at once.
    let least = Duration::from_secs(1) * WRITES / IOPS / 2;
    if slow >= least && slow >= free * 3 / 2 {
        return Ok(());
    }
    Err(format!(
        "a limit on writes has no effect here ({WRITES} durable writes take {:.0} ms without one, and \
         {:.0} ms at {IOPS} a second); take another kernel, file system or disk, or another fault",
        free.as_secs_f64() * 1e3,
        slow.as_secs_f64() * 1e3
    ))
}

/// Groups that agents that are dead have left, one phrase each; removed if asked for.
pub(crate) fn leftovers(remove: bool) -> Result<Vec<String>, String> {
    // Where there are no limits, nobody can have left any.
    let Ok(hierarchy) = hierarchy() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for dir in groups(&hierarchy.root) {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if label::is_orphan(&name) {
            found.push(format!("control group {name} of an agent that died"));
            if remove {
                dissolve(&hierarchy, &dir, &hierarchy.root)?;
            }
        }
    }
    Ok(found)
}

fn hierarchy() -> Result<Hierarchy, String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let controllers =
        |root: &Path| fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    Hierarchy::among(&mounts, controllers).ok_or_else(|| {
        "there are no control groups here that limit a process's writes (blkio of version 1, or io \
         of version 2); use a kernel with CONFIG_BLK_DEV_THROTTLING and mount them, as systemd does, \
         or take another fault"
            .to_owned()
    })
}

/// The disk that a folder is on.
fn disk(dir: &Path) -> Result<Device, String> {
    let device = fs::metadata(dir).map(|meta| meta.dev());
    let device = device.map_err(|error| format!("cannot look at {}: {error}", dir.display()))?;
    let part = Device { major: rustix::fs::major(device), minor: rustix::fs::minor(device) };
    whole(Path::new("/sys/dev/block"), part).ok_or_else(|| no_disk(dir))
}

fn no_disk(dir: &Path) -> String {
    let kind = facts::filesystem(dir).unwrap_or_else(|| "an unknown file system".to_owned());
    format!(
        "{} is on {kind}, which has no disk of its own that could be slowed down; name a folder on \
         ext4 or xfs (TMPDIR on this machine, dir in an inventory), or take another fault",
        dir.display()
    )
}

/// Has the kernel offer limits to the groups below the root; whether it did not before.
fn enable(hierarchy: &Hierarchy) -> Result<bool, String> {
    let path = hierarchy.root.join(CHILDREN_HAVE);
    let had = |text: String| has(&text, "io");
    if hierarchy.version == Version::One || fs::read_to_string(&path).is_ok_and(had) {
        return Ok(false);
    }
    put(&path, "+io\n").map(|()| true)
}

/// Whether anybody else has made use of what we have had the kernel offer.
fn others_use(root: &Path) -> bool {
    let read = |dir: &Path, name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    groups(root).iter().any(|dir| {
        let weight = read(dir, "io.weight");
        has(&read(dir, CHILDREN_HAVE), "io")
            || ["io.max", "io.latency"].iter().any(|limit| !read(dir, limit).trim().is_empty())
            || !matches!(weight.trim(), "" | "default 100")
    })
}

/// The groups right below the root.
fn groups(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).collect()
}

/// Lifts a group's limits, moves whoever is in it to `home`, and removes it.
fn dissolve(hierarchy: &Hierarchy, dir: &Path, home: &Path) -> Result<(), String> {
    let limits = dir.join(hierarchy.limits());
    // What waits for its turn passes at once; a process that waits could not end.
    for line in fs::read_to_string(&limits).unwrap_or_default().lines() {
        if let Some(device) = line.split_whitespace().next() {
            put(&limits, &hierarchy.limit(device, None))?;
        }
    }
    // Whoever made its group may have removed it.
    let home = if home.exists() { home } else { hierarchy.root.as_path() };
    let inside = || fs::read_to_string(dir.join(PROCESSES)).unwrap_or_default();
    for pid in inside().lines() {
        let moved = put(&home.join(PROCESSES), &format!("{pid}\n"));
        // It may have ended in the same moment.
        if moved.is_err() && inside().lines().any(|other| other == pid) {
            return moved;
        }
    }
    execute("rmdir", dir)
}

/// Writes a line to a file of the kernel's.
fn put(path: &Path, line: &str) -> Result<(), String> {
    let output = run(privileged("tee")?.arg(path), Some(line))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(refusal("tee", &output)),
    }
}

fn execute(program: &str, dir: &Path) -> Result<(), String> {
    let output = run(privileged(program)?.arg(dir), None)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(refusal(program, &output)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_without_a_disk_are_refused_with_the_remedy() {
        // Whoever has /proc has it as a file system without a device.
        insta::assert_snapshot!(disk(Path::new("/proc")).unwrap_err(), @"/proc is on proc, which has no disk of its own that could be slowed down; name a folder on ext4 or xfs (TMPDIR on this machine, dir in an inventory), or take another fault");
        insta::assert_snapshot!(disk(Path::new("/no/such/folder")).unwrap_err(), @"cannot look at /no/such/folder: No such file or directory (os error 2)");
    }

    #[test]
    fn a_limit_without_effect_is_told_from_one_with_it() {
        let ms = Duration::from_millis;
        assert_eq!(judge(ms(4), ms(600)), Ok(()));
        assert_eq!(judge(ms(100), ms(310)), Ok(()), "a slow disk is slower still");
        insta::assert_snapshot!(judge(ms(4), ms(5)).unwrap_err(), @"a limit on writes has no effect here (12 durable writes take 4 ms without one, and 5 ms at 40 a second); take another kernel, file system or disk, or another fault");
        assert!(judge(ms(250), ms(300)).is_err(), "it may as well have been slow by itself");
    }

    #[test]
    fn limits_of_others_are_noticed() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("user.slice");
        fs::create_dir(&group).unwrap();
        let with = |name: &str, text: &str| {
            fs::write(group.join(name), text).unwrap();
            others_use(root.path())
        };
        assert!(!with("io.weight", "default 100\n"));
        assert!(!with("io.max", ""));
        assert!(!with(CHILDREN_HAVE, "cpu memory\n"));
        assert!(with("io.max", "8:0 rbps=max wbps=max riops=max wiops=9\n"));
        assert!(!with("io.max", ""));
        assert!(with("io.weight", "default 200\n"));
        assert!(!with("io.weight", "default 100\n"));
        assert!(with(CHILDREN_HAVE, "io\n"));
    }
}
