//! `sraft doctor`.
use std::process::ExitCode;
#[derive(clap::Args, Debug)]
pub(crate) struct DoctorArgs {}
pub(crate) fn run(_: &DoctorArgs) -> anyhow::Result<ExitCode> { Ok(ExitCode::SUCCESS) }
