//! `sraft ec2`: instances to experiment on, made, listed and removed through Amazon's own `aws`
//! program, so that credentials stay where their owner keeps them.
//!
//! Everything that is made carries the tag `sraft` with the cluster's name as its value, and only
//! what carries it is ever removed.

mod aws;
#[cfg(test)]
mod tests;

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use aws::{Aws, Command};

/// The tag that everything carries which this program has made.
const TAG: &str = "sraft";

/// Ports that the instances of a group open to one another, and to nobody else: peers (5000),
/// clients and admin beside them, and the agents' clocks (UDP).
const PORTS: (u16, u16) = (5000, 7999);

/// Most instances of one call: a slip of the finger should not cost a fortune.
const MOST: u32 = 25;

#[derive(Debug, Subcommand)]
pub(crate) enum Ec2Command {
    /// Make instances and a security group, and write an inventory of them
    Up(Box<UpArgs>),
    /// List the instances that this program has made: they cost money as long as they run
    List(ListArgs),
    /// Terminate the instances of a cluster and remove its security group
    Down(DownArgs),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct UpArgs {
    /// Name of the cluster; what is made carries it as the tag `sraft`
    #[arg(long, value_name = "NAME", default_value = "sraft", value_parser = name)]
    name: String,
    /// Name of the key pair in EC2
    #[arg(long, value_name = "KEY-PAIR")]
    key_name: String,
    /// File with its private key, as it goes into the inventory
    #[arg(long, value_name = "FILE")]
    key: String,
    /// Address that may log in, such as 203.0.113.7/32; `curl https://checkip.amazonaws.com` tells
    /// yours
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    ssh_from: String,
    /// Number of instances
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    count: u32,
    /// Type of the instances
    #[arg(long = "type", value_name = "TYPE", default_value = "t3.small")]
    instance_type: String,
    /// amazon-linux-2023, ubuntu-22.04 or the id of an image (ami-...; then name its user as well)
    #[arg(long, value_name = "IMAGE", default_value = "amazon-linux-2023")]
    image: String,
    /// User of the image [default: that of the named images]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Availability zones, dealt out in turn [default: one zone, of Amazon's choice]
    #[arg(long, value_name = "ZONE,...", value_delimiter = ',')]
    zones: Vec<String>,
    /// Spot instances: cheaper, and Amazon may take one away in the middle of a trial
    #[arg(long)]
    spot: bool,
    /// Region [default: that of the `aws` program's configuration]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Inventory to write
    #[arg(long, value_name = "FILE", default_value = "inventory.toml")]
    inventory: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ListArgs {
    /// Only this cluster
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Region [default: that of the `aws` program's configuration]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DownArgs {
    /// Name of the cluster
    #[arg(long, value_name = "NAME", default_value = "sraft", value_parser = name)]
    name: String,
    /// Region [default: that of the `aws` program's configuration]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match (1..=64).contains(&text.len()) && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("use up to 64 letters, digits and `-`".to_owned()),
    }
}

fn cidr(text: &str) -> Result<String, String> {
    let wrong = || "write an IPv4 address and a prefix, such as 203.0.113.7/32".to_owned();
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let address: std::net::Ipv4Addr = address.parse().map_err(|_| wrong())?;
    let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(wrong)?;
    if prefix == 0 {
        return Err("that lets the whole world try to log in; give your own address".to_owned());
    }
    Ok(format!("{address}/{prefix}"))
}

/// `sraft ec2`.
pub(crate) fn run(command: &Ec2Command) -> anyhow::Result<ExitCode> {
    let text = match command {
        Ec2Command::Up(args) => up(&Command::find(args.region.clone())?, args)?,
        Ec2Command::List(args) => {
            let instances = instances(&Command::find(args.region.clone())?, args.name.as_deref())?;
            table(&instances)
        }
        Ec2Command::Down(args) => down(&Command::find(args.region.clone())?, args, ask)?,
    };
    crate::say(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// An instance, as `describe-instances` tells of it.
#[derive(Clone, Debug, Default)]
struct Instance {
    id: String,
    cluster: String,
    state: String,
    kind: String,
    zone: String,
    public: String,
    private: String,
    launched: String,
}

/// The image to start from and the user to log in as.
fn image(aws: &dyn Aws, args: &UpArgs) -> anyhow::Result<(String, String)> {
    let described =
        aws.call(&["ec2", "describe-instance-types", "--instance-types", &args.instance_type])?;
    let arch = described
        .pointer("/InstanceTypes/0/ProcessorInfo/SupportedArchitectures")
        .and_then(Value::as_array)
        .and_then(|all| all.iter().filter_map(Value::as_str).find(|arch| *arch != "i386"))
        .with_context(|| format!("EC2 does not tell the architecture of {}", args.instance_type))?;
    let (parameter, user) = match args.image.as_str() {
        "amazon-linux-2023" => (
            format!("/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{arch}"),
            "ec2-user",
        ),
        "ubuntu-22.04" => {
            let arch = if arch == "x86_64" { "amd64" } else { arch };
            let path = "/aws/service/canonical/ubuntu/server/22.04/stable/current";
            (format!("{path}/{arch}/hvm/ebs-gp2/ami-id"), "ubuntu")
        }
        ami if ami.starts_with("ami-") => {
            let user = args.user.clone().with_context(|| {
                format!("the user of image {ami} is not known; name it with --user")
            })?;
            return Ok((ami.to_owned(), user));
        }
        other => bail!(
            "there is no image `{other}`; write amazon-linux-2023, ubuntu-22.04 or the id of an \
             image (ami-...)"
        ),
    };
    let answer = aws.call(&["ssm", "get-parameter", "--name", &parameter])?;
    let ami = text(&answer, "/Parameter/Value");
    ensure!(ami.starts_with("ami-"), "EC2 names no image under {parameter}");
    Ok((ami, args.user.clone().unwrap_or_else(|| user.to_owned())))
}

fn up(aws: &dyn Aws, args: &UpArgs) -> anyhow::Result<String> {
    // 1. What can be refused is refused before anything costs money.
    ensure!(
        !args.inventory.exists(),
        "{} exists already; name another file with --inventory",
        args.inventory.display()
    );
    aws.call(&["sts", "get-caller-identity"])
        .context("aws has no valid credentials here; run `aws configure`")?;
    let there = instances(aws, Some(&args.name))?;
    if !there.is_empty() {
        bail!(
            "there are {} instances of a cluster `{1}` already; `sraft ec2 list` shows them, \
             `sraft ec2 down --name {1}` removes them, --name gives this cluster another name",
            there.len(),
            args.name
        );
    }
    aws.call(&["ec2", "describe-key-pairs", "--key-names", &args.key_name])?;
    let (image, user) = image(aws, args)?;

    // 2. From here on things are made; whatever goes wrong, `down` removes them.
    let made = make(aws, args, &image).with_context(|| {
        format!("`sraft ec2 down --name {}` removes what was made before this", args.name)
    })?;

    // 3. The inventory.
    write_inventory(&args.inventory, args, &user, &made)?;
    let file = args.inventory.display();
    Ok(format!(
        "{}\nThey cost money until `sraft ec2 down --name {}`.\nNext: sraft doctor --inventory \
         {file} --host-keys accept-new\n{file}\n",
        table(&made),
        args.name
    ))
}

/// Makes the security group and the instances, and waits until they can be logged in to.
fn make(aws: &dyn Aws, args: &UpArgs, image: &str) -> anyhow::Result<Vec<Instance>> {
    let tags = |kind: &str| {
        format!(
            "ResourceType={kind},Tags=[{{Key={TAG},Value={0}}},{{Key=Name,Value=sraft-{0}}}]",
            args.name
        )
    };
    let group = match group(aws, &args.name)? {
        Some(group) => group,
        None => {
            let answer = aws.call(&[
                "ec2",
                "create-security-group",
                "--group-name",
                &format!("sraft-{}", args.name),
                "--description",
                "Nodes of an sraft cluster",
                "--tag-specifications",
                &tags("security-group"),
            ])?;
            text(&answer, "/GroupId")
        }
    };
    for rule in rules(&group, &args.ssh_from) {
        let call = ["ec2", "authorize-security-group-ingress", "--group-id", &group];
        let given = aws.call(&[&call[..], &["--ip-permissions", &rule]].concat());
        match given {
            Err(error) if format!("{error:#}").contains("InvalidPermission.Duplicate") => {}
            other => drop(other?),
        }
    }

    let zones: Vec<Option<&str>> = match args.zones.as_slice() {
        [] => vec![None],
        zones => zones.iter().map(|zone| Some(zone.as_str())).collect(),
    };
    let mut ids = Vec::new();
    for (index, zone) in zones.iter().enumerate() {
        let count = (0..args.count as usize).filter(|nth| nth % zones.len() == index).count();
        if count == 0 {
            continue;
        }
        let (count, instances, volumes) = (count.to_string(), tags("instance"), tags("volume"));
        let mut call = vec![
            "ec2",
            "run-instances",
            "--image-id",
            image,
            "--instance-type",
            &args.instance_type,
            "--key-name",
            &args.key_name,
            "--security-group-ids",
            &group,
            "--count",
            &count,
            "--metadata-options",
            "HttpTokens=required",
            "--tag-specifications",
            &instances,
            &volumes,
        ];
        let placement = zone.map(|zone| format!("AvailabilityZone={zone}"));
        if let Some(placement) = &placement {
            call.extend(["--placement", placement]);
        }
        if args.spot {
            call.extend(["--instance-market-options", "MarketType=spot"]);
        }
        let answer = aws.call(&call)?;
        let run = answer.pointer("/Instances").and_then(Value::as_array);
        ids.extend(run.into_iter().flatten().map(|instance| text(instance, "/InstanceId")));
    }
    ensure!(!ids.is_empty(), "EC2 has started no instance");
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    aws.call(&[&["ec2", "wait", "instance-status-ok", "--instance-ids"], &ids[..]].concat())?;
    let mut made = instances(aws, Some(&args.name))?;
    // Dealt out by zone, so that neighbours in the list are in different zones.
    made.sort_by(|a, b| (&a.zone, &a.id).cmp(&(&b.zone, &b.id)));
    let mut dealt = Vec::new();
    let mut left = made;
    while !left.is_empty() {
        let mut seen: Vec<String> = Vec::new();
        let (round, rest) = left.into_iter().partition::<Vec<Instance>, _>(|instance| {
            let new = !seen.contains(&instance.zone);
            seen.push(instance.zone.clone());
            new
        });
        dealt.extend(round);
        left = rest;
    }
    if let Some(hidden) = dealt.iter().find(|made| made.public.is_empty()) {
        bail!(
            "instance {} has no public address: its subnet gives none; switch \"auto-assign public \
             IPv4\" on for the default subnet of {}",
            hidden.id,
            hidden.zone
        );
    }
    Ok(dealt)
}

/// The rules of the security group: SSH from one address, the rest only within the group.
fn rules(group: &str, ssh_from: &str) -> [String; 4] {
    let (first, last) = PORTS;
    let within = |protocol: &str, ports: &str| {
        format!("IpProtocol={protocol},{ports},UserIdGroupPairs=[{{GroupId={group}}}]")
    };
    [
        format!("IpProtocol=tcp,FromPort=22,ToPort=22,IpRanges=[{{CidrIp={ssh_from}}}]"),
        within("tcp", &format!("FromPort={first},ToPort={last}")),
        within("udp", &format!("FromPort={first},ToPort={last}")),
        within("icmp", "FromPort=-1,ToPort=-1"),
    ]
}

/// The cluster's security group, if there is one.
fn group(aws: &dyn Aws, name: &str) -> anyhow::Result<Option<String>> {
    let filter = format!("Name=tag:{TAG},Values={name}");
    let answer = aws.call(&["ec2", "describe-security-groups", "--filters", &filter])?;
    let id = text(&answer, "/SecurityGroups/0/GroupId");
    Ok(Some(id).filter(|id| !id.is_empty()))
}

/// The instances that carry the tag, except those that are gone.
fn instances(aws: &dyn Aws, name: Option<&str>) -> anyhow::Result<Vec<Instance>> {
    let tag = match name {
        Some(name) => format!("Name=tag:{TAG},Values={name}"),
        None => format!("Name=tag-key,Values={TAG}"),
    };
    let states = "Name=instance-state-name,Values=pending,running,stopping,stopped";
    let answer = aws.call(&["ec2", "describe-instances", "--filters", &tag, states])?;
    let reservations = answer.pointer("/Reservations").and_then(Value::as_array);
    let all = reservations.into_iter().flatten();
    let all = all.filter_map(|reservation| reservation.pointer("/Instances")?.as_array()).flatten();
    let mut instances: Vec<Instance> = all
        .map(|instance| {
            let tags = instance.pointer("/Tags").and_then(Value::as_array);
            let tag = tags.into_iter().flatten().find(|tag| text(tag, "/Key") == TAG);
            Instance {
                id: text(instance, "/InstanceId"),
                cluster: tag.map(|tag| text(tag, "/Value")).unwrap_or_default(),
                state: text(instance, "/State/Name"),
                kind: text(instance, "/InstanceType"),
                zone: text(instance, "/Placement/AvailabilityZone"),
                public: text(instance, "/PublicIpAddress"),
                private: text(instance, "/PrivateIpAddress"),
                launched: text(instance, "/LaunchTime"),
            }
        })
        .collect();
    instances.sort_by(|a, b| (&a.cluster, &a.id).cmp(&(&b.cluster, &b.id)));
    Ok(instances)
}

fn text(value: &Value, at: &str) -> String {
    value.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn table(instances: &[Instance]) -> String {
    if instances.is_empty() {
        return "no instances\n".to_owned();
    }
    let mut rows =
        vec![["cluster", "instance", "state", "type", "zone", "public", "private", "since"]];
    rows.extend(instances.iter().map(|i| {
        [&i.cluster, &i.id, &i.state, &i.kind, &i.zone, &i.public, &i.private, &i.launched]
            .map(String::as_str)
    }));
    let widths: Vec<usize> =
        (0..8).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

/// The inventory as it is written.
#[derive(Serialize)]
struct Written<'a> {
    defaults: Defaults<'a>,
    host: Vec<WrittenHost<'a>>,
}

#[derive(Serialize)]
struct Defaults<'a> {
    user: &'a str,
    key: &'a str,
}

#[derive(Serialize)]
struct WrittenHost<'a> {
    name: String,
    ssh: &'a str,
    addr: &'a str,
}

fn write_inventory(
    path: &Path,
    args: &UpArgs,
    user: &str,
    instances: &[Instance],
) -> anyhow::Result<()> {
    let host =
        |(nth, instance): (usize, &'_ Instance)| (format!("node-{}", nth + 1), instance.clone());
    let hosts: Vec<(String, Instance)> = instances.iter().enumerate().map(host).collect();
    let written = Written {
        defaults: Defaults { user, key: &args.key },
        host: hosts
            .iter()
            .map(|(name, i)| WrittenHost { name: name.clone(), ssh: &i.public, addr: &i.private })
            .collect(),
    };
    let text = format!(
        "# Instances of the EC2 cluster `{0}`; `sraft ec2 down --name {0}` removes them.\n{1}",
        args.name,
        toml::to_string(&written)?
    );
    let failed = || {
        format!(
            "cannot write {}; the instances run all the same: write the inventory by hand from \
             `sraft ec2 list`, or remove them with `sraft ec2 down --name {}`",
            path.display(),
            args.name
        )
    };
    let mut file = File::create_new(path).with_context(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(failed)
}

fn down(
    aws: &dyn Aws,
    args: &DownArgs,
    ask: impl Fn(&str) -> anyhow::Result<bool>,
) -> anyhow::Result<String> {
    let instances = instances(aws, Some(&args.name))?;
    let group = group(aws, &args.name)?;
    if instances.is_empty() && group.is_none() {
        return Ok(format!("there is nothing of a cluster `{}`\n", args.name));
    }
    let question = format!(
        "{}Terminate {} instances of `{}` and lose what is on them?",
        table(&instances),
        instances.len(),
        args.name
    );
    if !args.yes && !instances.is_empty() && !ask(&question)? {
        bail!("nothing was removed");
    }
    if !instances.is_empty() {
        let ids: Vec<&str> = instances.iter().map(|instance| instance.id.as_str()).collect();
        aws.call(&[&["ec2", "terminate-instances", "--instance-ids"], &ids[..]].concat())?;
        // The group cannot go before the last instance in it.
        aws.call(&[&["ec2", "wait", "instance-terminated", "--instance-ids"], &ids[..]].concat())?;
    }
    if let Some(group) = &group {
        aws.call(&["ec2", "delete-security-group", "--group-id", group])?;
    }
    let group = if group.is_some() { " and the security group" } else { "" };
    Ok(format!("{} instances{group} of `{}` are gone\n", instances.len(), args.name))
}

/// Asks whoever sits at the terminal.
fn ask(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("there is nobody to ask; say --yes if the instances are to be terminated");
    }
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ").and_then(|()| err.flush())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
