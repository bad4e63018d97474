//! Clients that do what no gRPC library does.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use hyper::http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tonic::Code;

/// How a request was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// From the header or the trailer; none if there was no gRPC status.
    pub(crate) code: Option<Code>,
    pub(crate) message: String,
}

/// An HTTP/2 connection; it is driven by a task of its own.
pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Begins a request and leaves it open.
pub(crate) async fn begin(
    client: &SendRequest<Bytes>,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
    let mut request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.clone().ready().await?.send_request(request.body(()).unwrap(), false)
}

/// Waits for the answer.
pub(crate) async fn finish(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let response = response.await?;
    let (head, mut body): (_, RecvStream) = response.into_parts();
    while let Some(data) = body.data().await {
        let _ = body.flow_control().release_capacity(data?.len());
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let text = |headers: &HeaderMap, name: &str| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let of = |name: &str| text(&head.headers, name).or_else(|| text(&trailers, name));
    // Spaces are the only thing that these texts have escaped.
    let message = of("grpc-message").unwrap_or_default().replace("%20", " ");
    Ok(Answer { code: of("grpc-status").map(|code| Code::from_bytes(code.as_bytes())), message })
}

/// A whole request on a connection of its own; `body` with gRPC's prefix.
pub(crate) async fn call(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let client = connect(address).await;
    let (response, mut stream) = begin(&client, path, headers).await.unwrap();
    stream.send_data(Bytes::copy_from_slice(body), true).unwrap();
    finish(response).await.unwrap()
}
