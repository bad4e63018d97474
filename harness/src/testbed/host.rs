//! A host's own files and its SSH server.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    net::TcpStream,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use rustix::mount::{MountFlags, mount, mount_bind};

use super::{
    processes::Process,
    state::{HostState, State},
    write_new,
};

/// Longest wait for an SSH server to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);

/// Pause between two attempts to reach it: nothing tells when a server has begun to listen.
const KNOCK_AGAIN: Duration = Duration::from_millis(20);

/// Folders of a host that stand in the place of this machine's, and their permissions.
const CORNER: [(&str, &str, u32); 4] = [
    ("ssh", "/etc/ssh", 0o755),
    ("root", "/root", 0o700),
    ("var-tmp", "/var/tmp", 0o1777),
    ("tmp", "/tmp", 0o1777),
];

/// What a testbed is made with.
#[derive(Debug)]
pub(super) struct Tools {
    sshd: PathBuf,
    ssh_keygen: PathBuf,
    unshare: PathBuf,
    ip: PathBuf,
}

impl Tools {
    pub(super) fn find() -> anyhow::Result<Tools> {
        Ok(Tools {
            ip: find("ip", "iproute2 (iproute on Fedora and Amazon Linux)")?,
            sshd: find("sshd", "openssh-server")?,
            ssh_keygen: find("ssh-keygen", "openssh-client (openssh on Fedora and Amazon Linux)")?,
            unshare: find("unshare", "util-linux")?,
        })
    }
}

/// Where a program is.
pub(super) fn find(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(usual)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "{program} is not installed; install the package {package}, with apt-get or dnf"
            )
        })
}

/// Makes a key pair and returns the public half, one line.
pub(super) fn make_key(tools: &Tools, path: &Path, comment: &str) -> anyhow::Result<String> {
    let mut command = Command::new(&tools.ssh_keygen);
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(path);
    let output = command.stdin(Stdio::null()).output().context("cannot run ssh-keygen")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot make the key {}: {}", path.display(), said.trim());
    read_public(path)
}

fn read_public(key: &Path) -> anyhow::Result<String> {
    let public = key.with_extension("pub");
    let text = fs::read_to_string(&public);
    Ok(text.with_context(|| format!("cannot read {}", public.display()))?.trim().to_owned())
}

/// Makes the folders and files of a host.
pub(super) fn lay_out(
    tools: &Tools,
    dir: &Path,
    host: &HostState,
    client: &str,
) -> anyhow::Result<()> {
    let make = |path: &Path, mode: u32| -> anyhow::Result<()> {
        let made = fs::DirBuilder::new().mode(mode).create(path);
        // Once more, because the process's umask takes bits away.
        made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("cannot make {}", path.display()))
    };
    make(dir, 0o755)?;
    for (name, _, mode) in CORNER {
        make(&dir.join(name), mode)?;
    }
    let ssh = dir.join("ssh");
    make_key(tools, &ssh.join("ssh_host_ed25519_key"), &host.name)?;
    write_new(&ssh.join("authorized_keys"), 0o644, &format!("{client}\n"))?;
    write_new(&ssh.join("sshd_config"), 0o644, &config(host))?;
    // Without PAM, a server refuses an account whose password is locked, as root's often is.
    write_new(&dir.join("shadow"), 0o600, "root:*:1::::::\n")
}

fn config(host: &HostState) -> String {
    format!(
        "ListenAddress {}\n\
         HostKey /etc/ssh/ssh_host_ed25519_key\n\
         AuthorizedKeysFile /etc/ssh/authorized_keys\n\
         PermitRootLogin prohibit-password\n\
         PasswordAuthentication no\n\
         UsePAM no\n\
         UseDNS no\n\
         PidFile none\n\
         MaxStartups 100\n\
         Subsystem sftp internal-sftp\n",
        host.address
    )
}

/// Starts the SSH server of a host, and returns its process.
pub(super) fn start(tools: &Tools, dir: &Path, host: &HostState) -> anyhow::Result<Process> {
    let log = dir.join("sshd.log");
    let log = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    // Each of these programs becomes the next, so the process stays the same.
    let mut command = Command::new(&tools.ip);
    command.args(["netns", "exec", &host.namespace]).arg(&tools.unshare).arg("--uts");
    command.arg(sraft_agent::own_executable()).args(["testbed", "host", "--dir"]).arg(dir);
    command.args(["--hostname", &host.name, "--sshd"]).arg(&tools.sshd);
    let logs = [log.try_clone().context("cannot share the log of sshd")?, log];
    let [out, err] = logs.map(Stdio::from);
    let child = command.stdin(Stdio::null()).stdout(out).stderr(err).current_dir("/").spawn();
    let child = child.with_context(|| format!("cannot start the SSH server of {}", host.name))?;
    // It is this process's child and not waited for, so its number is its own.
    Process::of(child.id()).context("cannot read /proc; is it mounted?")
}

#[derive(Args, Debug)]
pub(crate) struct HostArgs {
    /// Folder of the host's files
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Name of the host
    #[arg(long, value_name = "NAME")]
    hostname: String,
    /// The SSH server
    #[arg(long, value_name = "FILE")]
    sshd: PathBuf,
}

/// Puts the host's own files in the place of this machine's, and becomes its SSH server.
///
/// Runs in network, mount and host-name namespaces of its own: nothing of what it does is seen
/// outside.
pub(super) fn become_server(args: &HostArgs) -> anyhow::Result<ExitCode> {
    for (namespace, made_by) in
        [("mnt", "ip netns exec"), ("net", "ip netns exec"), ("uts", "unshare --uts")]
    {
        ensure!(
            !is_shared(namespace),
            "this would change the machine itself; it has to be run within `{made_by}`"
        );
    }
    // From here on by relative paths: the folder may be below one that is about to be hidden.
    std::env::set_current_dir(&args.dir)
        .with_context(|| format!("cannot enter {}", args.dir.display()))?;
    rustix::process::setsid().context("cannot begin a session")?;
    rustix::system::sethostname(args.hostname.as_bytes()).context("cannot set the host name")?;
    // An own /run also hides this machine's systemd, which would start things outside.
    mount("sraft", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755,size=16m")
        .context("cannot mount /run")?;
    fs::DirBuilder::new().mode(0o755).create("/run/sshd").context("cannot make /run/sshd")?;
    if Path::new("/etc/shadow").exists() {
        mount_bind("shadow", "/etc/shadow").context("cannot mount /etc/shadow")?;
    }
    for (name, place, _) in CORNER {
        mount_bind(name, place).with_context(|| format!("cannot mount {place}"))?;
    }
    let mut sshd = Command::new(&args.sshd);
    // In the foreground, and to standard error, which is the host's log.
    sshd.args(["-D", "-e", "-f", "/etc/ssh/sshd_config"]).current_dir("/").env_clear();
    sshd.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    Err(sshd.exec()).with_context(|| format!("cannot start {}", args.sshd.display()))
}

/// Whether this process is in the same namespace as the machine's first one.
fn is_shared(namespace: &str) -> bool {
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{namespace}")).ok();
    of("self") == of("1")
}

/// Waits until the server answers as SSH servers do.
pub(super) fn await_server(
    dir: &Path,
    host: &HostState,
    interrupted: &AtomicBool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + ANSWERS_WITHIN;
    let mut answer = Err(io::ErrorKind::NotConnected.into());
    while Instant::now() < deadline {
        ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
        if !host.server.is_some_and(|server| server.lives()) {
            break;
        }
        answer = greeting(host);
        match &answer {
            Ok(greeting) if greeting.starts_with(b"SSH-") => return Ok(()),
            Ok(_) => bail!("somebody else answers at {}:22", host.address),
            Err(_) => std::thread::sleep(KNOCK_AGAIN),
        }
    }
    let why = answer.err().map_or_else(String::new, |error: io::Error| error.to_string());
    bail!("the SSH server of {} does not answer ({why}); it said: {}", host.name, last_words(dir))
}

fn greeting(host: &HostState) -> io::Result<[u8; 4]> {
    let mut stream =
        TcpStream::connect_timeout(&(host.address, 22).into(), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting)?;
    Ok(greeting)
}

/// The end of the server's log.
fn last_words(dir: &Path) -> String {
    let mut text = String::new();
    let read = fs::File::open(dir.join("sshd.log")).and_then(|mut log| {
        let end = log.metadata()?.len();
        log.seek(SeekFrom::Start(end.saturating_sub(1024)))?;
        log.read_to_string(&mut text)
    });
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().replace('\n', " | "),
        _ => "nothing".to_owned(),
    }
}

/// The lines by which clients know the hosts (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
pub(super) fn known_hosts(state: &State) -> anyhow::Result<String> {
    let mut text = String::new();
    for (at, host) in state.hosts.iter().enumerate() {
        let public = read_public(&state.host_dir(at).join("ssh").join("ssh_host_ed25519_key"))?;
        let key: Vec<&str> = public.split_whitespace().take(2).collect();
        text.push_str(&format!("{} {}\n", host.address, key.join(" ")));
    }
    Ok(text)
}
