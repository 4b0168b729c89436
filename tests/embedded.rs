//! The actor system inside a program that has no actix System and no runtime of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::time::Duration;

use nyx_telemetry::{
    ConnectionId, Telemetry,
    accept::ListenAddr,
    export::{Backoff, DestinationConfig, testing::ScriptedDestination},
    log::Durability,
    tls::{ServerTlsFiles, testing},
};

use self::support::{
    LIMIT, arrived,
    folder::Folder,
    load::{client, deliver, span},
    nobody, quick, request,
    tls::client_over,
};

#[test]
fn a_plain_program_gets_spans_out_of_both_doors_and_a_clean_end() {
    let sink = ScriptedDestination::start().unwrap();
    let builder = Telemetry::builder().service_name("embedded").destination(&sink.endpoint());
    let telemetry = builder.grpc_door("127.0.0.1:0").start().unwrap();
    let connection = telemetry.connection(ConnectionId::new(7));
    (0..100).for_each(|number| assert!(span(&connection, number)));
    let observed = telemetry.observed().clone();
    let Some(&ListenAddr::Tcp(door)) = telemetry.grpc_door() else { panic!("{:?}", telemetry.grpc_door()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let use_it = async {
        assert_eq!(deliver(&mut client(door), 100..200).await, 0);
        telemetry.flush().await.unwrap();
        assert_eq!(observed.stats().spans.accepted, 200);
        telemetry.shutdown().await
    };
    let report = runtime.block_on(async { tokio::time::timeout(LIMIT, use_it).await });
    let report = report.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(connection.is_closed());
    assert!(!span(&connection, 200), "after the end nothing begins");
    let stats = observed.stats();
    assert!(stats.balanced, "{stats:?}");
    assert_eq!(stats.destinations["default"].ledger.exported, 200);
    assert_eq!(arrived(&sink), (0..200).map(|number| (number, 1)).collect());
}

#[test]
fn a_plain_program_may_have_its_doors_speak_tls() {
    let folder = testing::Folder::new("embedded");
    let tls = folder.door("server.pem", Some("ca.pem"));
    let builder = || Telemetry::builder().grpc_door("127.0.0.1:0").http_door("127.0.0.1:0");
    let telemetry = builder().grpc_tls(tls.clone()).http_tls(tls.clone()).start().unwrap();
    let observed = telemetry.observed().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = testing::Client::new(&folder).with("client.pem", "client.key");
        for door in [telemetry.grpc_door(), telemetry.http_door()] {
            let door = door.unwrap().to_string();
            let connection = client.offering(&["h2"]).connect(&door).await.unwrap();
            // That of HTTP has another path for it, and says so.
            let told = client_over(connection).await.export(request(0..10)).await;
            assert_eq!(told.is_ok(), Some(&door) == telemetry.grpc_door().map(ToString::to_string).as_ref());
        }
        telemetry.shutdown().await
    });
    assert_eq!(observed.stats().spans.accepted, 10);

    let none = ServerTlsFiles { key_file: None, ..tls.clone() };
    let error = builder().http_tls(none).start().err().unwrap().to_string();
    let expected = "server.pem\" must not be set alone: set tls.key_file too";
    assert!(
        error.starts_with("the http door's TLS: tls.cert_file: ") && error.ends_with(expected),
        "{error}"
    );
    let error = Telemetry::builder().grpc_door("unix:/tmp/door").grpc_tls(tls).start().err().unwrap();
    assert!(error.to_string().contains("TLS is spoken over TCP alone"), "{error}");
}

#[test]
fn with_a_folder_what_was_flushed_is_delivered_by_the_next_system_on_it() {
    let mut sink = nobody();
    let folder = Folder::new("embedded");
    let (dir, endpoint) = (folder.path(), sink.endpoint());
    // The first attempt fails, and no other comes before the end.
    let minute = Duration::from_secs(60);
    let backoff = Backoff { initial: minute, cap: minute, ..Backoff::default() };
    let destination = DestinationConfig { backoff, ..quick("default", &endpoint) };
    let builder = || Telemetry::builder().destination_config(destination.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let in_time = async |what: &mut (dyn Future<Output = ()> + Unpin)| {
        tokio::time::timeout(LIMIT, what).await.unwrap();
    };
    let first = builder().log_dir(dir).start().unwrap();
    assert_eq!(
        builder().log_dir(dir).start().err().unwrap().to_string(),
        format!("the log's folder {} is locked by process {}", dir.display(), std::process::id())
    );
    let connection = first.connection(ConnectionId::new(7));
    (0..100).for_each(|number| assert!(span(&connection, number)));
    runtime.block_on(in_time(&mut Box::pin(async {
        first.flush().await.unwrap();
        first.shutdown().await;
    })));
    drop(connection);

    let in_memory = builder().log_dir(dir).durability(Durability::Memory);
    assert_eq!(
        in_memory.start().err().unwrap().to_string(),
        format!(
            "the log's folder {} holds 100 spans that were not delivered: a log in memory would forget them",
            dir.display()
        )
    );
    sink.revive().unwrap();
    let second = builder().log_dir(dir).durability(Durability::Power).start().unwrap();
    runtime.block_on(in_time(&mut Box::pin(async {
        sink.until(|sink| arrived(sink).len() == 100).await;
        second.shutdown().await;
    })));
    assert_eq!(arrived(&sink), (0..100).map(|number| (number, 1)).collect());
    runtime.block_on(in_time(&mut Box::pin(async {
        builder().log_dir(dir).durability(Durability::Memory).start().unwrap().shutdown().await;
    })));
}

#[test]
fn a_durability_beyond_memory_needs_a_folder() {
    let error = Telemetry::builder().durability(Durability::Power).start().err().unwrap();
    assert_eq!(error.to_string(), "durability \"power\" needs a folder for the log");
}
