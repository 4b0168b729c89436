//! A whole tree with its real threads, on a disk that is slower than what arrives.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, trace_service_client::TraceServiceClient,
};
use prost::Message as _;

use super::{super::OpenLog, *};
use crate::{
    accept::{ConnectionId, Listener},
    export::testing::request,
    log::disk::sim::{Effect, Errno, Kind, Ops},
    observe::Observed,
    tree::{LogForm, Running, Tree, TreeConfig},
};

async fn start(disk: &SimDisk, change: impl FnOnce(&mut TreeConfig)) -> Running {
    let config = SegmentLogConfig { destinations: Vec::new(), ..config(Durability::Power) };
    let open = OpenLog::open_on(Arc::new(disk.clone()), &config, None).unwrap();
    let mut config = TreeConfig { log: LogForm::Segments(open), io_threads: 1, ..TreeConfig::default() };
    change(&mut config);
    Tree::define(config).start().await.unwrap()
}

async fn until(what: &str, observed: &Observed, mut holds: impl FnMut(&Observed) -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    let waiting = async {
        while !holds(observed) {
            looks.tick().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    assert!(waited.is_ok(), "{what}: {:?}", observed.stats());
}

fn finish_spans(tree: &Running, count: u64) {
    let connection = tree.in_process().connection(ConnectionId::new(1));
    for _ in 0..count {
        connection.span("work").start().end();
    }
}

#[test]
fn a_disk_that_hangs_is_said_and_what_waits_for_it_is_kept_when_it_goes_on() {
    actix_rt::System::new().block_on(async {
        let disk = SimDisk::with_dir("/log");
        let tree = start(&disk, |_| {}).await;
        let observed = Arc::clone(tree.observed());
        let held = disk.plan(Ops::of([Kind::Sync]).ending(".segment").always(), Effect::Hold);
        finish_spans(&tree, 10);
        until("the write hangs", &observed, |_| {
            !disk.operations_of(&Ops::of([Kind::Sync]).ending(".segment")).is_empty()
        })
        .await;
        let stats = observed.stats();
        assert_eq!(
            (stats.log.end, stats.spans.accepted),
            (0, 0),
            "nothing is acknowledged before it is kept"
        );
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(7)).await;
        let troubles = observed.log().troubles();
        tokio::time::resume();
        assert_eq!(troubles, ["span log has been writing for 7 s"]);
        disk.take_back(held);
        tree.in_process().flush().await.unwrap();
        let stats = observed.stats();
        assert_eq!((stats.log.end, stats.spans.accepted, stats.spans.pending), (10, 10, 0));
        until("the writer rests", &observed, |observed| observed.log().troubles().is_empty()).await;
        assert!(tree.shutdown(Duration::from_secs(20)).await.is_clean());
    });
}

#[test]
fn senders_are_refused_for_now_while_a_disk_hangs_and_lose_nothing_that_they_were_told_is_kept() {
    actix_rt::System::new().block_on(async {
        let disk = SimDisk::with_dir("/log");
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.addr().to_string();
        let tree = start(&disk, |config| {
            config.grpc = Some(listener);
            config.max_in_flight_bytes = 64 << 10;
        })
        .await;
        let observed = Arc::clone(tree.observed());
        let held = disk.plan(Ops::of([Kind::Sync]).ending(".segment").always(), Effect::Hold);
        let channel =
            tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let client = TraceServiceClient::new(channel);
        let message = ExportTraceServiceRequest::decode(request(0..20)).unwrap();
        let mut answers: FuturesUnordered<_> = (0..100)
            .map(|_| {
                let (mut client, message) = (client.clone(), message.clone());
                async move { client.export(message).await }
            })
            .collect();
        // What there is no room for is refused at once, with the word to come back; the rest waits.
        let refused = answers.next().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
        let details = String::from_utf8_lossy(refused.details());
        assert!(details.contains("google.rpc.RetryInfo"), "{refused:?}");
        until("the rest waits", &observed, |observed| {
            let door = &observed.stats().door["grpc"];
            door.pending.requests > 0 && door.pending.requests + door.refused_total().requests == 100
        })
        .await;
        assert_eq!(observed.stats().log.end, 0);
        disk.take_back(held);
        let (mut accepted, mut refused) = (0, 1);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(_) => accepted += 1,
                Err(_) => refused += 1,
            }
        }
        assert_eq!(accepted + refused, 100);
        let stats = observed.stats();
        assert_eq!((stats.door["grpc"].accepted.requests, stats.log.end), (accepted, accepted * 20));
        assert!(tree.shutdown(Duration::from_secs(20)).await.is_clean());
        let config = SegmentLogConfig { destinations: Vec::new(), ..config(Durability::Power) };
        assert_eq!(open(&disk.crash_power_losing_all(), &config).log.end(), accepted * 20);
    });
}

#[test]
fn a_crash_of_any_actor_or_thread_while_the_disk_fails_loses_nothing_that_waits_for_it() {
    actix_rt::System::new().block_on(async {
        let disk = SimDisk::with_dir("/log");
        let tree = start(&disk, |_| {}).await;
        let observed = Arc::clone(tree.observed());
        disk.plan(Ops::changes().always(), Effect::Fail(Errno::Io));
        finish_spans(&tree, 10);
        until("a write fails", &observed, |observed| !observed.log().troubles().is_empty()).await;
        assert_eq!(observed.log().troubles(), ["span log cannot write: Input/output error (os error 5)"]);
        for name in ["log", "log.reader", "metrics", "collector", "outbox.0"] {
            let restarts = |observed: &Observed| {
                observed.records().iter().find(|record| record.name == name).unwrap().restarts
            };
            tree.crash(name, "crashed by a test").unwrap();
            until(name, &observed, |observed| restarts(observed) == 1).await;
        }
        let stats = observed.stats();
        assert_eq!((stats.log.end, stats.spans.accepted), (0, 0));
        disk.heal();
        tree.in_process().flush().await.unwrap();
        let stats = observed.stats();
        assert_eq!((stats.log.end, stats.spans.accepted, stats.spans.pending), (10, 10, 0));
        assert!(stats.spans.balances(), "{:?}", stats.spans);
        until("the trouble is over", &observed, |observed| observed.log().troubles().is_empty()).await;
        assert!(tree.shutdown(Duration::from_secs(20)).await.is_clean());
    });
}
