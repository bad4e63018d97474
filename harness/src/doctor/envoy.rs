//! An agent that was sent to find something out. It owns nothing and leaves nothing behind.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use sraft_agent::protocol::{Answer, Call, Said};

use crate::host::{
    Agent, Input,
    ssh::{SILENCE, Target},
};

/// How long an answer may take: knocking takes seconds, and so do clocks that do not answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

pub(super) struct Envoy {
    agent: Agent,
    inbox: Receiver<Input>,
}

impl Envoy {
    pub(super) fn send(target: &Target) -> Result<Envoy, String> {
        let (sender, inbox) = channel();
        let agent = target.start_agent(0, sender).map_err(|error| error.kind.to_string())?;
        let mut envoy = Envoy { agent, inbox };
        // Should the connection drop packets instead of closing, it ends by itself.
        envoy.ask(Call::Lease { silence_ms: SILENCE.as_millis() as u64 })?;
        Ok(envoy)
    }

    pub(super) fn ask(&mut self, call: Call) -> Result<Answer, String> {
        let asked = self.agent.send(call).map_err(|error| format!("it does not listen: {error}"));
        let deadline = Instant::now() + ANSWERED_WITHIN;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(Input::Said { said: Said::Done { id, answer }, .. }) if asked == Ok(id) => {
                    return Ok(answer);
                }
                Ok(Input::Said { said: Said::Failed { id, error }, .. })
                    if asked == Ok(id) || id == 0 =>
                {
                    return Err(error);
                }
                Ok(Input::Said { .. } | Input::Interrupted) => {}
                Ok(Input::Lost { why, .. }) => return Err(why),
                Err(RecvTimeoutError::Timeout) => {
                    let within = ANSWERED_WITHIN.as_secs();
                    return Err(format!("it has not answered for {within} s"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(asked.err().unwrap_or_else(|| "it has ended".to_owned()));
                }
            }
        }
    }
}
