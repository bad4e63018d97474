//! `sraft testbed`: a rehearsal of real hosts on this machine.
//!
//! Each host is a network namespace on a bridge, with an address, a host name, an SSH server with a
//! host key of its own, and own folders in the place of those that programs write to. The harness
//! reaches it as it would an instance in a cloud. There is no way from there to any other network,
//! and nothing of this machine's packet filter or kernel settings is changed.
//!
//! What is made is written down before it is made ([`state`]), and `down` removes that and nothing
//! else, also after a crash or a reboot.

mod host;
mod network;
mod processes;
mod state;

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    io::Write as _,
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use network::Subnet;
use state::{HostState, State, Store};

#[derive(Debug, Subcommand)]
pub(crate) enum TestbedCommand {
    /// Make hosts and write an inventory of them; its path is the last line
    Up(UpArgs),
    /// Run a command on a host
    Exec(ExecArgs),
    /// Say what there is
    Status(NameArgs),
    /// Remove the hosts and everything on them
    Down(NameArgs),
    /// Turn this process into the SSH server of a host
    #[command(hide = true)]
    Host(host::HostArgs),
}

#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// How many hosts
    #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..=99))]
    hosts: u8,
    /// Folder for the inventory, the keys and the hosts' files; made, and removed by `down`
    /// [default: /var/lib/sraft/testbed/NAME]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Name of the testbed, so that there can be several
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME, value_parser = name)]
    name: String,
    /// Addresses of the hosts, such as 10.88.7.0/24 [default: the first of 10.88.0.0/24 to
    /// 10.88.255.0/24 that nothing on this machine uses]
    #[arg(long, value_name = "CIDR", value_parser = Subnet::parse)]
    subnet: Option<Subnet>,
}

#[derive(Args, Debug)]
pub(crate) struct NameArgs {
    /// Name of the testbed
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME, value_parser = name)]
    name: String,
}

#[derive(Args, Debug)]
pub(crate) struct ExecArgs {
    /// The host: its number, from 1, or its name
    #[arg(value_name = "NODE")]
    node: String,
    /// Name of the testbed
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME, value_parser = name)]
    name: String,
    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, last = true)]
    command: Vec<OsString>,
}

const DEFAULT_NAME: &str = "testbed";

/// The inventory's file.
const INVENTORY: &str = "inventory.toml";

/// Network devices have 15 letters at most, and the host's number must have room.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    match (1..=8).contains(&text.len()) && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("use up to 8 small letters and digits".to_owned()),
    }
}

/// `sraft testbed`.
pub(crate) fn run(command: &TestbedCommand) -> anyhow::Result<ExitCode> {
    if let TestbedCommand::Host(args) = command {
        return host::become_server(args);
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "a testbed is made of network namespaces, which only root can make; run `sudo sraft \
         testbed ...`"
    );
    match command {
        TestbedCommand::Up(args) => up(args),
        TestbedCommand::Exec(args) => exec(args),
        TestbedCommand::Status(args) => status(args),
        TestbedCommand::Down(args) => down(args),
        TestbedCommand::Host(_) => unreachable!("handled above"),
    }
}

fn up(args: &UpArgs) -> anyhow::Result<ExitCode> {
    // 1. Everything is checked before anything is made.
    let tools = host::Tools::find()?;
    let store = Store::lock(&args.name)?;
    if let Some(state) = store.read()? {
        bail!(
            "there is a testbed `{0}` already, with {1} hosts, in {2}; remove it with `sraft testbed \
             down --name {0}`, or give another --name",
            args.name,
            state.hosts.len(),
            state.dir.display()
        );
    }
    let dir = args.dir.clone().unwrap_or_else(|| store.default_dir());
    let dir = std::path::absolute(&dir).context("cannot tell where the testbed's files go")?;
    ensure!(
        fs::symlink_metadata(&dir).is_err(),
        "{} is there already, and `down` removes the whole folder; name one that does not exist",
        dir.display()
    );
    let subnet = network::free_subnet(args.subnet)?;
    let state = State::plan(&args.name, dir, subnet, args.hosts)?;
    network::check_names(&state)?;

    // 2. It is written down and made, or removed again.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, interrupted.clone())
            .context("cannot watch for signals")?;
    }
    let mut up = Up { store: &store, state, tools: &tools, interrupted: &interrupted };
    if let Err(error) = up.make() {
        let state = up.state;
        return Err(match remove(&store, &state) {
            Ok(()) => error.context("the testbed was not made, and nothing of it is left"),
            Err(and) => error.context(format!(
                "the testbed was not made, and not all of it could be removed ({}); `sraft testbed \
                 down --name {}` tries again",
                sraft_node::one_line(&and),
                args.name
            )),
        });
    }
    let state = up.state;
    let mut text = String::new();
    for host in &state.hosts {
        let _ = writeln!(text, "{}  {}", host.name, host.address);
    }
    if network::bridges_are_filtered() {
        text.push_str(
            "note: this machine's packet filter sees traffic on bridges (net.bridge.bridge-nf-call-\
             iptables = 1); if hosts cannot reach one another, its FORWARD chain drops it\n",
        );
    }
    let _ = writeln!(text, "{}", state.dir.join(INVENTORY).display());
    crate::say(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A testbed that is being made.
struct Up<'a> {
    store: &'a Store,
    state: State,
    tools: &'a host::Tools,
    interrupted: &'a AtomicBool,
}

impl Up<'_> {
    fn make(&mut self) -> anyhow::Result<()> {
        self.note()?;
        // Others need to look into it: the inventory is for who runs experiments.
        let mut folder = fs::DirBuilder::new();
        let made = folder.recursive(true).mode(0o755).create(&self.state.dir);
        made.with_context(|| format!("cannot make {}", self.state.dir.display()))?;
        self.write(state::MARKER, 0o644, &self.state.id)?;
        let client = host::make_key(self.tools, &self.state.dir.join("key"), &self.state.name)?;
        self.state.bridge.index = Some(network::make_bridge(&self.state)?);
        self.note()?;
        for at in 0..self.state.hosts.len() {
            network::make_host(&mut self.state, at)?;
            self.note()?;
            let (dir, host) = (self.state.host_dir(at), &self.state.hosts[at]);
            host::lay_out(self.tools, &dir, host, &client)?;
        }
        for at in 0..self.state.hosts.len() {
            let dir = self.state.host_dir(at);
            let server = host::start(self.tools, &dir, &self.state.hosts[at])?;
            self.state.hosts[at].server = Some(server);
            self.note()?;
        }
        for at in 0..self.state.hosts.len() {
            host::await_server(&self.state.host_dir(at), &self.state.hosts[at], self.interrupted)?;
        }
        self.write("known_hosts", 0o644, &host::known_hosts(&self.state)?)?;
        self.write(INVENTORY, 0o644, &inventory(&self.state)?)
    }

    /// Writes down how far it is, so that `down` knows what there is.
    fn note(&self) -> anyhow::Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        self.store.write(&self.state)
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> anyhow::Result<()> {
        write_new(&self.state.dir.join(name), mode, text)
    }
}

/// Writes a file that was not there.
fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The inventory as other commands read it.
fn inventory(state: &State) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Inventory<'a> {
        defaults: Defaults,
        host: Vec<Host<'a>>,
    }
    #[derive(Serialize)]
    struct Defaults {
        user: &'static str,
        key: PathBuf,
        known_hosts: PathBuf,
    }
    #[derive(Serialize)]
    struct Host<'a> {
        name: &'a str,
        ssh: Ipv4Addr,
        addr: Ipv4Addr,
    }
    fn host(of: &HostState) -> Host<'_> {
        Host { name: &of.name, ssh: of.address, addr: of.address }
    }
    let inventory = Inventory {
        defaults: Defaults {
            user: "root",
            key: state.dir.join("key"),
            known_hosts: state.dir.join("known_hosts"),
        },
        host: state.hosts.iter().map(host).collect(),
    };
    let text = toml::to_string(&inventory).context("cannot write the inventory")?;
    Ok(format!("# Written by `sraft testbed up`; `sraft testbed down` removes it.\n{text}"))
}

fn exec(args: &ExecArgs) -> anyhow::Result<ExitCode> {
    let state = Store::look(&args.name)?;
    let named = |host: &&HostState| host.name == args.node || host.node.to_string() == args.node;
    let host = state.hosts.iter().find(named).with_context(|| {
        format!("there is no host `{}`; there are 1 to {}", args.node, state.hosts.len())
    })?;
    let server = host.server.filter(processes::Process::lives).with_context(|| {
        format!(
            "the SSH server of {} does not run; make the testbed anew: `sraft testbed down --name \
             {}`, then up",
            host.name, args.name
        )
    })?;
    let nsenter = host::find("nsenter", "util-linux")?;
    let mut command = Command::new(nsenter);
    command.args(["--mount", "--net", "--uts", "--target", &server.pid.to_string(), "--"]);
    command.args(&args.command).env("HOME", "/root");
    let status = command.status().context("cannot run nsenter")?;
    Ok(exit_code(status))
}

/// The exit code of a command, as a shell would report it.
fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn status(args: &NameArgs) -> anyhow::Result<ExitCode> {
    let state = Store::look(&args.name)?;
    let mut text = format!("testbed {} in {}\n", state.name, state.dir.display());
    if !state.is_of_this_boot() {
        text.push_str(
            "this machine has been restarted since: nothing of it runs any more; take it down\n",
        );
    }
    let mut well = state.is_of_this_boot();
    for host in &state.hosts {
        let up = host.server.is_some_and(|server| server.lives());
        well &= up;
        let processes = processes::inside(host).len();
        let _ = writeln!(
            text,
            "{}  {}  {}  {processes} processes",
            host.name,
            host.address,
            if up { "up" } else { "down" }
        );
    }
    let _ = writeln!(text, "{}", state.dir.join(INVENTORY).display());
    crate::say(&text)?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn down(args: &NameArgs) -> anyhow::Result<ExitCode> {
    let store = Store::lock(&args.name)?;
    let Some(state) = store.read()? else {
        crate::say(&format!("there is no testbed `{}`\n", args.name))?;
        return Ok(ExitCode::SUCCESS);
    };
    remove(&store, &state)?;
    crate::say(&format!("testbed {} is gone\n", args.name))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes what the state says, in an order that leaves nothing running without its surroundings.
/// What is there no more is no error, so that it can be tried again.
fn remove(store: &Store, state: &State) -> anyhow::Result<()> {
    if state.is_of_this_boot() {
        processes::end_all(&state.hosts)?;
        network::remove(state)?;
    }
    state.remove_dir()?;
    store.forget()
}
