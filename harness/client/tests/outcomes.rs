//! What is known of an operation in every way in which it can end, and where operations go.

mod fake;

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use fake::{Fake, Mode};
use sraft_client::{
    address::Address,
    client::{Client, Done, Settings},
    operation::Operation,
    outcome::Outcome,
};
use tonic::Code;

const LONG: Duration = Duration::from_secs(20);

fn client(endpoints: &[&Address]) -> Client {
    let settings = Settings { connections: 1, silent_after: Duration::from_millis(50) };
    let endpoints: Vec<Address> = endpoints.iter().map(|address| (*address).clone()).collect();
    Client::new(&endpoints, settings)
}

/// A client that knows its leader.
async fn settled(endpoints: &[&Address]) -> Client {
    let client = client(endpoints);
    client.settle(LONG).await.unwrap();
    client
}

/// An address at which nobody listens.
fn nobody() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string().parse().unwrap()
}

fn put(key: &str) -> Operation {
    Operation::Put { key: key.to_owned().into(), value: "v".into() }
}

fn kind(done: &Done) -> &'static str {
    done.trouble.as_ref().map_or("", |trouble| trouble.kind)
}

#[tokio::test]
async fn an_answer_is_ok_and_carries_what_was_asked_for() {
    let fake = Fake::start(1, 1);
    let client = settled(&[&fake.address]).await;
    let done = client.perform(&put("a"), LONG).await;
    assert_eq!((done.outcome, done.endpoint), (Outcome::Ok, Some(0)));
    assert!(done.start_ns <= done.end_ns.unwrap());
    assert_eq!(done.answer.unwrap().revision, 1);

    let get = |key: &'static str| Operation::Get { key: key.into() };
    let found = client.perform(&get("a"), LONG).await.answer.unwrap();
    assert_eq!((found.found, found.value.as_deref()), (Some(true), Some(&b"v"[..])));
    let absent = client.perform(&get("b"), LONG).await.answer.unwrap();
    assert_eq!((absent.found, absent.value), (Some(false), None));

    let swap = |key: &'static str, expected: Option<&'static str>, value: &'static str| {
        Operation::Swap { key: key.into(), expected: expected.map(Into::into), value: value.into() }
    };
    for (operation, swapped, instead) in [
        (swap("a", Some("v"), "w"), true, None),
        (swap("a", Some("v"), "x"), false, Some("w")),
        (swap("a", None, "x"), false, Some("w")),
        (swap("c", None, "x"), true, None),
        (swap("d", Some("x"), "y"), false, None),
    ] {
        let answer = client.perform(&operation, LONG).await.answer.unwrap();
        let instead = instead.map(|value: &str| value.to_owned().into());
        assert_eq!((answer.found, answer.value), (Some(swapped), instead), "{operation:?}");
    }
    assert_eq!(fake.seen(), 8);
}

#[tokio::test]
async fn without_a_connection_it_failed_and_says_why() {
    let (a, b) = (nobody(), nobody());
    let client = client(&[&a, &b]);
    let why = client.settle(LONG).await.unwrap_err();
    assert!(why.contains(&a.to_string()) && why.contains("refused"), "{why}");
    let done = client.perform(&put("a"), LONG).await;
    assert_eq!((done.outcome, kind(&done)), (Outcome::Failed, "no connection"));
    assert_eq!((done.endpoint, done.end_ns), (None, None));
    assert!(done.trouble.unwrap().text.contains(&b.to_string()));
}

#[tokio::test]
async fn a_status_decides_by_its_code_and_nothing_is_sent_twice() {
    let fake = Fake::start(1, 1);
    let client = settled(&[&fake.address]).await;
    let cases = [
        (Code::InvalidArgument, "etcdserver: key is not provided", Outcome::Failed),
        (Code::FailedPrecondition, "etcdserver: not leader", Outcome::Failed),
        (Code::ResourceExhausted, "etcdserver: too many requests", Outcome::Failed),
        (Code::PermissionDenied, "etcdserver: permission denied", Outcome::Failed),
        (Code::Unauthenticated, "etcdserver: invalid auth token", Outcome::Failed),
        (Code::NotFound, "etcdserver: requested lease not found", Outcome::Failed),
        (Code::AlreadyExists, "x", Outcome::Failed),
        (Code::Unavailable, "etcdserver: no leader", Outcome::Failed),
        (Code::Unavailable, "etcdserver: leader changed", Outcome::Unknown),
        (Code::Unavailable, "etcdserver: request timed out", Outcome::Unknown),
        (Code::DeadlineExceeded, "context deadline exceeded", Outcome::Unknown),
        (Code::Cancelled, "x", Outcome::Unknown),
        (Code::Aborted, "x", Outcome::Unknown),
        (Code::Unknown, "raft proposal dropped", Outcome::Unknown),
        (Code::Internal, "x", Outcome::Unknown),
        (Code::DataLoss, "x", Outcome::Unknown),
        (Code::OutOfRange, "x", Outcome::Unknown),
        (Code::Unimplemented, "x", Outcome::Unknown),
    ];
    for (n, (code, text, outcome)) in cases.into_iter().enumerate() {
        fake.set(Mode::Refuse(code, text.to_owned()));
        let done = client.perform(&put("a"), LONG).await;
        assert_eq!(done.outcome, outcome, "{code:?} {text}");
        assert!(done.end_ns.is_some(), "it was an answer: {code:?}");
        assert_eq!(done.trouble.unwrap().text, text);
        assert_eq!(fake.seen(), n as u64 + 1);
    }
    // The reason why these are unknown.
    fake.set(Mode::ServeAndSay(Code::Unavailable, "etcdserver: request timed out".into()));
    let done = client.perform(&put("done"), LONG).await;
    assert_eq!(done.outcome, Outcome::Unknown);
    assert_eq!(fake.keys(), ["done"]);
}

#[tokio::test]
async fn no_answer_within_the_deadline_is_unknown() {
    let fake = Fake::start(1, 1);
    let client = settled(&[&fake.address]).await;
    fake.set(Mode::Hold);
    let done = client.perform(&put("a"), Duration::from_millis(30)).await;
    assert_eq!((done.outcome, kind(&done)), (Outcome::Unknown, "deadline"));
    assert_eq!((done.endpoint, done.end_ns), (Some(0), None));
    // None at all if the reset has overtaken it.
    assert!(fake.seen() <= 1);
}

#[tokio::test]
async fn a_connection_lost_in_flight_leaves_it_unknown_and_the_next_one_failed() {
    let mut fake = Fake::start(1, 1);
    let client = Arc::new(settled(&[&fake.address]).await);
    fake.set(Mode::Hold);
    let under_way = client.clone();
    let under_way = tokio::spawn(async move { under_way.perform(&put("a"), LONG).await });
    fake.wait_for(1).await;
    fake.kill();
    let done = under_way.await.unwrap();
    assert_eq!((done.outcome, kind(&done)), (Outcome::Unknown, "connection lost"));
    assert_eq!((done.endpoint, done.end_ns), (Some(0), None));
    let done = client.perform(&put("b"), LONG).await;
    assert_eq!((done.outcome, kind(&done)), (Outcome::Failed, "no connection"));

    // It is tried again until somebody is there.
    fake.set(Mode::Serve);
    fake.restart();
    let give_up = Instant::now() + LONG;
    let done = loop {
        let done = client.perform(&put("c"), LONG).await;
        if done.outcome == Outcome::Ok {
            break done;
        }
        assert!(Instant::now() < give_up, "{done:?}");
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(done.endpoint, Some(0));
    assert_eq!(fake.keys(), ["c"]);
}

#[tokio::test]
async fn what_does_not_speak_the_protocol_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (speak, spoken) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        spoken.recv().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let client = Arc::new(client(&[&address]));
    // Nobody says who leads, but there is a connection.
    client.settle(Duration::from_millis(200)).await.unwrap();
    let under_way = client.clone();
    let under_way = tokio::spawn(async move { under_way.perform(&put("a"), LONG).await });
    // On this single thread, it has been handed to the connection after its first turn.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    speak.send(()).unwrap();
    let done = under_way.await.unwrap();
    assert_eq!((done.outcome, done.end_ns), (Outcome::Unknown, None), "{done:?}");
    assert_eq!(kind(&done), "connection lost");
    server.join().unwrap();
}

#[tokio::test]
async fn operations_go_to_the_leader_and_follow_it() {
    let fakes = [Fake::start(1, 2), Fake::start(2, 2), Fake::start(3, 2)];
    let client = settled(&[&fakes[0].address, &fakes[1].address, &fakes[2].address]).await;
    assert_eq!(client.leader(), Some(1));
    for _ in 0..10 {
        let done = client.perform(&put("a"), LONG).await;
        assert_eq!((done.outcome, done.endpoint), (Outcome::Ok, Some(1)));
    }
    // The next answer carries the new term, which is reason enough to ask.
    for fake in &fakes {
        fake.lead(3, 2);
    }
    client.perform(&put("a"), LONG).await;
    client.settle(LONG).await.unwrap();
    assert_eq!(client.leader(), Some(2));
    // An older term is not believed.
    fakes[0].lead(1, 1);
    let done = client.perform(&put("a"), LONG).await;
    assert_eq!((done.outcome, done.endpoint), (Outcome::Ok, Some(2)));
}

#[tokio::test]
async fn survivors_get_operations_at_once_when_the_leader_dies() {
    let mut fakes = [Fake::start(1, 1), Fake::start(2, 1), Fake::start(3, 1)];
    let client = settled(&[&fakes[0].address, &fakes[1].address, &fakes[2].address]).await;
    assert_eq!(client.perform(&put("a"), LONG).await.endpoint, Some(0));
    fakes[0].kill();
    let done: Vec<Done> = vec![
        client.perform(&put("b"), LONG).await,
        client.perform(&put("c"), LONG).await,
        client.perform(&put("d"), LONG).await,
        client.perform(&put("e"), LONG).await,
    ];
    // The first may have been sent before the end of the connection was noticed.
    assert!(done[1..].iter().all(|done| done.outcome == Outcome::Ok), "{done:?}");
    // In turn.
    assert!(fakes[1].seen() >= 1 && fakes[2].seen() >= 1, "{done:?}");
}

#[tokio::test]
async fn a_paused_leader_keeps_what_it_was_given_and_gets_no_more() {
    let fakes = [Fake::start(1, 1), Fake::start(2, 1)];
    let client = Arc::new(settled(&[&fakes[0].address, &fakes[1].address]).await);
    fakes[0].set(Mode::HoldAll);
    let first = client.clone();
    let first = tokio::spawn(async move { first.perform(&put("first"), LONG).await });
    fakes[0].wait_for(1).await;
    // Until the silence is noticed, others may follow; they are given up after a moment.
    let give_up = Instant::now() + LONG;
    let mut given = 1;
    while client.perform(&put("other"), Duration::from_millis(10)).await.endpoint == Some(0) {
        given += 1;
        assert!(Instant::now() < give_up);
    }
    for _ in 0..20 {
        let done = client.perform(&put("later"), LONG).await;
        assert_eq!((done.outcome, done.endpoint), (Outcome::Ok, Some(1)));
    }
    assert_eq!(fakes[0].seen(), given);
    assert!(!first.is_finished());
    assert!(!fakes[1].keys().contains(&"first".to_owned()), "it was sent twice");
    // When it wakes up, what it was given is answered, and it is the leader again.
    fakes[0].set(Mode::Serve);
    assert_eq!(first.await.unwrap().outcome, Outcome::Ok);
    let give_up = Instant::now() + LONG;
    while client.perform(&put("x"), LONG).await.endpoint != Some(0) {
        assert!(Instant::now() < give_up);
    }
}

#[tokio::test]
async fn a_member_that_waits_for_a_leader_is_preferred_to_one_that_is_paused() {
    let fakes = [Fake::start(1, 1), Fake::start(2, 1)];
    let client = settled(&[&fakes[0].address, &fakes[1].address]).await;
    fakes[0].set(Mode::HoldAll);
    fakes[1].set(Mode::Hold);
    // Long enough that both are silent, again and again.
    let mut to = [0, 0];
    for _ in 0..40 {
        let done = client.perform(&put("a"), Duration::from_millis(10)).await;
        assert_eq!(done.outcome, Outcome::Unknown);
        to[done.endpoint.unwrap()] += 1;
    }
    // The leader had its chance for as long as it takes to notice, which is five of them or more.
    assert!(to[1] > to[0], "{to:?}");
}
