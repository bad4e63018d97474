//! What the servers count.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tonic::Code;

use super::{Limits, exposition::Exposition, guests::Guests, room::Room};

/// The methods that are counted one by one; all others are one.
const METHODS: [(&str, &str); 8] = [
    ("/etcdserverpb.KV/Range", "KV/Range"),
    ("/etcdserverpb.KV/Put", "KV/Put"),
    ("/etcdserverpb.KV/DeleteRange", "KV/DeleteRange"),
    ("/etcdserverpb.KV/Txn", "KV/Txn"),
    ("/etcdserverpb.Maintenance/Status", "Maintenance/Status"),
    ("/etcdserverpb.Maintenance/Alarm", "Maintenance/Alarm"),
    ("/etcdserverpb.Cluster/MemberList", "Cluster/MemberList"),
    ("", "other"),
];

/// Upper ends of the buckets of times, in seconds.
const BUCKETS: [f64; 14] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// The number of gRPC's codes.
const CODES: usize = 17;

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Traffic {
    /// Connections of clients.
    pub guests: Arc<Guests>,
    /// Requests that are being received or answered.
    pub requests: Arc<Guests>,
    /// Bytes of requests that are being received or answered.
    pub received: Arc<Room>,
    /// Bytes of answers that are being sent.
    pub sent: Arc<Room>,
    replaced: AtomicU64,
    turned_away: AtomicU64,
    never_began: AtomicU64,
    methods: [Method; METHODS.len()],
}

#[derive(Debug, Default)]
struct Method {
    codes: [AtomicU64; CODES],
    buckets: [AtomicU64; BUCKETS.len()],
    nanoseconds: AtomicU64,
}

impl Traffic {
    pub(super) fn new(limits: &Limits) -> Traffic {
        Traffic {
            guests: Guests::new(limits.connections),
            requests: Guests::new(limits.requests),
            received: Room::new(limits.received_bytes),
            sent: Room::new(limits.sent_bytes),
            replaced: AtomicU64::default(),
            turned_away: AtomicU64::default(),
            never_began: AtomicU64::default(),
            methods: Default::default(),
        }
    }

    /// A connection was closed to make room for another.
    pub(super) fn replaced(&self) {
        self.replaced.fetch_add(1, Relaxed);
    }

    /// A connection was closed because all others were at work.
    pub(super) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Relaxed);
    }

    /// A connection has not begun with HTTP/2's preface, or not in time.
    pub(super) fn never_began(&self) {
        self.never_began.fetch_add(1, Relaxed);
    }

    /// A request was answered.
    pub(super) fn answered(&self, path: &str, code: Code, took: Duration) {
        let other = METHODS.len() - 1;
        let place = METHODS[..other].iter().position(|(known, _)| *known == path);
        let method = &self.methods[place.unwrap_or(other)];
        if let Some(count) = method.codes.get(code as usize) {
            count.fetch_add(1, Relaxed);
        }
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|end| seconds <= *end) {
            method.buckets[bucket].fetch_add(1, Relaxed);
        }
        method.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Everything, as Prometheus reads it.
    pub(super) fn expose(&self, out: &mut Exposition) {
        out.gauge(
            "sraft_client_connections",
            "Connections of clients.",
            self.guests.count() as f64,
        );
        let closed = "Connections of clients that the node closed, by reason.";
        out.family("sraft_client_connections_closed_total", "counter", closed);
        for (reason, count) in [
            ("replaced", &self.replaced),
            ("turned_away", &self.turned_away),
            ("never_began", &self.never_began),
        ] {
            let count = count.load(Relaxed) as f64;
            out.sample("sraft_client_connections_closed_total", &[("reason", reason)], count);
        }
        let held = "Requests that are being received or answered.";
        out.gauge("sraft_grpc_requests", held, self.requests.count() as f64);
        let held = "Bytes of requests that are being received or answered.";
        out.gauge("sraft_grpc_received_bytes", held, self.received.taken() as f64);
        let held = "Bytes of answers that are being sent.";
        out.gauge("sraft_grpc_sent_bytes", held, self.sent.taken() as f64);

        let requests = "sraft_grpc_requests_total";
        out.family(requests, "counter", "Requests answered, by method and gRPC code.");
        for ((_, name), method) in METHODS.iter().zip(&self.methods) {
            for (code, count) in method.codes.iter().enumerate() {
                let count = count.load(Relaxed);
                if count > 0 {
                    let code = code_name(code);
                    out.sample(requests, &[("method", *name), ("code", code)], count as f64);
                }
            }
        }
        let times = "sraft_grpc_request_duration_seconds";
        out.family(times, "histogram", "Time from a request's header to its answer's.");
        for ((_, name), method) in METHODS.iter().zip(&self.methods) {
            let total: u64 = method.codes.iter().map(|count| count.load(Relaxed)).sum();
            let mut below = 0;
            for (end, count) in BUCKETS.iter().zip(&method.buckets) {
                below += count.load(Relaxed);
                let labels = [("method", *name), ("le", &end.to_string())];
                out.sample(&format!("{times}_bucket"), &labels, below as f64);
            }
            let labels = [("method", *name), ("le", "+Inf")];
            out.sample(&format!("{times}_bucket"), &labels, total as f64);
            let seconds = Duration::from_nanos(method.nanoseconds.load(Relaxed)).as_secs_f64();
            out.sample(&format!("{times}_sum"), &[("method", *name)], seconds);
            out.sample(&format!("{times}_count"), &[("method", *name)], total as f64);
        }
    }
}

/// The name of a code as gRPC's own libraries write it.
fn code_name(code: usize) -> &'static str {
    const NAMES: [&str; CODES] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    NAMES.get(code).copied().unwrap_or("Unknown")
}
