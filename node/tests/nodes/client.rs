//! Clients of a cluster.

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sraft_rpc::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, kv_client::KvClient,
};
use tokio::runtime::Runtime;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::PATIENCE;

/// A client that does one thing after the other, each at the node that it is told.
pub struct Client {
    pub runtime: Runtime,
    nodes: Vec<KvClient<Channel>>,
}

impl Client {
    pub fn new(endpoints: &[String]) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let inside = runtime.enter();
        let nodes = endpoints.iter().map(|endpoint| {
            let endpoint = Endpoint::from_shared(endpoint.clone()).unwrap();
            let endpoint = endpoint.connect_timeout(Duration::from_secs(1));
            KvClient::new(endpoint.timeout(Duration::from_secs(8)).connect_lazy())
                .max_decoding_message_size(usize::MAX)
        });
        let nodes = nodes.collect();
        drop(inside);
        Client { runtime, nodes }
    }

    /// Sets a key, by way of the node with this place.
    pub fn put(
        &mut self,
        node: usize,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<PutResponse, Status> {
        let request = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        let answer = self.runtime.block_on(self.nodes[node].put(request))?;
        Ok(answer.into_inner())
    }

    /// Begins so many writes at once and gives them up at once; returns how many had no answer.
    pub fn give_up(&mut self, node: usize, count: usize, value: Vec<u8>) -> usize {
        let value = Bytes::from(value);
        let kv = self.nodes[node].clone();
        self.runtime.block_on(async move {
            let writes: Vec<_> = (0..count)
                .map(|n| {
                    let (mut kv, value) = (kv.clone(), value.clone());
                    let key = format!("flood/{n}").into();
                    let request = PutRequest { key, value, ..PutRequest::default() };
                    tokio::spawn(async move { kv.put(request).await.is_ok() })
                })
                .collect();
            // Until the first of them is on its way.
            tokio::time::sleep(Duration::from_millis(10)).await;
            let mut without = 0;
            for write in writes {
                write.abort();
                without += usize::from(!matches!(write.await, Ok(true)));
            }
            without
        })
    }

    /// Reads, by way of the node with this place.
    pub fn range(&mut self, node: usize, request: RangeRequest) -> Result<RangeResponse, Status> {
        let answer = self.runtime.block_on(self.nodes[node].range(request))?;
        Ok(answer.into_inner())
    }

    /// The value and the version of a key, read linearizably.
    pub fn get(&mut self, node: usize, key: &str) -> Result<Option<(Vec<u8>, i64)>, Status> {
        let request = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
        let found = self.range(node, request)?.kvs.into_iter().next();
        Ok(found.map(|found| (found.value.to_vec(), found.version)))
    }

    /// Every key that begins so, with its value and version; asks until there is an answer.
    pub fn all(&mut self, node: usize, prefix: &str) -> Vec<(String, Vec<u8>, i64)> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().unwrap() += 1;
        let request = RangeRequest {
            key: prefix.to_owned().into(),
            range_end: end.into(),
            ..RangeRequest::default()
        };
        let found = persist(|| self.range(node, request.clone())).kvs;
        let text = |key: Bytes| String::from_utf8(key.to_vec()).unwrap();
        found.into_iter().map(|kv| (text(kv.key), kv.value.to_vec(), kv.version)).collect()
    }
}

/// Bytes of memory that a process occupies.
pub fn memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Tries again while nodes are away or without a leader.
pub fn persist<T>(mut run: impl FnMut() -> Result<T, Status>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match run() {
            Ok(value) => return value,
            Err(status) => {
                let passes = matches!(
                    status.code(),
                    Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
                );
                assert!(passes && Instant::now() < until, "{status:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// What a client that writes without pause has seen.
#[derive(Debug, Default)]
pub struct Story {
    /// Name of its keys.
    pub name: String,
    /// Numbers of the writes that were acknowledged.
    pub acknowledged: Vec<u64>,
    /// Writes of which nothing is known.
    pub unknown: u64,
    /// Writes issued, whatever came of them.
    pub issued: u64,
}

/// Writes `NAME/N` and `NAME`, one after the other, now at this node and now at that, until `done`.
/// After each it reads at another node, which has to know of it.
pub fn write_on(
    endpoints: &[String],
    name: String,
    first: u64,
    value: usize,
    done: &dyn Fn() -> bool,
) -> Story {
    let mut client = Client::new(endpoints);
    let mut story = Story { name, issued: first, ..Story::default() };
    let name = story.name.clone();
    let mut node = 0;
    while !done() {
        story.issued += 1;
        let number = story.issued;
        let text = format!("{number:0value$}");
        let written = client
            .put(node, format!("{name}/{number}"), text.clone())
            .and_then(|_| client.put(node, name.clone(), text));
        match written {
            Ok(_) => {
                story.acknowledged.push(number);
                // One that is down or has no leader says nothing against anybody.
                let other = (node + 1) % endpoints.len();
                if let Ok(found) = client.get(other, &name) {
                    let (read, _) = found.expect("it was written");
                    let read: u64 = String::from_utf8(read).unwrap().parse().unwrap();
                    assert!(read >= number, "{name}: read {read} after {number} was acknowledged");
                }
            }
            Err(_) => {
                story.unknown += 1;
                node = (node + 1) % endpoints.len();
            }
        }
    }
    story
}

impl Story {
    /// Everything that was acknowledged is there, and nothing was done twice.
    pub fn check(&self, client: &mut Client, node: usize) {
        let name = &self.name;
        let found = client.all(node, &format!("{name}/"));
        let numbers: std::collections::BTreeSet<u64> = found
            .iter()
            .map(|(key, _, _)| key.rsplit_once('/').unwrap().1.parse().unwrap())
            .collect();
        for number in &self.acknowledged {
            assert!(numbers.contains(number), "{name}/{number} was acknowledged and is gone");
        }
        for (key, _, version) in &found {
            assert_eq!(*version, 1, "{key} was written once");
        }
        let version = persist(|| client.get(node, name)).map_or(0, |(_, version)| version as u64);
        let least = self.acknowledged.len() as u64;
        assert!(
            (least..=least + self.unknown).contains(&version),
            "{name} has version {version}: {least} writes were acknowledged, {} are unknown",
            self.unknown
        );
    }
}
