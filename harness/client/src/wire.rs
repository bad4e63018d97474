//! One HTTP/2 connection to one endpoint.
//!
//! tonic's own channel reconnects by itself and queues requests meanwhile, so that nobody can tell
//! whether a request was sent. Here a connection is just that: it can be used until it is lost, and
//! what could not be handed to it any more is known to have gone nowhere.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::{
    body::Body,
    codegen::{Service, http},
};

use crate::address::Address;

/// How long a connection may take to be made. A host that is gone without a word is tried again
/// after this time.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Why a request on a connection has had no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The connection had been lost before the request was put into it: nobody has seen it.
    #[error("the connection was lost before the request was sent")]
    Unsent,
    /// The connection was lost, or the request reset, when it was on its way.
    #[error("the connection was lost before the answer came")]
    InFlight(#[source] hyper::Error),
}

/// A connection; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Wire(http2::SendRequest<Body>);

impl Wire {
    /// Connects. The future that comes with it does the work: it must be polled, and ends when the
    /// connection does.
    ///
    /// # Errors
    /// Nobody answers there, or not in time.
    pub(crate) async fn connect(
        to: &Address,
    ) -> io::Result<(Wire, impl Future<Output = ()> + Send + use<>)> {
        let connect = async {
            let stream = TcpStream::connect((to.host(), to.port())).await?;
            stream.set_nodelay(true)?;
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(io::Error::other)
        };
        let (send, connection) = tokio::time::timeout(CONNECT_WITHIN, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        // Why it ended is told to those who had something on the way.
        Ok((Wire(send), async move { drop(connection.await) }))
    }

    /// Whether the connection can still be used, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        !self.0.is_closed()
    }
}

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Incoming>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Broken>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.0.try_send_request(request);
        Box::pin(async move {
            answer.await.map_err(|mut error| match error.take_message() {
                // hyper gives a request back exactly if it has not begun to send it.
                Some(_) => Broken::Unsent,
                None => Broken::InFlight(error.into_error()),
            })
        })
    }
}
