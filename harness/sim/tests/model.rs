//! Models as a user writes them: what is refused, and with which words.

use sraft_sim::{Model, ModelError};

fn refusal(text: &str) -> String {
    match toml::from_str::<Model>(text) {
        Err(error) => error.to_string(),
        Ok(model) => model.validate().expect_err("it must be refused").to_string(),
    }
}

#[test]
fn everything_can_be_written() {
    let model: Model = toml::from_str(
        r#"
        nodes = 3
        protocol = "raft"
        timing = { preset = "lan" }
        clock = [{ node = 2, ppm = -50 }]
        replication = { max_entries = 10 }
        [network]
        latency = { log-normal = { median = "1ms", sigma = 0.4 } }
        loss = 0.01
        duplication = 0.02
        reordering = true
        link = [{ from = 1, to = 2, latency = { samples = ["1ms", "2ms"] } }]
        [disk]
        write = { uniform = { min = "1ms", max = "3ms" } }
        [evidence]
        closed = { constant = "1ms" }
        [[fault]]
        at = "1s"
        do = { crash = 1 }
        [[fault]]
        at = "2s"
        do = { cut = { from = [2], to = [3], both_ways = true } }
        [[fault]]
        at = "3s"
        do = { slow-disk = [2, 10] }
        "#,
    )
    .unwrap();
    model.validate().unwrap();
    assert_eq!(toml::from_str::<Model>(&toml::to_string(&model).unwrap()).unwrap(), model);
}

#[test]
fn what_cannot_be_is_refused() {
    for (text, words) in [
        ("nodes = 0", "0 nodes cannot be simulated"),
        ("nodes = 3\nnetwork = { loss = 1.5 }", "network.loss = 1.5 is no probability"),
        ("nodes = 3\nnetwork = { duplication = -0.1 }", "network.duplication = -0.1"),
        ("nodes = 3\nnetwork = { loss = nan }", "network.loss = NaN is no probability"),
        ("nodes = 3\nnetwork = { delay = 1 }", "unknown field `delay`"),
        (
            "nodes = 3\nnetwork.latency.uniform = { min = \"2ms\", max = \"1ms\" }",
            "network.latency: uniform from 2ms to 1ms runs backwards",
        ),
        ("nodes = 3\nnetwork.latency.samples = []", "samples is empty"),
        ("nodes = 3\nnetwork.latency.constant = \"-1ms\"", "is not a duration"),
        ("nodes = 3\nnetwork.latency.constant = \"1h\"", "ten minutes"),
        (
            "nodes = 3\ndisk.write.log-normal = { median = \"1ms\", sigma = -1.0 }",
            "disk.write: log-normal sigma = -1",
        ),
        (
            "nodes = 3\nfault = [{ at = \"1s\", do = { cut = { from = [1], to = [4] } } }]",
            "fault cut names node 4, but the nodes are 1 to 3",
        ),
        ("nodes = 3\nfault = [{ at = \"1s\", do = { cut = { from = [], to = [2] } } }]", "empty"),
        ("nodes = 3\nfault = [{ at = \"1s\", do = { disconnect = [2, 2] } }]", "to itself"),
        ("nodes = 3\nfault = [{ at = \"1s\", do = { slow-disk = [2, 0] } }]", "factor 0"),
        ("nodes = 3\nfault = [{ at = \"1s\", do = { explode = 2 } }]", "unknown variant"),
        ("nodes = 3\nclock = [{ node = 1, ppm = 2000000 }]", "off by 2000000 ppm"),
        ("nodes = 3\nreplication = { max_entries = 0 }", "replication.max_entries is 0"),
        ("nodes = 3\ntiming = { heartbeat = \"10s\" }", "timing: "),
    ] {
        let said = refusal(text);
        assert!(said.contains(words), "{text}\nsaid: {said}\nnot:  {words}");
    }
}

#[test]
fn the_error_says_where() {
    let model = Model { nodes: 2000, ..Model::default() };
    assert_eq!(model.validate(), Err(ModelError::Size(2000)));
}
