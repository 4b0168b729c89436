//! The actor system inside a program that has no actix System and no runtime of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use nyx_telemetry::{ConnectionId, Telemetry, accept::ListenAddr, export::testing::ScriptedDestination};

use self::support::{
    LIMIT, arrived,
    load::{client, deliver, span},
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
