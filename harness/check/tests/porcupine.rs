//! Every history of the Porcupine project's test data, with its known verdict. The data are no part
//! of the repository: `SRAFT_SHARED_DATA` names the folder that holds `porcupine/`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use sraft_check::{Budget, KeyValue, Model, Operation, Register, Verdict, check, jepsen};

fn porcupine() -> Option<PathBuf> {
    let shared = std::env::var_os("SRAFT_SHARED_DATA").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = shared.unwrap_or_else(beside).join("porcupine");
    folder.is_dir().then_some(folder)
}

const SKIPPED: &str = "skipped: no porcupine/; name the folder that has it in SRAFT_SHARED_DATA";

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn judge<M: Model>(
    model: &M,
    history: &[Operation<M::Op>],
    path: &Path,
    linearizable: bool,
) -> String {
    let begun = Instant::now();
    let checked = check(model, history, &Budget::default());
    let expected = if linearizable { Verdict::Linearizable } else { Verdict::NotLinearizable };
    assert_eq!(checked.verdict(), expected, "{}", path.display());
    format!("{:>9.1?}  {}", begun.elapsed(), path.display())
}

#[test]
fn register_logs_of_etcd() {
    let Some(folder) = porcupine() else {
        println!("{SKIPPED}");
        return;
    };
    let verdicts = read(&folder.join("etcd/verdicts.csv"));
    let rows: Vec<(&str, &str)> =
        verdicts.lines().skip(1).filter_map(|line| line.split_once(',')).collect();
    assert!(rows.len() > 50, "{} verdicts", rows.len());
    for (file, verdict) in rows {
        let path = folder.join("etcd").join(format!("{file}.log"));
        let history = jepsen::register(&read(&path)).unwrap();
        let linearizable = verdict == "linearizable";
        println!("{}", judge(&Register::absent(), &history, &path, linearizable));
    }
}

#[test]
fn key_value_logs() {
    let Some(folder) = porcupine() else {
        println!("{SKIPPED}");
        return;
    };
    let mut files = 0;
    for entry in fs::read_dir(folder.join("kv")).unwrap() {
        let path = entry.unwrap().path();
        let history = jepsen::store(&read(&path)).unwrap();
        let linearizable = path.to_string_lossy().ends_with("-ok.txt");
        println!("{}", judge(&KeyValue, &history, &path, linearizable));
        files += 1;
    }
    assert!(files >= 4, "{files} files");
}
