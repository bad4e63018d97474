//! A request's way through the server: admitted, received, answered in time, and accounted for.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, Incoming, SizeHint},
    header::HeaderValue,
};
use sraft_rpc::etcdserverpb::{
    cluster_server::ClusterServer, kv_server::KvServer, maintenance_server::MaintenanceServer,
};
use tokio::{net::TcpListener, time::timeout};
use tonic::{Code, Status, body::Body, codegen::Service as _, service::Routes};

use super::{
    Limits, Settings, connections,
    guests::{Busy, Entry, Seat},
    kv::Keys,
    member::{About, Desk},
    room::Share,
    status,
    traffic::Traffic,
};

/// Bytes that a request may have besides its key and value; etcd allows as many.
const SLACK: usize = 512 << 10;

/// Bytes before a gRPC message: a flag and the message's length.
const PREFIX: usize = 5;

/// The gRPC server.
#[derive(Debug)]
pub(super) struct Rpc {
    limits: Limits,
    routes: Routes,
    traffic: Arc<Traffic>,
}

impl Rpc {
    pub(super) fn new(settings: &Settings, desk: &Desk, traffic: &Arc<Traffic>) -> Rpc {
        let limits = settings.limits.clone();
        let most = limits.request_bytes.saturating_add(SLACK);
        let keys = Keys::new(desk.clone(), traffic.sent.clone());
        let about = About::new(settings, desk.clone());
        let routes = Routes::new(KvServer::new(keys).max_decoding_message_size(most))
            .add_service(MaintenanceServer::new(about.clone()))
            .add_service(ClusterServer::new(about))
            .prepare();
        Rpc { limits, routes, traffic: traffic.clone() }
    }

    pub(super) async fn run(self, listener: TcpListener) {
        connections::run(Arc::new(self), listener).await;
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Answers a request; the types say that it cannot fail.
    pub(super) async fn answer(
        self: Arc<Rpc>,
        request: Request<Incoming>,
        connection: Arc<Seat>,
    ) -> Result<Response<Sent>, std::convert::Infallible> {
        let started = Instant::now();
        let path = request.uri().path().to_owned();
        let (response, visit) = match self.admit(connection) {
            Some(visit) => {
                let visit = Arc::new(visit);
                (self.serve(request, &visit).await, Some(visit))
            }
            None => (status::too_many().into_http(), None),
        };
        let mut response = said(response, &path);
        self.traffic.answered(&path, code(&response), started.elapsed());
        let share = response.extensions_mut().remove::<Arc<Share>>();
        Ok(response.map(|body| Sent { body, _held: (visit, share) }))
    }

    fn admit(&self, connection: Arc<Seat>) -> Option<Visit> {
        let seat = match self.traffic.requests.enter() {
            Entry::Free(seat) | Entry::Replaces(seat) => Arc::new(seat),
            Entry::Full => return None,
        };
        let share = self.traffic.received.take(0)?;
        let traffic = self.traffic.clone();
        Some(Visit { seat, connection, share, busy: OnceLock::new(), traffic })
    }

    async fn serve(&self, request: Request<Incoming>, visit: &Arc<Visit>) -> Response<Body> {
        let most = self.limits.request_bytes.saturating_add(SLACK);
        let time = patience(request.headers())
            .map_or(self.limits.request_time, |time| time.min(self.limits.request_time));
        let visit = visit.clone();
        let seat = visit.seat.clone();
        let received = request.map(|body| Received { body, visit, most, prefix: [0; PREFIX] });
        let served = timeout(time, self.routes.clone().call(received));
        tokio::select! {
            biased;
            () = seat.told_to_leave() => status::too_many().into_http(),
            served = served => match served {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => Status::deadline_exceeded(format!(
                    "the request was not answered within {} ms; a write may still take effect",
                    time.as_millis()
                ))
                .into_http(),
            },
        }
    }
}

/// What a request takes up until its answer has been sent.
#[derive(Debug)]
struct Visit {
    seat: Arc<Seat>,
    connection: Arc<Seat>,
    /// Its bytes.
    share: Share,
    /// Since it has been received as a whole, neither it nor its connection is idle.
    busy: OnceLock<[Busy; 2]>,
    traffic: Arc<Traffic>,
}

impl Visit {
    fn is_received(&self) {
        self.busy.get_or_init(|| [self.seat.busy(), self.connection.busy()]);
    }

    /// Makes room for more bytes, if need be in place of a request that is not received as a
    /// whole. Its bytes are free a moment later; for this moment the room may be too small.
    fn hold(&self, bytes: usize) -> bool {
        self.share.grow(bytes) || (self.traffic.requests.dismiss() && self.share.force(bytes))
    }
}

/// The response, with a sentence if it says without one that there is no such method.
fn said(response: Response<Body>, path: &str) -> Response<Body> {
    let mute = !response.headers().contains_key("grpc-message");
    match code(&response) {
        Code::Unimplemented if mute => status::not_offered(path).into_http(),
        _ => response,
    }
}

/// The status of a response that begins with one; others have succeeded.
fn code(response: &Response<Body>) -> Code {
    response
        .headers()
        .get("grpc-status")
        .map_or(Code::Ok, |value: &HeaderValue| Code::from_bytes(value.as_bytes()))
}

/// How long the client waits (`grpc-timeout`: at most eight digits and a unit).
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// The body of a request, counted while it comes in. A request has one message; one that says that
/// it will be too large is not received.
struct Received {
    body: Incoming,
    visit: Arc<Visit>,
    most: usize,
    prefix: [u8; PREFIX],
}

impl Received {
    fn count(&mut self, data: &[u8]) -> Result<(), Status> {
        let before = self.visit.share.bytes();
        if !self.visit.hold(data.len()) {
            return Err(status::too_many());
        }
        for (place, byte) in self.prefix.iter_mut().skip(before).zip(data) {
            *place = *byte;
        }
        let after = before + data.len();
        let announced = match self.prefix {
            [_, length @ ..] if after >= PREFIX => u32::from_be_bytes(length) as usize,
            _ => 0,
        };
        if announced > self.most || after > self.most.saturating_add(PREFIX) {
            return Err(status::too_large());
        }
        Ok(())
    }
}

impl hyper::body::Body for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                return Poll::Ready(Some(Err(Status::cancelled(error.to_string()))));
            }
            None => {
                self.visit.is_received();
                return Poll::Ready(None);
            }
        };
        let counted = frame.data_ref().map_or(Ok(()), |data| self.count(data));
        Poll::Ready(Some(counted.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, with what is held until it is sent.
pub(super) struct Sent {
    body: Body,
    _held: (Option<Arc<Visit>>, Option<Arc<Share>>),
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_name_their_patience() {
        let patience = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            patience(&headers)
        };
        assert_eq!(patience("250m"), Some(Duration::from_millis(250)));
        assert_eq!(patience("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(patience("7u"), Some(Duration::from_micros(7)));
        for odd in ["", "S", "5", "123456789S", "-1S", "5 S", "5s", "+5S"] {
            assert_eq!(patience(odd), None, "{odd}");
        }
        assert_eq!(super::patience(&HeaderMap::new()), None);
    }
}
