use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::mpsc::Sender,
};

use super::{Agent, Input, read};

/// Starts an agent on this machine, as a child, from this very program.
pub(crate) fn start(inbox: Sender<Input>) -> io::Result<Agent> {
    let mut process = Command::new(sraft_agent::own_executable())
        .arg0("sraft")
        .arg("agent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A group of its own: Ctrl-C is for the harness, which then ends the agent in good order.
        .process_group(0)
        .spawn()?;
    let requests = process.stdin.take();
    let said = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let reader = std::thread::Builder::new()
        .name("agent".to_owned())
        .spawn(move || read(said, &inbox))
        .inspect_err(|_| drop(process.kill()))?;
    Ok(Agent { requests, process, reader: Some(reader), next_id: 1 })
}
