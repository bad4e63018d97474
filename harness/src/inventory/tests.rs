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
    insta::assert_debug_snapshot!(inventory.hosts, @r#""#);
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
        host("name = \"a b\""),
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
        pair("ssh = \"a\"\ndir = \"/srv/two\"\nport = 5001\nclock_port = 5000"),
        pair("name = \"node-1\"\nssh = \"b\""),
        "[[host]\n".to_owned(),
    ];
    let refusals: Vec<String> = cases.iter().map(|case| refusal(case)).collect();
    insta::assert_snapshot!(refusals.join("\n"), @"");
}

#[test]
fn several_hosts_may_share_a_machine_if_nothing_clashes() {
    let text = "[[host]]\nssh = \"a\"\n[[host]]\nssh = \"a\"\ndir = \"/srv/two\"\nport = 5001\n";
    let inventory = parse(text).unwrap();
    assert_eq!(inventory.hosts[1].node, 2);
    assert_eq!(inventory.hosts[1].clock_port, 5001);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Inventory::read(Path::new("no/such/hosts.toml")).unwrap_err().to_string();
    assert!(error.starts_with("no/such/hosts.toml: cannot read the inventory"), "{error}");
}
