//! What concerns the process as a whole: its id file, its parent, and what a panic does to it.

use std::{
    any::Any,
    cell::RefCell,
    fs,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Once,
};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};

/// What is known of panics that the running code is expected to have.
struct Expectation {
    /// Turns the panic's text into the line that the user is to see.
    explain: Box<dyn Fn(&str) -> String>,
    /// The text of the one that has happened.
    happened: Option<String>,
}

thread_local! {
    static EXPECTED: RefCell<Option<Expectation>> = const { RefCell::new(None) };
}

/// Runs code that is known to panic on some inputs, and makes a panic an error: its text, in one
/// line. `explain` turns that into the whole message for the case that the code panics a second
/// time while it cleans up, which nothing can catch: then the process ends with the message.
pub(crate) fn catch_panics<T>(
    explain: impl Fn(&str) -> String + 'static,
    run: impl FnOnce() -> T,
) -> Result<T, String> {
    let expectation = Expectation { explain: Box::new(explain), happened: None };
    let outer = EXPECTED.replace(Some(expectation));
    let result = catch_unwind(AssertUnwindSafe(run)).map_err(|panic| panic_text(&*panic));
    EXPECTED.set(outer);
    result
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given");
    text.replace('\n', " ")
}

/// Makes a panic that nobody catches end the whole process: a node of which one thread has stopped
/// must not go on acknowledging.
pub(crate) fn die_of_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let expected = EXPECTED.with(|expected| {
                let Ok(mut expected) = expected.try_borrow_mut() else { return false };
                let Some(expectation) = &mut *expected else { return false };
                if let Some(text) = &expectation.happened {
                    let line = (expectation.explain)(text);
                    let _ = writeln!(io::stderr(), "error: {line}");
                    std::process::exit(1);
                }
                expectation.happened = Some(panic_text(info.payload()));
                true
            });
            if !expected {
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

/// Raises the soft limit of open files to the hard one: it is low for the sake of programs that use
/// select(2), and each client is a file.
pub(crate) fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If it is refused, the old limit counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_is_caught_is_one_line() {
        let text = catch_panics(str::to_owned, || -> () { panic!("lost\nthe plot") });
        assert_eq!(text.unwrap_err(), "lost the plot");
        assert_eq!(catch_panics(str::to_owned, || 3).unwrap(), 3);
    }
}
