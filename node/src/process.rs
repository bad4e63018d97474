//! What concerns the process as a whole: its id file, its parent, and what a panic does to it.

use std::{
    cell::Cell,
    fs, io,
    path::{Path, PathBuf},
    sync::Once,
};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, a panic of this thread is going to be caught and reported as an error.
#[derive(Debug)]
#[must_use]
pub(crate) struct PanicsExpected(bool);

impl Drop for PanicsExpected {
    fn drop(&mut self) {
        EXPECTED.set(self.0);
    }
}

/// Says that the caller catches panics of this thread and reports them itself.
pub(crate) fn expect_panics() -> PanicsExpected {
    PanicsExpected(EXPECTED.replace(true))
}

/// Makes a panic that nobody expects end the whole process: a node of which one thread has stopped
/// must not go on acknowledging.
pub(crate) fn die_of_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                report(info);
                std::process::abort();
            }
        }));
    });
}

/// Asks the kernel to kill this process when its parent dies.
///
/// The kernel means the parent's *thread*: the one that started this process has to live on.
///
/// # Errors
/// The parent is not process `parent` (any more), or the kernel refuses.
pub(crate) fn die_with_parent(parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Only after the request is it certain that a death of the parent is not missed.
    let now = getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs());
    anyhow::ensure!(
        now == Some(parent),
        "--die-with-parent {parent}: that process is not (or no longer) the parent of this one"
    );
    Ok(())
}

/// The file that names this process; removed when it is dropped.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(path: &Path) -> io::Result<PidFile> {
        fs::write(path, format!("{}\n", std::process::id()))?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A number that the operating system draws.
///
/// # Errors
/// The system cannot, which Linux does not do once it has booted.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
    }
    Ok(u64::from_le_bytes(bytes))
}
