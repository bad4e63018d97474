//! What the supervisor does with its probe.

use std::{os::fd::AsFd, path::PathBuf, time::Duration};

use super::Supervisor;
use crate::{
    directory::{plain_names, write_files},
    probe::{Of, Probe, Reply},
    protocol::{Answer, Call, Said},
    tail::EventLog,
};

impl<W: AsFd> Supervisor<W> {
    /// Starts or stops the probe. The request is answered when that has come to something.
    pub(super) fn order_probe(&mut self, request: u64, call: Call) -> Result<(), String> {
        let directory = &self.host()?.directory;
        let Call::StartProbe { program, args, files, ops_file } = call else {
            self.probe.as_mut().ok_or("no probe has been started")?.stop(request)?;
            self.soon(Duration::ZERO);
            return Ok(());
        };
        plain_names(&files, &ops_file)?;
        if let Some(probe) = &self.probe {
            let pid = probe.process.pid();
            return Err(format!("the probe that runs as process {pid} has not been stopped"));
        }
        let dir = directory.probe()?;
        self.probed = true;
        write_files(&dir, &files)?;
        let ops = dir.join(&ops_file);
        let ops = EventLog::unwatched(&ops)
            .map_err(|error| format!("cannot follow {}: {error}", ops.display()))?;
        let program = program.filter(|program| !program.is_empty()).map(PathBuf::from);
        let program = program.unwrap_or_else(|| self.program.clone());
        let process = self.spawn(&program, &args, &dir, ops)?;
        self.probe = Some(Probe::new(process, request));
        Ok(())
    }

    pub(super) fn look_at_probe(&mut self) {
        let Some(probe) = &mut self.probe else { return };
        let (mut replies, pid) = (Vec::new(), probe.process.pid());
        probe.look(&mut self.ops, &mut replies);
        for Reply { request: id, of, result } in replies {
            if of == Of::Stop || result.is_err() {
                // Somebody knows of its end now.
                self.probe = None;
            }
            self.pending.push(match (result, of) {
                (Err(error), _) => Said::Failed { id, error },
                (Ok(()), Of::Start) => Said::Done { id, answer: Answer::Started { pid } },
                (Ok(()), Of::Stop) => Said::Done { id, answer: Answer::Ok },
            });
        }
    }

    pub(super) fn drain_probe_errors(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.process.errors.drain();
        }
    }
}
