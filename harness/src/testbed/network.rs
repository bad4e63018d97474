//! Namespaces, links and the bridge, by way of `ip`.

use std::{
    fmt, fs,
    net::Ipv4Addr,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    host,
    processes::namespace,
    state::{Device, State},
};

/// Addresses of a testbed: a network of 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subnet([u8; 3]);

impl Subnet {
    pub(super) fn parse(text: &str) -> Result<Subnet, String> {
        let wrong = || {
            "write a private network of 256 addresses, such as 10.88.7.0/24 (RFC 1918)".to_owned()
        };
        let address: Ipv4Addr = text
            .strip_suffix(".0/24")
            .and_then(|net| format!("{net}.0").parse().ok())
            .ok_or_else(wrong)?;
        let [a, b, c, _] = address.octets();
        if address.is_private() { Ok(Subnet([a, b, c])) } else { Err(wrong()) }
    }

    fn address(self, last: u8) -> Ipv4Addr {
        let Subnet([a, b, c]) = self;
        Ipv4Addr::new(a, b, c, last)
    }

    /// The bridge, by which this machine reaches the hosts.
    fn bridge(self) -> Ipv4Addr {
        self.address(1)
    }

    pub(super) fn host(self, node: u8) -> Ipv4Addr {
        self.address(10 + node)
    }

    /// Whether an address of the network is among those that a route leads to.
    fn overlaps(self, (network, prefix): (Ipv4Addr, u32)) -> bool {
        let length = prefix.min(24);
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        self.address(0).to_bits() & mask == network.to_bits() & mask
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/24", self.address(0))
    }
}

/// The network that is wanted, or the first free one.
pub(super) fn free_subnet(wanted: Option<Subnet>) -> anyhow::Result<Subnet> {
    #[derive(Deserialize)]
    struct Route {
        dst: String,
    }
    let routes: Vec<Route> = json(&["-4", "route", "show", "table", "all"])?;
    let used: Vec<_> = routes.iter().filter_map(|route| destination(&route.dst)).collect();
    let is_free = |subnet: &Subnet| !used.iter().any(|route| subnet.overlaps(*route));
    match wanted {
        Some(subnet) if is_free(&subnet) => Ok(subnet),
        Some(subnet) => bail!(
            "this machine has a route into {subnet} already (`ip route`); give another --subnet"
        ),
        None => (0..=255).map(|nth| Subnet([10, 88, nth])).find(is_free).context(
            "this machine has routes into all of 10.88.0.0/16 (`ip route`); give a --subnet",
        ),
    }
}

/// What a route leads to; empty for the default route, which leads everywhere and takes nothing.
fn destination(text: &str) -> Option<(Ipv4Addr, u32)> {
    let (network, prefix) = text.split_once('/').unwrap_or((text, "32"));
    let prefix = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
    Some((network.parse().ok()?, prefix))
}

/// Whether anything has the names that are to be given.
pub(super) fn check_names(state: &State) -> anyhow::Result<()> {
    let taken = |what: &str, name: &str, remove: &str| {
        bail!(
            "there is a {what} `{name}` that no testbed knows of; remove it with `{remove}`, or \
               give another --name"
        )
    };
    let links = links(None)?;
    let devices = state.hosts.iter().map(|host| &host.link).chain([&state.bridge]);
    for device in devices {
        if links.iter().any(|link| link.ifname == device.name) {
            return taken("network device", &device.name, &format!("ip link del {}", device.name));
        }
    }
    for host in &state.hosts {
        if Path::new("/run/netns").join(&host.namespace).exists() {
            let remove = format!("ip netns del {}", host.namespace);
            return taken("network namespace", &host.namespace, &remove);
        }
    }
    Ok(())
}

/// Makes the bridge and returns its index.
pub(super) fn make_bridge(state: &State) -> anyhow::Result<u32> {
    let name = &state.bridge.name;
    // No IPv6: hosts have none, and it would only chatter.
    ip(&["link", "add", name, "type", "bridge", "stp_state", "0"])?;
    ip(&["link", "set", name, "addrgenmode", "none"])?;
    let address = format!("{}/24", state.subnet.bridge());
    ip(&["addr", "add", &address, "dev", name])?;
    ip(&["link", "set", name, "up"])?;
    index(name)
}

/// Makes a host's namespace and links it to the bridge.
pub(super) fn make_host(state: &mut State, at: usize) -> anyhow::Result<()> {
    let bridge = state.bridge.name.clone();
    let host = &mut state.hosts[at];
    let (namespace, link) = (host.namespace.clone(), host.link.name.clone());
    ip(&["netns", "add", &namespace])?;
    let path = Path::new("/run/netns").join(&namespace);
    let inode = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
    host.inode = Some(inode.ino());
    ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
    host.link.index = Some(index(&link)?);
    ip(&["link", "set", &link, "addrgenmode", "none"])?;
    ip(&["link", "set", &link, "master", &bridge, "up"])?;
    let inside = |args: &[&str]| ip(&[&["-n", namespace.as_str()], args].concat());
    inside(&["link", "set", "lo", "up"])?;
    inside(&["link", "set", "eth0", "addrgenmode", "none"])?;
    inside(&["addr", "add", &format!("{}/24", host.address), "dev", "eth0"])?;
    inside(&["link", "set", "eth0", "up"])
}

/// Removes links, namespaces and the bridge, those that were made and no others.
pub(super) fn remove(state: &State) -> anyhow::Result<()> {
    for host in &state.hosts {
        // The other end goes with it.
        remove_device(&host.link)?;
        if namespace(host).is_some() {
            ip(&["netns", "del", &host.namespace])?;
        }
    }
    remove_device(&state.bridge)
}

fn remove_device(device: &Device) -> anyhow::Result<()> {
    let there = links(None)?.into_iter().find(|link| link.ifname == device.name);
    match there {
        // One without an index was being made when everything stopped; the name was free before.
        Some(link) if device.index.is_none_or(|index| index == link.ifindex) => {
            ip(&["link", "del", &device.name])
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct Link {
    ifname: String,
    ifindex: u32,
}

fn links(name: Option<&str>) -> anyhow::Result<Vec<Link>> {
    let mut args = vec!["link", "show"];
    args.extend(name.iter().flat_map(|name| ["dev", name]));
    json(&args)
}

fn index(name: &str) -> anyhow::Result<u32> {
    let link = links(Some(name))?.into_iter().next();
    Ok(link.with_context(|| format!("ip does not know {name} any more"))?.ifindex)
}

/// Whether what crosses bridges is shown to the packet filter of this machine.
pub(super) fn bridges_are_filtered() -> bool {
    let setting = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    setting.is_ok_and(|setting| setting.trim() == "1")
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    output(args).map(drop)
}

fn json<T: DeserializeOwned>(args: &[&str]) -> anyhow::Result<Vec<T>> {
    let output = output(&[&["-json"], args].concat())?;
    // An empty list is printed as nothing at all by some versions.
    if output.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&output)
        .with_context(|| format!("`ip -json {}` makes no sense", args.join(" ")))
}

fn output(args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let program = host::find("ip", "iproute2 (iproute on Fedora and Amazon Linux)")?;
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.context("cannot run ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip {}` failed: {}", args.join(" "), said.trim());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_free_if_no_route_leads_into_it() {
        let subnet = Subnet::parse("10.88.7.0/24").unwrap();
        let takes = |route: &str| destination(route).is_some_and(|route| subnet.overlaps(route));
        for route in ["10.88.7.0/24", "10.0.0.0/8", "10.88.7.9", "10.88.7.128/25", "10.88.6.0/23"] {
            assert!(takes(route), "{route}");
        }
        for route in ["default", "0.0.0.0/0", "10.88.8.0/24", "10.88.8.1", "192.168.0.0/16"] {
            assert!(!takes(route), "{route}");
        }
        assert_eq!(subnet.host(3).to_string(), "10.88.7.13");
        for wrong in ["10.88.7.0", "10.88.7.1/24", "8.8.8.0/24", "10.88.0.0/16", "x.0/24"] {
            assert!(Subnet::parse(wrong).is_err(), "{wrong}");
        }
    }
}
