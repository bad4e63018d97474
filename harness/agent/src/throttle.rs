//! Slow disks: a limit on the writes of a node's process alone, by the kernel's block-io controller
//! (control groups, version 1 or 2).
//!
//! # What is limited
//! Write operations on the disk that the node's directory is on, in a second: every block that the
//! process has written there and every flush that it asks for counts as one. A durable write of a
//! node is one or two of these. What the file system's own thread writes for all (the journal of its
//! metadata) is nobody's, so it is neither held back nor counted; nor do other processes wait, except
//! for a moment if that thread has to wait for a block of the slow one.
//!
//! # How quickly
//! The process is in a group of its own from before it opens its first file ([`Groups::wrap`]); what
//! strikes is one line in a pipe, upon which the kernel gives that group its limit. A process that is
//! moved into a limited group would not do: in version 2 a block belongs to the group that first
//! wrote to its page, and a file follows its writer only after some seconds (Documentation of the
//! kernel, cgroup-v2, "Writeback").
//!
//! # How they end
//! `Installed::remove` lifts the limits, and `Groups::remove` removes the groups once their processes
//! have ended. If nobody is left to do that, no process is left either: nodes die with their agent.
//! Empty groups are found by their names ([`label`]) and removed by the next agent ([`leftovers`]).

mod hierarchy;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sraft_events::NodeId;

use self::hierarchy::{Device, Hierarchy, Version, has, whole};
use crate::{
    facts, label,
    program::{
        DONE_WITHIN, both, find, missing, one_line, privileged, refusal, run, seen_by_another,
        within,
    },
};

/// The processes of a group.
const PROCESSES: &str = "cgroup.procs";

/// What version 2 gives to the groups of a group.
const CHILDREN_HAVE: &str = "cgroup.subtree_control";

/// Groups of one node's process each.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    of: BTreeMap<NodeId, PathBuf>,
    hierarchy: Option<Hierarchy>,
    /// Whether we have had the kernel offer limits to groups at all.
    enabled: bool,
}

/// Limits that are ready and not yet in force.
#[derive(Debug)]
pub(crate) struct Armed {
    pens: Vec<Pen>,
    installed: Installed,
}

/// Writes its line to a file of the kernel's once it is given it.
#[derive(Debug)]
struct Pen {
    tee: Child,
    input: Option<ChildStdin>,
    line: String,
}

/// Limits in force: the file of each, and the line that lifts it.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    limits: Vec<(PathBuf, String)>,
}

impl Groups {
    /// Makes a node's group, unless there is one. It lasts as long as the agent: what a restarted
    /// node finds on its disk would belong to another group else.
    pub(crate) fn make(&mut self, node: NodeId) -> Result<(), String> {
        if self.of.contains_key(&node) {
            return Ok(());
        }
        let hierarchy = hierarchy()?;
        self.enabled |= enable(&hierarchy)?;
        let dir = hierarchy.root.join(label::new()?);
        self.hierarchy = Some(hierarchy);
        execute("mkdir", &dir)?;
        self.of.insert(node, dir);
        Ok(())
    }

    /// The program and the arguments that start another program in a node's group.
    pub(crate) fn wrap(
        &self,
        node: NodeId,
        program: &Path,
        args: &[String],
    ) -> Result<(PathBuf, Vec<String>), String> {
        let group = self.of.get(&node).ok_or_else(|| no_group(node))?;
        let mut enter = privileged("tee")?;
        enter.arg(group.join(PROCESSES));
        let words = std::iter::once(enter.get_program()).chain(enter.get_args());
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let count = words.len();
        let places: String = (1..=count).map(|nth| format!("\"${nth}\" ")).collect();
        // The shell enters, and becomes the program: the same process, with the same parent.
        let script = format!("echo $$ | {places} >/dev/null && shift {count} && exec \"$@\"");
        let before = ["-c".to_owned(), script, "sh".to_owned()];
        let program = seen_by_another(program);
        let args = before.into_iter().chain(words).chain([program]).chain(args.iter().cloned());
        Ok((PathBuf::from("/bin/sh"), args.collect()))
    }

    /// Makes ready that each of these nodes, which write below `dir`, may do so many writes a second.
    pub(crate) fn arm(&self, nodes: &[NodeId], iops: u32, dir: &Path) -> Result<Armed, String> {
        let disk = disk(dir)?;
        let mut armed = Armed { pens: Vec::new(), installed: Installed::default() };
        for node in nodes {
            let group = self.of.get(node).zip(self.hierarchy.as_ref());
            let added = group.ok_or_else(|| no_group(*node)).and_then(|(group, hierarchy)| {
                let file = group.join(hierarchy.limits());
                let pen = Pen::new(&file, hierarchy.limit(disk, Some(iops)))?;
                armed.pens.push(pen);
                armed.installed.limits.push((file, hierarchy.limit(disk, None)));
                Ok(())
            });
            if let Err(why) = added {
                return Err(both(why, armed.disarm()));
            }
        }
        Ok(armed)
    }

    /// Removes the groups, whose processes have ended. May be called again if it failed.
    pub(crate) fn remove(&mut self) -> Result<(), String> {
        let Some(hierarchy) = &self.hierarchy else { return Ok(()) };
        while let Some(group) = self.of.last_entry() {
            if group.get().exists() {
                dissolve(hierarchy, group.get())?;
            }
            group.remove();
        }
        if std::mem::take(&mut self.enabled) && !others_use(&hierarchy.root) {
            put(&hierarchy.root.join(CHILDREN_HAVE), "-io\n")?;
        }
        Ok(())
    }
}

fn no_group(node: NodeId) -> String {
    format!(
        "node {node} was not started in a control group of its own, so it cannot be slowed down"
    )
}

impl Pen {
    fn new(file: &Path, line: String) -> Result<Self, String> {
        let mut tee = privileged("tee")?;
        tee.arg(file).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut tee = tee.spawn().map_err(|error| format!("cannot start tee: {error}"))?;
        let input = tee.stdin.take();
        Ok(Pen { tee, input, line })
    }
}

impl Armed {
    /// Puts the limits in force. Returns when they are.
    pub(crate) fn strike(mut self) -> Result<Installed, (Installed, String)> {
        for Pen { input, line, .. } in &mut self.pens {
            // In one go, for each piece would be a line. Should tee be gone, its exit code tells.
            let _ = input.take().map(|mut input| input.write_all(line.as_bytes()));
        }
        let mut failure = None;
        for Pen { tee, .. } in &mut self.pens {
            let mut said = String::new();
            let ended = within(tee, DONE_WITHIN);
            if let Some(mut errors) = tee.stderr.take() {
                // It has ended, so this does not wait.
                let _ = errors.read_to_string(&mut said);
            }
            match ended {
                Ok(true) => {}
                Ok(false) => failure = Some(format!("a disk is not slowed: {}", one_line(&said))),
                Err(why) => failure = Some(why),
            }
        }
        match failure {
            None => Ok(self.installed),
            Some(why) => Err((self.installed, why)),
        }
    }

    /// Gives up what was prepared. May be called again if it failed.
    pub(crate) fn disarm(&mut self) -> Result<(), String> {
        while let Some(mut pen) = self.pens.pop() {
            // It has got nothing to write, so it limits nobody.
            pen.input = None;
            within(&mut pen.tee, DONE_WITHIN)?;
        }
        Ok(())
    }
}

impl Installed {
    /// Lifts the limits: what waits for its turn passes at once. May be called again if it failed.
    pub(crate) fn remove(&mut self) -> Result<(), String> {
        while let Some((file, lift)) = self.limits.last() {
            put(file, lift)?;
            self.limits.pop();
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

/// Longest wait for a process to be in its group.
const ENTERED_WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Size of one: less than a block of any file system.
const BYTES: usize = 512;

fn trial(dir: &Path, path: &Path) -> Result<(), String> {
    let mut groups = Groups::default();
    let tried = compare(&mut groups, dir, path);
    let removed = groups.remove();
    let (free, slow) = tried?;
    removed?;
    judge(free, slow)
}

/// How long some durable writes take without a limit and with one.
fn compare(groups: &mut Groups, dir: &Path, path: &Path) -> Result<(Duration, Duration), String> {
    let node = 1;
    groups.make(node)?;
    let free = write(groups, node, path)?;
    let mut limits = groups.arm(&[node], IOPS, dir)?.strike().or_else(|(mut limits, why)| {
        limits.remove()?;
        Err(why)
    })?;
    // The same blocks again, so that nothing but these is written.
    let slow = write(groups, node, path);
    limits.remove()?;
    Ok((free, slow?))
}

/// How long a process of the group takes for some durable writes.
fn write(groups: &Groups, node: NodeId, path: &Path) -> Result<Duration, String> {
    let failed =
        |what: &dyn std::fmt::Display| format!("cannot write to {}: {what}", path.display());
    let dd = find("dd").ok_or_else(|| missing("dd"))?;
    let args = [
        "-c".to_owned(),
        // Says when it is in the group: entering may take longer than writing.
        "echo && exec \"$@\" oflag=dsync conv=notrunc status=none".to_owned(),
        "sh".to_owned(),
        dd.to_string_lossy().into_owned(),
        format!("of={}", path.display()),
        format!("bs={BYTES}"),
    ];
    let (program, args) = groups.wrap(node, Path::new("/bin/sh"), &args)?;
    let mut dd = Command::new(program);
    dd.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut dd = dd.spawn().map_err(|error| failed(&error))?;
    if let Some(entered) = dd.stdout.take() {
        // If it ends without having said so, its exit code tells.
        let _ = poll(&mut [PollFd::new(&entered, PollFlags::IN)], Some(&ENTERED_WITHIN));
    }
    let begun = Instant::now();
    let text = vec![0x5a; BYTES * WRITES as usize];
    // It may have ended without reading; then its exit code tells.
    let _ = dd.stdin.take().map(|mut input| input.write_all(&text));
    let ended = within(&mut dd, DONE_WITHIN);
    let took = begun.elapsed();
    let mut said = String::new();
    if let Some(mut errors) = dd.stderr.take() {
        // It has ended, so this does not wait.
        let _ = errors.read_to_string(&mut said);
    }
    match ended? {
        true => Ok(took),
        false => Err(failed(&one_line(&said))),
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
                dissolve(&hierarchy, &dir)?;
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

/// Whether anybody else makes use of what we have had the kernel offer, or is about to.
fn others_use(root: &Path) -> bool {
    let read = |dir: &Path, name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    groups(root).iter().any(|dir| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        // Another agent's may get its limit at any time.
        if name.starts_with(label::PREFIX) {
            return !label::is_orphan(&name);
        }
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

/// Lifts a group's limits, moves whoever is in it to the root of all groups, and removes it.
fn dissolve(hierarchy: &Hierarchy, dir: &Path) -> Result<(), String> {
    let limits = dir.join(hierarchy.limits());
    // What waits for its turn passes at once; a process that waits could not end.
    for line in fs::read_to_string(&limits).unwrap_or_default().lines() {
        if let Some(device) = line.split_whitespace().next() {
            put(&limits, &hierarchy.limit(device, None))?;
        }
    }
    // Nobody is, unless a process cannot even be killed.
    let inside = || fs::read_to_string(dir.join(PROCESSES)).unwrap_or_default();
    for pid in inside().lines() {
        let moved = put(&hierarchy.root.join(PROCESSES), &format!("{pid}\n"));
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

        let root = tempfile::tempdir().unwrap();
        let agents = |name: &str| fs::create_dir(root.path().join(name)).unwrap();
        agents(&format!("{}{}_1_0", label::PREFIX, u32::MAX));
        assert!(!others_use(root.path()), "that agent is dead");
        agents(&label::new().unwrap());
        assert!(others_use(root.path()), "that agent lives");
    }
}
