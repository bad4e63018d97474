//! Connections with clients: accepted, introduced, served, and closed when they are dead or in the
//! way.

use std::{sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    guests::{Entry, Seat},
    rpc::Rpc,
};

/// Files that the node needs besides the connections of clients: log and snapshots, peers, and
/// connections that are being closed.
const OTHER_FILES: u64 = 512;

/// What every HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Told to whoever begins with something else.
const NOT_HTTP2: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain\r\ncontent-length: 85\r\nconnection: close\r\n\r\n\
    this port speaks gRPC (HTTP/2 without TLS); /status and /metrics are on another port\n";

/// Bytes of header fields that a request may have.
const MAX_HEADERS: u32 = 16 << 10;

/// How many connections of so many wanted the process may have. The soft limit of open files is
/// raised to the hard one first: it is low for the sake of programs that use select(2).
pub(super) fn affordable(wanted: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If it is refused, the old limit counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let left = files.saturating_sub(OTHER_FILES).max(files / 4).max(1);
    wanted.min(usize::try_from(left).unwrap_or(usize::MAX))
}

/// The next connection. The listener itself stays good whatever happens.
pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of descriptors, or a connection that broke before it was accepted; a pause keeps
            // the former from becoming a busy loop.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Accepts clients for ever.
pub(super) async fn run(rpc: Arc<Rpc>, listener: TcpListener) {
    loop {
        let stream = accept(&listener).await;
        let traffic = rpc.traffic();
        let seat = match traffic.guests.enter() {
            Entry::Free(seat) => seat,
            Entry::Replaces(seat) => {
                traffic.replaced();
                seat
            }
            Entry::Full => {
                traffic.turned_away();
                continue;
            }
        };
        let seat = Arc::new(seat);
        let rpc = rpc.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = seat.told_to_leave() => {}
                () = serve(rpc, stream, seat.clone()) => {}
            }
        });
    }
}

async fn serve(rpc: Arc<Rpc>, mut stream: TcpStream, seat: Arc<Seat>) {
    let limits = rpc.limits();
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    match timeout(limits.preface_time, preface(&mut stream)).await {
        Ok(Some(())) => {}
        Ok(None) | Err(_) => return rpc.traffic().never_began(),
    }
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(limits.keepalive);
    let (reader, writer) = stream.into_split();
    // The preface has been taken out already, but hyper wants to see it.
    let stream = tokio::io::join(AsyncReadExt::chain(&PREFACE[..], reader), writer);
    let service =
        service_fn(move |request: Request<Incoming>| rpc.clone().answer(request, seat.clone()));
    // What goes wrong on a connection ends it, and its client knows.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// Reads the preface; nothing if it is none.
async fn preface(stream: &mut TcpStream) -> Option<()> {
    let mut read = [0; PREFACE.len()];
    let mut length = 0;
    while length < PREFACE.len() {
        let more = stream.read(&mut read[length..]).await.ok().filter(|more| *more > 0)?;
        length += more;
        if read[..length] != PREFACE[..length] {
            let _ = stream.write_all(NOT_HTTP2).await;
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_another_protocol_is_as_long_as_it_says() {
        let text = std::str::from_utf8(NOT_HTTP2).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
