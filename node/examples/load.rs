//! scratch
use sraft_rpc::etcdserverpb::{PutRequest, kv_client::KvClient};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tonic::transport::Endpoint;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let endpoints: Vec<String> = args[1].split(',').map(|e| format!("http://{e}")).collect();
    let clients: usize = args[2].parse().unwrap();
    let secs: u64 = args[3].parse().unwrap();
    let size: usize = args.get(4).map_or(256, |s| s.parse().unwrap());
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async move {
        let done = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        let start = Instant::now();
        let until = start + Duration::from_secs(secs);
        let conns = clients.min(endpoints.len().max(1) * 4);
        let mut channels = Vec::new();
        for c in 0..conns {
            channels.push(
                Endpoint::from_shared(endpoints[c % endpoints.len()].clone())
                    .unwrap()
                    .tcp_nodelay(true)
                    .connect()
                    .await
                    .unwrap(),
            );
        }
        for c in 0..clients {
            let mut kv = KvClient::new(channels[c % conns].clone());
            let done = done.clone();
            tasks.push(tokio::spawn(async move {
                let mut lat = Vec::new();
                let mut n = 0u64;
                let value = bytes::Bytes::from(vec![b'x'; size]);
                while Instant::now() < until {
                    let t = Instant::now();
                    let key = format!("k{c:04}/{:06}", n % 1000);
                    n += 1;
                    match kv
                        .put(PutRequest {
                            key: key.into(),
                            value: value.clone(),
                            ..Default::default()
                        })
                        .await
                    {
                        Ok(_) => {
                            lat.push(t.elapsed().as_micros() as u64);
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(e) => {
                            eprintln!("{e:?}");
                        }
                    }
                }
                lat
            }));
        }
        let mut all = Vec::new();
        for t in tasks {
            all.extend(t.await.unwrap());
        }
        all.sort_unstable();
        let q = |p: f64| all[((all.len() - 1) as f64 * p) as usize];
        println!(
            "clients {clients} puts/s {:.0} p50 {} p99 {} max {} us",
            all.len() as f64 / start.elapsed().as_secs_f64(),
            q(0.5),
            q(0.99),
            q(1.0)
        );
    });
}
