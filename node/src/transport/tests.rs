//! Handshakes and losses between real sockets on the loopback interface.

use std::net::Ipv4Addr;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{frame::MAX_HANDSHAKE, handshake::Hello, *};

/// Far longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

struct Peer {
    transport: Transport,
    incoming: mpsc::Receiver<Incoming>,
}

impl Peer {
    async fn next(&mut self) -> Incoming {
        timeout(PATIENCE, self.incoming.recv()).await.expect("something was due").unwrap()
    }

    /// The next change of a connection with `peer` that is `wanted`.
    async fn until(&mut self, wanted: impl Fn(Change) -> bool) -> Change {
        loop {
            if let Incoming::Link { change, .. } = self.next().await
                && wanted(change)
            {
                return change;
            }
        }
    }

    async fn refusal(&mut self) -> String {
        loop {
            if let Incoming::Refused { reason, .. } = self.next().await {
                return reason;
            }
        }
    }

    /// Waits until a connection is refused for this reason.
    async fn refused_for(&mut self, part: &str) {
        while !self.refusal().await.contains(part) {}
    }

    async fn message(&mut self) -> (NodeId, Message) {
        loop {
            if let Incoming::Message { from, message } = self.next().await {
                return (from, message);
            }
        }
    }
}

async fn free_port() -> (TcpListener, Address) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, Address { host: "127.0.0.1".to_owned(), port })
}

fn introduction(node: NodeId, boot_id: u64) -> Introduction {
    Introduction {
        cluster: "c".to_owned(),
        node,
        boot_id,
        program: "test".to_owned(),
        members: vec![1, 2],
        client_port: Some(node as u16),
    }
}

fn start(me: Introduction, listener: TcpListener, other: NodeId, at: &Address) -> Peer {
    let peers = BTreeMap::from([(other, at.clone())]);
    let (transport, incoming) = Transport::start(me, listener, &peers);
    Peer { transport, incoming }
}

/// Two nodes that are connected both ways, and where they listen.
async fn pair() -> (Peer, Peer, Address, Address) {
    let (one_listener, one_at) = free_port().await;
    let (two_listener, two_at) = free_port().await;
    let mut one = start(introduction(1, 11), one_listener, 2, &two_at);
    let mut two = start(introduction(2, 22), two_listener, 1, &one_at);
    for (peer, boot) in [(&mut one, 22), (&mut two, 11)] {
        let (mut dialled, mut accepted) = (false, false);
        while !(dialled && accepted) {
            match peer.until(|_| true).await {
                Change::Dialled { boot_id } => dialled = boot_id == boot,
                Change::Accepted { boot_id } => accepted = boot_id == boot,
                _ => {}
            }
        }
    }
    (one, two, one_at, two_at)
}

fn ping(term: u64) -> Message {
    Message::TimeoutNow { term }
}

#[tokio::test]
async fn messages_arrive_in_order_from_the_peer_that_sent_them() {
    let (mut one, two, ..) = pair().await;
    for term in 0..200 {
        assert!(two.transport.send(1, ping(term)));
    }
    for term in 0..200 {
        assert_eq!(one.message().await, (2, ping(term)));
    }
    let large = Message::Forward { command: vec![7; 3 << 20] };
    assert!(two.transport.send(1, large.clone()));
    assert_eq!(one.message().await, (2, large));
    assert!(!two.transport.send(9, ping(0)), "nobody has that id");
}

#[tokio::test]
async fn another_cluster_is_refused_on_both_sides() {
    let (one_listener, one_at) = free_port().await;
    let (two_listener, two_at) = free_port().await;
    let mut one = start(introduction(1, 11), one_listener, 2, &two_at);
    let other = Introduction { cluster: "d".to_owned(), ..introduction(2, 22) };
    let mut two = start(other, two_listener, 1, &one_at);
    for (peer, theirs) in [(&mut one, "d"), (&mut two, "c")] {
        peer.refused_for(&format!("it belongs to cluster `{theirs}`")).await;
        peer.refused_for("the other side refuses: it belongs to cluster").await;
    }
}

#[tokio::test]
async fn a_node_at_the_wrong_address_is_refused_on_both_sides() {
    let (one_listener, one_at) = free_port().await;
    let (two_listener, two_at) = free_port().await;
    let members = vec![1, 2, 3];
    let me = |node, boot| Introduction { members: members.clone(), ..introduction(node, boot) };
    // One looks for node 3 where node 2 lives, and two for node 3 where node 1 lives.
    let mut one = start(me(1, 11), one_listener, 3, &two_at);
    let mut two = start(me(2, 22), two_listener, 3, &one_at);
    for peer in [&mut one, &mut two] {
        peer.refused_for("the other side refuses: it looks for node 3").await;
    }
}

#[tokio::test]
async fn a_death_is_told_from_a_broken_connection() {
    let (mut one, two, one_at, two_at) = pair().await;
    drop(two);
    one.until(|change| matches!(change, Change::DialledLost | Change::AcceptedLost)).await;
    one.until(|change| change == Change::NothingListens).await;

    // The restarted node makes itself known; nobody waits for a pause to end.
    let listener = listen(&two_at).await.unwrap();
    let mut two = start(introduction(2, 23), listener, 1, &one_at);
    one.until(|change| change == Change::Dialled { boot_id: 23 }).await;
    two.until(|change| change == Change::Dialled { boot_id: 11 }).await;
}

/// A peer whose connections the test can break one by one.
async fn scripted(listener: &TcpListener, boot_id: u64) -> TcpStream {
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.unwrap();
    let mut hello = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut hello).await.unwrap();
    let hello: Hello = handshake::decode(&hello).unwrap();
    assert_eq!(hello.from.node, 1);
    let mut answer = BytesMut::new();
    let reply = handshake::Reply::Welcome(introduction(2, boot_id));
    handshake::append(&reply, &mut answer).unwrap();
    stream.write_all(&answer).await.unwrap();
    stream
}

#[tokio::test]
async fn a_connection_that_breaks_is_dialled_again_at_once() {
    let (one_listener, _) = free_port().await;
    let (two_listener, two_at) = free_port().await;
    let mut one = start(introduction(1, 11), one_listener, 2, &two_at);
    let first = scripted(&two_listener, 5).await;
    one.until(|change| change == Change::Dialled { boot_id: 5 }).await;
    drop(first);
    one.until(|change| change == Change::DialledLost).await;
    let second = scripted(&two_listener, 5).await;
    one.until(|change| change == Change::Dialled { boot_id: 5 }).await;
    drop(second);
    one.until(|change| change == Change::DialledLost).await;
    let _third = scripted(&two_listener, 6).await;
    one.until(|change| change == Change::Dialled { boot_id: 6 }).await;
}

#[tokio::test]
async fn connections_that_break_before_the_handshake_do_not_hide_a_death() {
    let (one_listener, _) = free_port().await;
    let (two_listener, two_at) = free_port().await;
    let mut one = start(introduction(1, 11), one_listener, 2, &two_at);
    let first = scripted(&two_listener, 5).await;
    one.until(|change| change == Change::Dialled { boot_id: 5 }).await;
    drop(first);
    // As in a process whose descriptors are closed one after the other.
    for _ in 0..3 {
        drop(timeout(PATIENCE, two_listener.accept()).await.unwrap().unwrap());
    }
    drop(two_listener);
    one.until(|change| change == Change::NothingListens).await;
}

#[tokio::test]
async fn a_lost_accepted_connection_asks_the_peer_again_without_telling_it_of_a_loss() {
    let (one_listener, one_at) = free_port().await;
    let (two_listener, two_at) = free_port().await;
    let mut one = start(introduction(1, 11), one_listener, 2, &two_at);
    let mut first = scripted(&two_listener, 5).await;
    one.until(|change| change == Change::Dialled { boot_id: 5 }).await;

    let mut incoming = TcpStream::connect((Ipv4Addr::LOCALHOST, one_at.port)).await.unwrap();
    let mut hello = BytesMut::new();
    handshake::append(&Hello { to: 1, from: introduction(2, 5) }, &mut hello).unwrap();
    incoming.write_all(&hello).await.unwrap();
    one.until(|change| change == Change::Accepted { boot_id: 5 }).await;
    drop(incoming);
    one.until(|change| change == Change::AcceptedLost).await;
    let mut second = scripted(&two_listener, 5).await;
    one.until(|change| change == Change::Dialled { boot_id: 5 }).await;
    // The first connection has been closed only after the second one stood.
    let mut rest = Vec::new();
    timeout(PATIENCE, first.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(one.transport.send(2, ping(3)));
    let mut frame = [0; 4];
    timeout(PATIENCE, second.read_exact(&mut frame)).await.unwrap().unwrap();
}

#[tokio::test]
async fn garbage_oversized_frames_and_silence_are_cut_off_and_named() {
    let (mut one, two, one_at, _) = pair().await;
    let oversized = (MAX_HANDSHAKE as u32 + 1).to_be_bytes();
    let cases: [(&[u8], &str); 3] = [
        (b"GET / HTTP/1.1\r\n\r\n", "no sraft node"),
        (&oversized, "no sraft node"),
        (b"\0\0\0\x08whatever", "no sraft node"),
    ];
    for (bytes, part) in cases {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, one_at.port)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let reason = one.refusal().await;
        assert!(reason.contains(part), "{reason}");
        let mut answer = Vec::new();
        // The end may come as a reset, for there is something unread.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    }
    let mut silent = TcpStream::connect((Ipv4Addr::LOCALHOST, one_at.port)).await.unwrap();
    let reason = one.refusal().await;
    assert!(reason.contains("has not introduced itself"), "{reason}");
    let mut answer = Vec::new();
    timeout(PATIENCE, silent.read_to_end(&mut answer)).await.unwrap().unwrap();
    // None of it has touched the peers.
    assert!(two.transport.send(1, ping(1)));
    assert_eq!(one.message().await, (2, ping(1)));
}

#[tokio::test]
async fn an_oversized_or_meaningless_frame_of_a_peer_ends_its_connection() {
    let meaningless: &[u8] = b"\0\0\0\x02\xff\xff";
    let oversized: &[u8] = &[0x7f; 4];
    for (bytes, part) in [(meaningless, "no message of this version"), (oversized, "frame size")] {
        let (one_listener, one_at) = free_port().await;
        let (_two_listener, two_at) = free_port().await;
        let mut one = start(introduction(1, 11), one_listener, 2, &two_at);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, one_at.port)).await.unwrap();
        let mut hello = BytesMut::new();
        handshake::append(&Hello { to: 1, from: introduction(2, 5) }, &mut hello).unwrap();
        stream.write_all(&hello).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let reason = one.refusal().await;
        assert!(reason.contains(part), "{reason}");
        one.until(|change| change == Change::AcceptedLost).await;
    }
}

#[tokio::test]
async fn strangers_cannot_use_up_the_connections() {
    let (mut one, two, one_at, _) = pair().await;
    let mut strangers = Vec::new();
    for _ in 0..=MAX_STRANGERS {
        strangers.push(TcpStream::connect((Ipv4Addr::LOCALHOST, one_at.port)).await.unwrap());
    }
    let reason = one.refusal().await;
    assert!(reason.contains("have not introduced themselves"), "{reason}");
    assert!(two.transport.send(1, ping(1)));
    assert_eq!(one.message().await, (2, ping(1)));
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_messages_and_nothing_else() {
    let (one_listener, _) = free_port().await;
    let (two_listener, two_at) = free_port().await;
    let mut one = start(introduction(1, 11), one_listener, 2, &two_at);
    let _unread = scripted(&two_listener, 5).await;
    one.until(|change| change == Change::Dialled { boot_id: 5 }).await;
    let mut dropped = 0;
    // More than the sockets and the queue can hold.
    for _ in 0..OUTBOX + 200 {
        let message = Message::Forward { command: vec![0; 64 << 10] };
        dropped += u32::from(!one.transport.send(2, message));
        tokio::task::yield_now().await;
    }
    assert!(dropped > 0);
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let (_listener, at) = free_port().await;
    let error = listen(&at).await.unwrap_err().to_string();
    assert!(error.contains(&at.port.to_string()) && error.contains("ss -ltnp"), "{error}");
    let nowhere = Address { host: "203.0.113.1".to_owned(), port: at.port };
    let error = listen(&nowhere).await.unwrap_err().to_string();
    assert!(error.contains("203.0.113.1") && error.contains("--host"), "{error}");
}

#[tokio::test]
async fn a_node_dials_from_the_address_that_it_listens_on() {
    let (somebody, at) = free_port().await;
    // All of 127/8 is this machine (RFC 1122, 3.2.1.3).
    let listener = TcpListener::bind(("127.0.0.2", 0)).await.unwrap();
    let _node = start(introduction(1, 11), listener, 2, &at);
    let (_stream, from) = timeout(PATIENCE, somebody.accept()).await.unwrap().unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.2");
}
