//! Notes the commit that the program is built from. Without git, or outside a checkout, there is
//! simply none.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env!("CARGO_PKG_VERSION");
    println!("cargo::rustc-env=SRAFT_VERSION={version}");
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return };
    // Whatever moves HEAD or stages a change writes one of these.
    for file in ["HEAD", "index", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", file])
            && std::path::Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"])
        .is_some_and(|changes| !changes.is_empty());
    let short = commit.get(..12).unwrap_or(&commit);
    let suffix = if dirty { ", changed" } else { "" };
    println!("cargo::rustc-env=SRAFT_GIT_COMMIT={commit}");
    println!("cargo::rustc-env=SRAFT_GIT_DIRTY={dirty}");
    println!("cargo::rustc-env=SRAFT_VERSION={version} ({short}{suffix})");
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
