//! The program that is uploaded: what it needs of a host, and whether a host has that.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use object::{
    Endianness,
    elf::{EM_AARCH64, EM_X86_64, FileHeader64, PT_INTERP},
    read::elf::{FileHeader, ProgramHeader},
};
use sha2::{Digest, Sha256};

use super::{
    connection::Connection,
    error::{SshError, SshErrorKind},
};

/// How long a look at a host may take.
const SURVEYED_WITHIN: Duration = Duration::from_secs(20);

/// How long an upload may take at most: 100 MB over 3 Mbit/s.
const UPLOADED_WITHIN: Duration = Duration::from_secs(300);

/// What a host must have free beyond the program, in bytes.
const SPARE: u64 = 256 << 20;

/// How a program runs that every Linux host of its architecture can run.
pub(crate) const STATIC_BUILD: &str =
    "`cargo build --profile static --target x86_64-unknown-linux-musl` (docs/static-binary.md)";

/// A program for hosts.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    size: u64,
    /// SHA-256, hexadecimal.
    pub(crate) sha256: String,
    /// As `uname -m` names it.
    arch: &'static str,
    /// The newest glibc that it needs; none if it is linked statically.
    libc: Option<Libc>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Libc {
    /// glibc of at least this version.
    Glibc(Version),
    /// Something else, by its dynamic linker.
    Other(String),
}

type Version = (u32, u32);

/// What a host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    system: String,
    pub(crate) arch: String,
    /// Empty if the host has no glibc.
    pub(crate) glibc: String,
    /// The host's folder for sraft, without links and `~`.
    pub(crate) dir: String,
    free_kib: Option<u64>,
    /// Whether the program is there and intact.
    pub(crate) present: bool,
}

/// Says what the host is, and makes its folder. `$1` is the folder, `$2` the program's hash.
const SURVEY: &str = r#"
set -e
case $1 in '~/'*) dir=$HOME/${1#'~/'} ;; *) dir=$1 ;; esac
mkdir -p -- "$dir"
cd -- "$dir"
dir=$(pwd -P)
file=$dir/bin/$2/sraft
echo "system=$(uname -s)"
echo "arch=$(uname -m)"
echo "glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null || true)"
echo "free=$(df -Pk . | sed -n '2s/^[^ ]* *[0-9]* *[0-9]* *\([0-9]*\) .*/\1/p')"
if [ -x "$file" ] && [ "$(sha256sum < "$file" | cut -d' ' -f1)" = "$2" ]; then
    echo "present=yes"
fi
echo "dir=$dir"
"#;

/// Takes the program from standard input. It appears under its name only when it is whole.
const UPLOAD: &str = r#"
set -e
umask 022
mkdir -p -- "$1/bin/$2"
# What an upload has left whose host went down in the middle of it.
find "$1/bin" -name '.sraft-*' -mmin +10 -exec rm -f -- {} + 2>/dev/null || :
file=$1/bin/$2/.sraft-$$
trap 'rm -f -- "$file"' EXIT
trap 'exit 1' HUP INT TERM PIPE
cat > "$file"
if [ "$(sha256sum < "$file" | cut -d' ' -f1)" != "$2" ]; then
    echo "what arrived is not what was sent (SHA-256 differs); try again" >&2
    exit 1
fi
chmod 755 "$file"
mv -f -- "$file" "$1/bin/$2/sraft"
"#;

impl Program {
    /// Looks at a program file.
    pub(crate) fn read(path: &Path) -> Result<Program, SshErrorKind> {
        let bytes = fs::read(path)
            .map_err(|source| SshErrorKind::Local { path: path.to_owned(), source })?;
        let (arch, libc) = needs(&bytes).ok_or_else(|| {
            SshErrorKind::Unfit(format!(
                "{} is no program for 64-bit Linux on x86_64 or aarch64; build one with {STATIC_BUILD}",
                path.display()
            ))
        })?;
        let sha256 = Sha256::digest(&bytes).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Ok(Program { path: path.to_owned(), size: bytes.len() as u64, sha256, arch, libc })
    }

    /// Asks the host what it is, and makes its folder.
    pub(crate) fn survey(&self, host: &Connection, dir: &str) -> Result<Survey, SshError> {
        let doing = format!("looking at the host and its folder {dir}");
        let said =
            host.run(&doing, SURVEY, &[dir, &self.sha256], &mut io::empty(), SURVEYED_WITHIN)?;
        Ok(Survey::parse(&said))
    }

    /// Refuses a host that the program cannot run on.
    pub(crate) fn check(&self, host: &Survey) -> Result<(), SshErrorKind> {
        self.unfit(host).map_or(Ok(()), |why| Err(SshErrorKind::Unfit(why)))
    }

    /// Why the program cannot run on a host, and what to do about it.
    fn unfit(&self, host: &Survey) -> Option<String> {
        if host.system != "Linux" {
            return Some(format!("it runs {}, but nodes need Linux", named(&host.system)));
        }
        if host.arch != self.arch {
            return Some(format!(
                "it is {}, but the program is for {}; build for it there, or take hosts of the \
                 same architecture, or name another program with --program FILE",
                named(&host.arch),
                self.arch
            ));
        }
        let has = host.glibc.trim_start_matches("glibc ").trim();
        let remedy = format!(
            "build one that runs everywhere with {STATIC_BUILD} and name it with --program FILE"
        );
        match &self.libc {
            None => {}
            Some(Libc::Other(linker)) => {
                return Some(format!(
                    "the program needs {linker}, which only its own kind of \
                                     system has; {remedy}"
                ));
            }
            Some(Libc::Glibc(needed)) => {
                let needs = format!("{}.{}", needed.0, needed.1);
                match version(has) {
                    None => {
                        return Some(format!(
                            "it has no glibc, but the program needs {needs}; {remedy}"
                        ));
                    }
                    Some(version) if version < *needed => {
                        return Some(format!(
                            "its glibc is {has}, but the program needs {needs}; {remedy}"
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        let needed = SPARE + if host.present { 0 } else { self.size };
        let free = host.free_kib? * 1024;
        (free < needed).then(|| {
            format!(
                "{} has {} MB free, but {} MB are needed; make room or name another folder (dir) \
                 in the inventory",
                host.dir,
                free >> 20,
                needed >> 20
            )
        })
    }

    /// Puts the program where it belongs if it is not there yet, makes sure that it runs, and
    /// returns its path. True if it had to be sent.
    pub(crate) fn install(
        &self,
        host: &Connection,
        survey: &Survey,
    ) -> Result<(String, bool), SshError> {
        let path = format!("{}/bin/{}/sraft", survey.dir, self.sha256);
        if survey.present {
            return Ok((path, false));
        }
        let local =
            |source| SshErrorKind::Local { path: self.path.clone(), source }.at(host.name());
        let mut file = fs::File::open(&self.path).map_err(local)?.take(self.size);
        let arguments = [survey.dir.as_str(), self.sha256.as_str()];
        host.run("uploading the program", UPLOAD, &arguments, &mut file, UPLOADED_WITHIN)?;
        let doing = "starting the uploaded program";
        let script = r#"exec "$1" --version"#;
        host.run(doing, script, &[&path], &mut io::empty(), SURVEYED_WITHIN)?;
        Ok((path, true))
    }
}

impl Survey {
    fn parse(text: &str) -> Survey {
        let mut survey = Survey::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "system" => value.clone_into(&mut survey.system),
                "arch" => value.clone_into(&mut survey.arch),
                "glibc" => value.clone_into(&mut survey.glibc),
                "free" => survey.free_kib = value.parse().ok(),
                "present" => survey.present = value == "yes",
                "dir" => value.clone_into(&mut survey.dir),
                _ => {}
            }
        }
        survey
    }
}

fn named(what: &str) -> &str {
    if what.is_empty() { "something unknown" } else { what }
}

/// `2.34` of `2.34` or `2.34.1`.
fn version(text: &str) -> Option<Version> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The architecture of a program and the libc that it needs, from its ELF headers: whether it names
/// a dynamic linker, and the versions of symbols that it asks glibc for (Linux Standard Base 5.0,
/// 10.7, symbol versioning).
fn needs(bytes: &[u8]) -> Option<(&'static str, Option<Libc>)> {
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let arch = match header.e_machine(endian) {
        EM_X86_64 => "x86_64",
        EM_AARCH64 => "aarch64",
        _ => return None,
    };
    let segments = header.program_headers(endian, bytes).ok()?;
    let linker = segments.iter().find(|segment| segment.p_type(endian) == PT_INTERP);
    let Some(linker) = linker else { return Some((arch, None)) };
    let mut newest: Option<Version> = None;
    let sections = header.sections(endian, bytes).ok()?;
    if let Some((mut files, link)) = sections.gnu_verneed(endian, bytes).ok()? {
        let strings = sections.strings(endian, bytes, link).ok()?;
        while let Some((_, mut versions)) = files.next().ok()? {
            while let Some(needed) = versions.next().ok()? {
                let name = String::from_utf8_lossy(needed.name(endian, strings).ok()?);
                let of_glibc = name.strip_prefix("GLIBC_").and_then(version);
                newest = newest.max(of_glibc);
            }
        }
    }
    let libc = newest.map_or_else(
        || {
            let name = linker.data(endian, bytes).unwrap_or_default();
            Libc::Other(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
        },
        Libc::Glibc,
    );
    Some((arch, Some(libc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(libc: Option<Libc>) -> Program {
        Program {
            path: PathBuf::from("sraft"),
            size: 50 << 20,
            sha256: String::new(),
            arch: "x86_64",
            libc,
        }
    }

    fn host(glibc: &str) -> Survey {
        let text = format!(
            "system=Linux\narch=x86_64\nglibc={glibc}\nfree=1000000\nnoise\ndir=/var/tmp/sraft\n"
        );
        Survey::parse(&text)
    }

    #[test]
    fn hosts_that_can_run_the_program_are_taken() {
        let glibc = |minor| program(Some(Libc::Glibc((2, minor))));
        assert_eq!(glibc(34).unfit(&host("glibc 2.34")), None);
        assert_eq!(glibc(9).unfit(&host("glibc 2.34")), None);
        assert_eq!(program(None).unfit(&host("")), None);
    }

    #[test]
    fn hosts_that_cannot_are_refused_with_the_remedy() {
        let glibc = program(Some(Libc::Glibc((2, 36))));
        let full = Survey { free_kib: Some(1000), ..host("glibc 2.36") };
        let arm = Survey { arch: "aarch64".into(), ..host("glibc 2.36") };
        let mac = Survey { system: "Darwin".into(), ..host("") };
        let musl = program(Some(Libc::Other("/lib/ld-musl-x86_64.so.1".into())));
        let refusals = [
            glibc.unfit(&host("glibc 2.34")),
            glibc.unfit(&host("")),
            glibc.unfit(&full),
            glibc.unfit(&arm),
            glibc.unfit(&mac),
            musl.unfit(&host("glibc 2.34")),
        ];
        let refusals: Vec<String> = refusals.into_iter().flatten().collect();
        assert_eq!(refusals.len(), 6);
        insta::assert_snapshot!(refusals.join("\n"), @r#"
        its glibc is 2.34, but the program needs 2.36; build one that runs everywhere with `cargo build --profile static --target x86_64-unknown-linux-musl` (docs/static-binary.md) and name it with --program FILE
        it has no glibc, but the program needs 2.36; build one that runs everywhere with `cargo build --profile static --target x86_64-unknown-linux-musl` (docs/static-binary.md) and name it with --program FILE
        /var/tmp/sraft has 0 MB free, but 306 MB are needed; make room or name another folder (dir) in the inventory
        it is aarch64, but the program is for x86_64; build for it there, or take hosts of the same architecture, or name another program with --program FILE
        it runs Darwin, but nodes need Linux
        the program needs /lib/ld-musl-x86_64.so.1, which only its own kind of system has; build one that runs everywhere with `cargo build --profile static --target x86_64-unknown-linux-musl` (docs/static-binary.md) and name it with --program FILE
        "#);
    }

    #[test]
    fn this_very_program_is_recognised() {
        let bytes = fs::read("/proc/self/exe").unwrap();
        let (arch, libc) = needs(&bytes).unwrap();
        assert_eq!(arch, std::env::consts::ARCH);
        if cfg!(all(target_env = "gnu", not(target_feature = "crt-static"))) {
            assert!(matches!(libc, Some(Libc::Glibc((2, 1..)))), "{libc:?}");
        }
        assert_eq!(needs(b"#!/bin/sh\n"), None);
        assert_eq!(needs(&bytes[..100]), None);
    }
}
