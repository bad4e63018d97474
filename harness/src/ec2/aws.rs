use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::Value;

/// Amazon's command line program.
pub(super) trait Aws {
    /// Calls it and returns what it answers, null if it answers nothing.
    fn call(&self, args: &[&str]) -> anyhow::Result<Value>;
}

/// The program on the PATH.
pub(super) struct Command {
    region: Option<String>,
}

impl Command {
    /// Makes sure that it is there.
    pub(super) fn find(region: Option<String>) -> anyhow::Result<Command> {
        let found = std::process::Command::new("aws")
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match found {
            Ok(status) if status.success() => Ok(Command { region }),
            Ok(status) => {
                bail!("`aws --version` ends with {status}; mend or reinstall the AWS CLI")
            }
            Err(error) => bail!(
                "cannot start `aws`: {error}; install the AWS CLI \
                 (https://aws.amazon.com/cli) and run `aws configure`"
            ),
        }
    }
}

impl Aws for Command {
    fn call(&self, args: &[&str]) -> anyhow::Result<Value> {
        let mut command = std::process::Command::new("aws");
        // Both major versions of the program know how to do without a pager this way.
        command.args(args).args(["--output", "json"]).env("AWS_PAGER", "");
        if let Some(region) = &self.region {
            command.args(["--region", region]);
        }
        let what = args.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start `aws {what}`"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            bail!("`aws {what}` failed: {said}");
        }
        if output.stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`aws {what}` answered what is not JSON"))
    }
}
