use sraft_core::Preset;

use super::*;

fn args(peers: &str) -> NodeArgs {
    NodeArgs { peers: Some(peers.to_owned()), ..NodeArgs::default() }
}

fn config(dir: &tempfile::TempDir, text: &str) -> NodeArgs {
    let path = dir.path().join("node.toml");
    std::fs::write(&path, text).unwrap();
    NodeArgs { config: Some(path), ..NodeArgs::default() }
}

const FIVE: &str = "127.0.0.1:5001,127.0.0.1:5002,127.0.0.1:5003,127.0.0.1:5004,127.0.0.1:5005";

#[test]
fn options_stand_above_the_file_and_the_environment_above_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(
        &dir,
        "cluster = 'file'\nnode_id = 1\nclient_port = 2379\n\
         peers = ['127.0.0.1:5001', '127.0.0.1:5002', '127.0.0.1:5003']\n\
         [timing]\npreset = 'lan'\nheartbeat = '9ms'\n",
    );
    let of_file = Settings::resolve(file.clone(), &Environment::default()).unwrap();
    assert_eq!((of_file.core.id, of_file.cluster.as_str()), (1, "file"));
    assert_eq!(of_file.core.heartbeat.as_millis(), 9);
    assert_eq!(of_file.core.members, [1, 2, 3]);
    let clients = of_file.clients.unwrap();
    assert_eq!(clients.client.to_string(), "127.0.0.1:2379");
    assert_eq!(clients.admin.to_string(), "127.0.0.1:2380");
    assert_eq!(of_file.listen.to_string(), "127.0.0.1:5001");

    let flags = NodeArgs {
        cluster: Some("flag".to_owned()),
        node_id: Some(2),
        client_port: Some(4000),
        admin_port: Some(3999),
        preset: Some(Preset::Reference),
        ..file
    };
    let of_flags = Settings::resolve(flags.clone(), &Environment::default()).unwrap();
    assert_eq!((of_flags.core.id, of_flags.cluster.as_str()), (2, "flag"));
    assert_eq!(of_flags.core.heartbeat.as_millis(), 50);
    let clients = of_flags.clients.unwrap();
    assert_eq!((clients.client.port, clients.admin.port), (4000, 3999));
    assert_eq!(of_flags.core.sub_leaders(), 1);

    let env = Environment {
        node_id: Some(" 3 ".to_owned()),
        peers: Some(FIVE.to_owned()),
        enable_subleader: Some("False".to_owned()),
        port: None,
    };
    let of_env = Settings::resolve(flags, &env).unwrap();
    assert_eq!(of_env.core.id, 3);
    assert_eq!(of_env.core.members.len(), 5);
    assert_eq!(of_env.core.sub_leaders(), 0);

    let port = Environment { port: Some("5004".to_owned()), node_id: None, ..env };
    let flags = NodeArgs { node_id: None, ..args(FIVE) };
    assert_eq!(Settings::resolve(flags, &port).unwrap().core.id, 4);
}

#[test]
fn the_environment_can_switch_sub_leaders_on_again() {
    let original = NodeArgs { original_raft: true, node_id: Some(1), ..args(FIVE) };
    let none = Environment::default();
    assert_eq!(Settings::resolve(original.clone(), &none).unwrap().core.sub_leaders(), 0);
    let on = Environment { enable_subleader: Some("true".to_owned()), ..none };
    assert_eq!(Settings::resolve(original, &on).unwrap().core.sub_leaders(), 2);
}

#[test]
fn a_node_without_an_id_finds_itself_by_its_port() {
    let found = NodeArgs { port: Some(5003), ..args(FIVE) };
    let settings = Settings::resolve(found, &Environment::default()).unwrap();
    assert_eq!(settings.core.id, 3);
    assert_eq!(settings.peers.keys().copied().collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert!(settings.data_dir.ends_with("node-3"));
}

#[test]
fn mistakes_name_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let none = Environment::default();
    let peers = "peers = ['127.0.0.1:5001', '127.0.0.1:5002']\nnode_id = 1\n";
    let files = [
        ("cluster = 'a'\nhartbeat = 3\n", "node.toml:2: unknown field `hartbeat`"),
        ("[timing]\nheartbeat = '50'\n", "node.toml:2: `50` is not a duration"),
        ("[timing]\npreset = 'fast'\n", "node.toml:2: unknown variant `fast`"),
        ("port = -1\n", "node.toml:1: invalid value"),
        ("[timing\n", "node.toml:1: "),
        (&format!("{peers}[timing]\nheartbeat = '200ms'\n"), "less than two heartbeats"),
        (&format!("{peers}cluster = ''\n"), "--cluster"),
        (&format!("{peers}client_port = 5001\n"), "--client-port: 5001 is the port for peers"),
        (&format!("{peers}client_port = 5000\n"), "--admin-port: 5001 is the port for peers"),
        (&format!("{peers}client_port = 9\nadmin_port = 9\n"), "9 is the port for clients"),
        (&format!("{peers}client_port = 65535\n"), "--admin-port: give one from 1 to 65535"),
        (&format!("{peers}client_port = 0\n"), "--client-port: 0 is not a port"),
        (&format!("{peers}admin_port = 9\n"), "give --client-port too"),
        (&format!("{peers}max_clients = 0\n"), "--max-clients: 0 is out of range"),
        (&format!("{peers}max_request_bytes = 9000000\n"), "--max-request-bytes: 9000000"),
        (&format!("{peers}snapshot_bytes = 10\n"), "--snapshot-bytes: 10 is out of range"),
        (&format!("{peers}port = 5002\n"), "--port 5002"),
        ("node_id = 1\n", "no peers"),
    ];
    for (text, part) in files {
        let error = Settings::resolve(config(&dir, text), &none).unwrap_err().to_string();
        assert!(error.contains(part), "{text:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let absent = NodeArgs { config: Some(dir.path().join("absent.toml")), ..args(FIVE) };
    let error = Settings::resolve(absent, &none).unwrap_err().to_string();
    assert!(error.contains("absent.toml"), "{error}");

    let variables = [
        (Environment { node_id: Some("x".to_owned()), ..none.clone() }, "RAFT_NODE_ID=`x`"),
        (Environment { port: Some("70000".to_owned()), ..none.clone() }, "RAFT_PORT=`70000`"),
        (
            Environment { enable_subleader: Some("maybe".to_owned()), ..none.clone() },
            "ENABLE_SUBLEADER=`maybe`",
        ),
        (Environment { peers: Some("a:1,b".to_owned()), ..none }, "`b`: it has no port"),
    ];
    for (env, part) in variables {
        let error = Settings::resolve(args(FIVE), &env).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_file_in_the_documentation_is_understood() {
    let example: String = include_str!("../settings.rs")
        .lines()
        .skip_while(|line| !line.contains("```toml"))
        .skip(1)
        .take_while(|line| !line.contains("```"))
        .map(|line| format!("{}\n", line.trim_start_matches("//!")))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::resolve(config(&dir, &example), &Environment::default()).unwrap();
    assert_eq!(settings.core.heartbeat.as_millis(), 12);
    assert_eq!(settings.listen.to_string(), "10.0.1.10:5000");
    assert!(settings.clients.is_some() && settings.pid_file.is_some());
    assert_eq!(settings.snapshot_bytes, SNAPSHOT_BYTES);
    assert_eq!(settings.max_request_bytes, MAX_REQUEST_BYTES as usize);
}
