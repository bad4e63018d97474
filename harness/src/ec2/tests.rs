use std::cell::{Cell, RefCell};

use clap::Parser;
use serde_json::json;

use super::*;

/// An account that answers as EC2 does and remembers what it was asked.
#[derive(Default)]
struct Account {
    calls: RefCell<Vec<String>>,
    running: Cell<bool>,
    group: Cell<bool>,
    fails: Option<&'static str>,
}

impl Aws for Account {
    fn call(&self, args: &[&str]) -> anyhow::Result<Value> {
        self.calls.borrow_mut().push(args.join(" "));
        if self.fails == Some(args[1]) {
            bail!("`aws {} {}` failed: no", args[0], args[1]);
        }
        let instance = |n: u32, zone: &str| {
            json!({
                "InstanceId": format!("i-{n}"), "State": { "Name": "running" },
                "InstanceType": "t3.small", "Placement": { "AvailabilityZone": zone },
                "PublicIpAddress": format!("203.0.113.{n}"), "PrivateIpAddress": format!("10.0.0.{n}"),
                "LaunchTime": "2026-01-01T00:00:00Z", "Tags": [{ "Key": "sraft", "Value": "lab" }],
            })
        };
        Ok(match args[1] {
            "describe-instance-types" => {
                json!({ "InstanceTypes": [{ "ProcessorInfo": { "SupportedArchitectures": ["i386", "x86_64"] } }] })
            }
            "get-parameter" => json!({ "Parameter": { "Value": "ami-1" } }),
            "describe-security-groups" if self.group.get() => {
                json!({ "SecurityGroups": [{ "GroupId": "sg-1" }] })
            }
            "describe-security-groups" => json!({ "SecurityGroups": [] }),
            "create-security-group" => {
                self.group.set(true);
                json!({ "GroupId": "sg-1" })
            }
            "run-instances" => {
                self.running.set(true);
                json!({ "Instances": [{ "InstanceId": "i-1" }] })
            }
            "describe-instances" if self.running.get() => json!({ "Reservations": [
                { "Instances": [instance(1, "a"), instance(2, "a")] },
                { "Instances": [instance(3, "b")] },
            ] }),
            _ => Value::Null,
        })
    }
}

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Ec2Command,
}

fn up_args(more: &[&str], inventory: &Path) -> UpArgs {
    let inventory = inventory.to_str().unwrap();
    let line = ["ec2", "up", "--name", "lab", "--key-name", "k", "--key", "~/.ssh/k.pem"];
    let rest = ["--ssh-from", "203.0.113.7/32", "--count", "3", "--inventory", inventory];
    match Line::try_parse_from([&line[..], &rest[..], more].concat()).unwrap().command {
        Ec2Command::Up(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn up_makes_a_group_and_instances_and_writes_an_inventory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inventory.toml");
    let account = Account::default();
    up(&account, &up_args(&["--zones", "a,b", "--spot"], &path)).unwrap();
    insta::assert_snapshot!(account.calls.borrow().join("\n"));
    insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap());
}

#[test]
fn up_refuses_before_it_makes_anything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inventory.toml");
    let refused = |account: &Account, more: &[&str], path: &Path| {
        let error = up(account, &up_args(more, path)).unwrap_err();
        let made = account.calls.borrow().iter().any(|call| call.contains("create-security-group"));
        assert!(!made);
        format!("{error:#}")
    };
    insta::assert_snapshot!(refused(&Account::default(), &["--image", "windows"], &path), @"there is no image `windows`; write amazon-linux-2023, ubuntu-22.04 or the id of an image (ami-...)");
    insta::assert_snapshot!(refused(&Account::default(), &["--image", "ami-7"], &path), @"the user of image ami-7 is not known; name it with --user");
    let account = Account { running: Cell::new(true), ..Account::default() };
    insta::assert_snapshot!(refused(&account, &[], &path), @"there are 3 instances of a cluster `lab` already; `sraft ec2 list` shows them, `sraft ec2 down --name lab` removes them, --name gives this cluster another name");
    let account = Account { fails: Some("get-caller-identity"), ..Account::default() };
    insta::assert_snapshot!(refused(&account, &[], &path), @"aws has no valid credentials here; run `aws configure`: `aws sts get-caller-identity` failed: no");
    std::fs::write(&path, "").unwrap();
    let said = refused(&Account::default(), &[], &path);
    assert!(said.ends_with("exists already; name another file with --inventory"), "{said}");
}

#[test]
fn up_that_fails_half_way_says_how_to_clean_up() {
    let dir = tempfile::tempdir().unwrap();
    let account = Account { fails: Some("run-instances"), ..Account::default() };
    let error = up(&account, &up_args(&[], &dir.path().join("i.toml"))).unwrap_err();
    insta::assert_snapshot!(format!("{error:#}"), @"`sraft ec2 down --name lab` removes what was made before this: `aws ec2 run-instances` failed: no");
}

#[test]
fn down_asks_then_removes_what_carries_the_name() {
    let account =
        Account { running: Cell::new(true), group: Cell::new(true), ..Account::default() };
    let args = DownArgs { name: "lab".to_owned(), region: None, yes: false };
    assert!(down(&account, &args, |_| Ok(false)).is_err());
    assert!(!account.calls.borrow().iter().any(|call| call.contains("terminate")));
    let said = down(&account, &args, |_| Ok(true)).unwrap();
    insta::assert_snapshot!(said, @"3 instances and the security group of `lab` are gone");
    let calls = account.calls.borrow();
    insta::assert_snapshot!(calls[calls.len() - 3..].join("\n"), @r"
    ec2 terminate-instances --instance-ids i-1 i-2 i-3
    ec2 wait instance-terminated --instance-ids i-1 i-2 i-3
    ec2 delete-security-group --group-id sg-1
    ");
}

#[test]
fn wrong_options_are_refused() {
    for wrong in ["203.0.113.7", "0.0.0.0/0", "203.0.113.7/33", "host/24"] {
        assert!(cidr(wrong).is_err(), "{wrong}");
    }
    assert!(name("a b").is_err() && name("").is_err() && name("a,b").is_err());
}
