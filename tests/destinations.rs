//! Destinations in trouble: what they do not take waits, and nobody else waits with them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

mod support;

use std::time::Duration;

use nyx_telemetry::{
    accept::DoorReason,
    export::{
        DestinationConfig, DestinationState,
        testing::{Reply, ScriptedDestination},
        verdict::Kind,
    },
    log::{DestinationId, RejectReason},
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, trace_service_client::TraceServiceClient,
};
use prost::Message;
use tonic::{Code, transport::Channel};

use self::support::{
    Nyx, arrived,
    load::{Load, client, deliver},
    nobody, quick, request, system, until,
};

/// Sends the spans of `0..spans` in requests of 50, none of which is refused.
async fn send(sender: &mut TraceServiceClient<Channel>, spans: u64) {
    for first in (0..spans).step_by(50) {
        assert_eq!(deliver(sender, first..first + 50).await, 0);
    }
}

fn once(numbers: std::ops::Range<u64>) -> std::collections::BTreeMap<u64, u64> {
    numbers.map(|number| (number, 1)).collect()
}

#[test]
fn a_dead_destination_and_one_that_never_answers_delay_no_other() {
    system(async {
        let (alive, mut dead, stalled) =
            (ScriptedDestination::start().unwrap(), nobody(), ScriptedDestination::start().unwrap());
        stalled.judge(|_| Reply::Stall);
        let destinations = vec![
            quick("dead", &dead.endpoint()),
            quick("alive", &alive.endpoint()),
            DestinationConfig {
                timeout: Duration::from_secs(600),
                drain_timeout: Duration::ZERO,
                ..quick("stalled", &stalled.endpoint())
            },
        ];
        let nyx = Nyx::start(destinations, |_| {}).await;
        send(&mut client(nyx.door), 2_000).await;
        until("the living one has everything", || nyx.destination("alive").ledger.exported == 2_000).await;
        assert_eq!(arrived(&alive), once(0..2_000));

        let stats = nyx.stats();
        for name in ["dead", "stalled"] {
            let ledger = &stats.destinations[name].ledger;
            assert_eq!((ledger.exported, ledger.queued()), (0, 2_000), "{name}");
        }
        assert_eq!((stats.log.start, stats.log.records), (0, 40), "the log holds what they have not got");
        assert!(stats.balanced, "{stats:?}");

        dead.revive().unwrap();
        until("the dead one has everything", || nyx.destination("dead").ledger.exported == 2_000).await;
        assert_eq!(arrived(&dead), once(0..2_000));
        let stats = nyx.stop().await;
        assert!(stats.balanced, "{stats:?}");
        let ledger = &stats.destinations["stalled"].ledger;
        assert_eq!((ledger.exported, ledger.queued(), ledger.dropped_total()), (0, 2_000, 0));
    });
}

#[test]
fn a_destination_killed_reset_and_sent_away_in_mid_request_gets_everything_and_nothing_is_dead() {
    system(async {
        let mut sink = ScriptedDestination::start().unwrap();
        let blows = [Reply::Reset, Reply::GoAway, Reply::Close, Reply::OkThenGoAway, Reply::Half, Reply::Ok];
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], |_| {}).await;
        let load = Load::start(nyx.door, nyx.tree.in_process().clone(), 2, 1);
        for round in 1..=5 {
            sink.script(blows.clone());
            let (_, begun) = sink.counts();
            until("each blow has hit", || sink.counts().1 >= begun + blows.len() as u64).await;
            // With a request in flight, which nobody will answer.
            sink.script([Reply::Stall]);
            let stalled = |sink: &ScriptedDestination| {
                let received = sink.received();
                received.iter().filter(|request| request.reply == Reply::Stall).count() == round
            };
            sink.until(stalled).await;
            sink.kill();
            until("it is missed", || {
                nyx.destination("default").status.state == DestinationState::Unreachable
            })
            .await;
            sink.revive().unwrap();
            let exported = nyx.destination("default").ledger.exported;
            until("spans go out again", || nyx.destination("default").ledger.exported > exported).await;
        }
        let (remote, local) = load.stop().await;
        nyx.tree.in_process().flush().await.unwrap();
        nyx.settled().await;
        let stats = nyx.stats();
        assert!(stats.balanced, "{stats:?}");
        assert_eq!(remote.repeated, 0, "no sender notices anything");
        let sent = (remote.acknowledged.len() + local.acknowledged.len()) as u64;
        let destination = &stats.destinations["default"];
        assert_eq!((stats.spans.accepted, destination.ledger.exported), (sent, sent));
        assert_eq!((destination.ledger.dropped_total(), stats.log.dead_letters), (0, 0));
        assert!(nyx.tree.observed().log().dead_letters(DestinationId(0)).is_empty());
        assert!(destination.status.requests.get(Kind::Unreachable) >= 15, "{:?}", destination.status);
        let mut expected = [remote.acknowledged, local.acknowledged].concat();
        expected.sort_unstable();
        assert_eq!(arrived(&sink).into_keys().collect::<Vec<_>>(), expected);
        assert!(nyx.stop().await.balanced);
    });
}

#[test]
fn with_nothing_listening_at_the_start_health_says_so_until_it_comes_up_and_has_everything() {
    system(async {
        let mut sink = nobody();
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], |_| {}).await;
        let unreachable = format!(
            "degraded: default unreachable (connect to {}: Connection refused (os error 111))",
            sink.endpoint()
        );
        until("health says so without a span", || nyx.health() != "ok").await;
        assert_eq!(nyx.health(), unreachable);
        send(&mut client(nyx.door), 500).await;
        assert_eq!(nyx.health(), unreachable);
        assert!(nyx.tree.observed().health().ready, "spans are taken all the same");
        sink.revive().unwrap();
        nyx.settled().await;
        until("health is well", || nyx.health() == "ok").await;
        assert_eq!(arrived(&sink), once(0..500));
        assert!(nyx.stop().await.balanced);
    });
}

#[test]
fn a_destination_that_asks_for_credentials_is_blocked_with_its_words_until_they_are_mended() {
    system(async {
        let sink = ScriptedDestination::start().unwrap();
        sink.judge(|_| Reply::status(16, "token has expired"));
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], |_| {}).await;
        send(&mut client(nyx.door), 100).await;
        until("health says so", || {
            nyx.health() == "degraded: default blocked (UNAUTHENTICATED: token has expired)"
        })
        .await;
        let ledger = nyx.destination("default").ledger;
        assert_eq!((ledger.position, ledger.queued(), ledger.dropped_total()), (0, 100, 0));
        sink.judge(|_| Reply::Ok);
        nyx.settled().await;
        assert_eq!((nyx.health().as_str(), arrived(&sink)), ("ok", once(0..100)));
        assert!(nyx.stop().await.balanced);
    });
}

/// `google.rpc.Status` with one detail, read by hand.
fn retry_info(details: &[u8]) -> Option<(String, Vec<u8>)> {
    #[derive(Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(Message)]
    struct Status {
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    let detail = Status::decode(details).unwrap().details.pop()?;
    Some((detail.type_url, detail.value))
}

#[test]
fn a_full_log_refuses_in_a_way_that_is_to_be_retried_and_recovers() {
    system(async {
        let mut sink = nobody();
        let nyx = Nyx::start(vec![quick("default", &sink.endpoint())], |config| {
            config.log = nyx_telemetry::tree::LogForm::Memory { max_bytes: 64 << 10 };
        })
        .await;
        let mut sender = client(nyx.door);
        let mut next = 0;
        let refused = loop {
            match sender.export(request(next..next + 50)).await {
                Ok(_) => next += 50,
                Err(status) => break status,
            }
            assert!(next < 10_000, "the log takes more than it may");
        };
        let bytes = ExportTraceServiceRequest::encoded_len(&request(next..next + 50));
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(
            refused.message().starts_with("span log is full: "),
            "{} for {bytes} bytes",
            refused.message()
        );
        let one_second = vec![0x0a, 0x02, 0x08, 0x01];
        let retry_info_type = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
        assert_eq!(retry_info(refused.details()), Some((retry_info_type, one_second)));

        let stats = nyx.stats();
        assert_eq!((stats.spans.accepted, stats.spans.rejected(RejectReason::LogFull)), (next, 50));
        assert_eq!(stats.door["grpc"].refused(DoorReason::LogFull).requests, 1);
        assert!(stats.balanced && stats.log.bytes <= 64 << 10, "{stats:?}");
        assert_eq!(nyx.red().0, next, "what was refused is not counted");

        sink.revive().unwrap();
        deliver(&mut sender, next..next + 50).await;
        nyx.settled().await;
        assert_eq!(arrived(&sink), once(0..next + 50));
        assert_eq!(nyx.red().0, next + 50);
        assert!(nyx.stop().await.balanced);
    });
}

#[test]
fn sampling_leaves_traces_out_of_one_destination_and_of_no_count() {
    system(async {
        let (sampled, whole, none) = (
            ScriptedDestination::start().unwrap(),
            ScriptedDestination::start().unwrap(),
            ScriptedDestination::start().unwrap(),
        );
        let rate = |name, sink: &ScriptedDestination, sampling_rate| DestinationConfig {
            sampling_rate,
            ..quick(name, &sink.endpoint())
        };
        let destinations =
            vec![rate("sampled", &sampled, 0.25), rate("whole", &whole, 1.0), rate("none", &none, 0.0)];
        let nyx = Nyx::start(destinations, |_| {}).await;
        send(&mut client(nyx.door), 4_000).await;
        nyx.settled().await;
        let stats = nyx.stats();
        let of = |name| {
            let ledger = &stats.destinations[name].ledger;
            assert_eq!(ledger.exported + ledger.sampled_out, stats.spans.accepted, "{name}");
            ledger.exported
        };
        // The trace ids are spread evenly.
        let kept = of("sampled");
        assert!((900..1_100).contains(&kept), "{kept} of 4000 at a rate of 0.25");
        assert_eq!((of("whole"), of("none")), (4_000, 0));
        let arrivals = arrived(&sampled);
        assert_eq!((arrivals.len() as u64, arrivals.values().sum::<u64>()), (kept, kept));
        assert_eq!(arrived(&whole), once(0..4_000));
        assert!(none.received().is_empty(), "nothing is sent of nothing");
        assert_eq!(nyx.red(), (4_000, 4_000), "the metrics count every span");
        assert!(nyx.stop().await.balanced);
    });
}
