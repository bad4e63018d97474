use super::*;

fn parse(text: &str) -> Result<Inventory, InventoryError> {
    Inventory::parse(Path::new("lab/hosts.toml"), text)
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn hosts_take_what_they_do_not_say_from_the_defaults() {
    let inventory = parse(
        r#"
[defaults]
user = "ec2-user"
key = "keys/lab.pem"
port = 7000

[[host]]
ssh = "3.35.10.11"
addr = "10.0.1.10"

[[host]]
name = "spare"
ssh = "lab-2"
user = "ubuntu"
key = "/etc/lab.pem"
known_hosts = "known_hosts"
ssh_port = 2222
port = 7001
client_port = 8001
clock_port = 9001
dir = "~/.sraft/"
"#,
    )
    .unwrap();
    insta::assert_debug_snapshot!(inventory.hosts, @r#"
    [
        Host {
            name: "node-1",
            node: 1,
            ssh: "3.35.10.11",
            user: Some(
                "ec2-user",
            ),
            key: Some(
                "lab/keys/lab.pem",
            ),
            known_hosts: None,
            ssh_port: None,
            addr: "10.0.1.10",
            port: 7000,
            client_port: 8000,
            clock_port: 7000,
            dir: "/var/tmp/sraft",
        },
        Host {
            name: "spare",
            node: 2,
            ssh: "lab-2",
            user: Some(
                "ubuntu",
            ),
            key: Some(
                "/etc/lab.pem",
            ),
            known_hosts: Some(
                "lab/known_hosts",
            ),
            ssh_port: Some(
                2222,
            ),
            addr: "lab-2",
            port: 7001,
            client_port: 8001,
            clock_port: 9001,
            dir: "~/.sraft",
        },
    ]
    "#);
}

#[test]
fn own_home_is_expanded() {
    let home = std::env::var("HOME").expect("tests run with a home");
    let text = "[[host]]\nssh = \"a\"\nkey = \"~/.ssh/id\"\n";
    let inventory = parse(text).unwrap();
    assert_eq!(inventory.hosts[0].key, Some(Path::new(&home).join(".ssh/id")));
}

#[test]
fn wrong_inventories_are_refused_with_the_line_and_the_remedy() {
    let host = |more: &str| format!("# lab\n[[host]]\nssh = \"a\"\n{more}\n");
    let pair = |more: &str| format!("[[host]]\nssh = \"a\"\n[[host]]\n{more}\n");
    let cases = [
        String::new(),
        "[[hosts]]\n".to_owned(),
        "[[host]]\nname = \"x\"\n".to_owned(),
        host("color = 1"),
        host("port = 70000"),
        host("port = 0"),
        host("port = \"5000\""),
        host("port = 5\nclient_port = 5"),
        host("port = 65000"),
        host("name = \"a b\""),
        host("name = \"harness\""),
        host("user = \"\""),
        host("key = \"\""),
        host("key = \"~bob/key\""),
        host("dir = \"relative\""),
        host("dir = \"/\""),
        host("dir = \"/var/../etc\""),
        "[[host]]\nssh = \"me@a\"\n".to_owned(),
        "[[host]]\nssh = \"a:22\"\n".to_owned(),
        "[[host]]\nssh = \"-oProxyCommand=x\"\n".to_owned(),
        pair("ssh = \"a\""),
        pair("ssh = \"a\"\ndir = \"/srv/two\""),
        pair("ssh = \"a\"\ndir = \"/srv/two\"\nport = 5010\nclock_port = 5000"),
        pair("name = \"node-1\"\nssh = \"b\""),
        "[[host]\n".to_owned(),
    ];
    let refusals: Vec<String> = cases.iter().map(|case| refusal(case)).collect();
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    lab/hosts.toml: there is no [[host]]; add one for each node, with ssh = "its address"
    lab/hosts.toml, line 1: unknown field `hosts`, expected `defaults` or `host`
    lab/hosts.toml, line 1: host x has no ssh; write ssh = "the address that you reach it at"
    lab/hosts.toml, line 4: unknown field `color`, expected one of `name`, `ssh`, `addr`, `user`, `key`, `known_hosts`, `ssh_port`, `port`, `client_port`, `clock_port`, `dir`
    lab/hosts.toml, line 4: port is 70000; write a number from 1 to 65535
    lab/hosts.toml, line 4: port is 0; write a number from 1 to 65535
    lab/hosts.toml, line 4: invalid type: string "5000", expected a whole number
    lab/hosts.toml, line 2: host node-1: clients need a port and the one after it, both other than 5; set client_port, such as 6000
    lab/hosts.toml, line 2: host node-1: clients need a port and the one after it, both other than 65000; set client_port, such as 6000
    lab/hosts.toml, line 4: `a b` cannot be a host's name; use up to 64 letters, digits, `.`, `_` and `-`, and begin with neither a dot nor a dash
    lab/hosts.toml, line 4: `harness` is what records call this machine; take another
    lab/hosts.toml, line 4: `` is no user's name; write for example user = "ec2-user"
    lab/hosts.toml, line 4: the path is empty; write one, or remove the line
    lab/hosts.toml, line 4: `~bob/key`: only your own home is known; write ~/...
    lab/hosts.toml, line 4: dir = "relative" is no folder for sraft alone; write for example "/var/tmp/sraft" or "~/.sraft"
    lab/hosts.toml, line 4: dir = "/" is no folder for sraft alone; write for example "/var/tmp/sraft" or "~/.sraft"
    lab/hosts.toml, line 4: dir = "/var/../etc" is no folder for sraft alone; write for example "/var/tmp/sraft" or "~/.sraft"
    lab/hosts.toml, line 2: ssh = "me@a": the user goes into a line of its own, user = ...
    lab/hosts.toml, line 2: ssh = "a:22": a port goes into a line of its own, ssh_port = ... or port = ...
    lab/hosts.toml, line 2: ssh = "-oProxyCommand=x": it is neither an address nor a host's name
    lab/hosts.toml, line 3: host node-2 has the same ssh `a` and dir `/var/tmp/sraft` as node-1; give each host its own
    lab/hosts.toml, line 3: host node-2 has the same addr `a` and TCP port 5000 (its port) as node-1; give each host its own
    lab/hosts.toml, line 3: host node-2 has the same addr `a` and clock_port 5000 as node-1; give each host its own
    lab/hosts.toml, line 3: host node-1 has the same name `node-1` as node-1; give each host its own
    lab/hosts.toml, line 1: unclosed array table, expected `]`
    "#);
}

#[test]
fn several_hosts_may_share_a_machine_if_nothing_clashes() {
    let text = "[[host]]\nssh = \"a\"\n[[host]]\nssh = \"a\"\ndir = \"/srv/two\"\nport = 5010\n";
    let inventory = parse(text).unwrap();
    assert_eq!(inventory.hosts[1].node, 2);
    assert_eq!(inventory.hosts[1].clock_port, 5010);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Inventory::read(Path::new("no/such/hosts.toml")).unwrap_err().to_string();
    assert!(error.starts_with("no/such/hosts.toml: cannot read the inventory"), "{error}");
}
