use std::{
    future::Future,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use actix::Actor as _;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, any_value},
    trace::v1::{Span as WireSpan, status},
};
use prost::Message as _;
use tokio::sync::mpsc;

use super::{super::DoorReason, *};
use crate::{
    collect::SpansCompleted,
    log::{CommitError, Committed, MemoryLog, MemoryLogConfig, ReadLimit, SpanLedger, SpanLog},
    measure::RedScratch,
    span::{SpanContext, SpanKind, Value},
    supervise::Recipient,
};

const SERVICE: &str = "node";

/// An outbox, its actor, and the far end where a collector would be.
struct Setup {
    outbox: Arc<Outbox>,
    spans: Arc<SpanLedger>,
    log: Arc<MemoryLog>,
    inbox: mpsc::Receiver<SpansCompleted>,
    recipient: Recipient<SpansCompleted>,
}

impl Setup {
    fn new(max_bytes: usize) -> Self {
        let config = OutboxConfig {
            max_bytes,
            service_name: SERVICE.to_owned(),
            resource: vec![("host.name".to_owned(), "here".to_owned())],
        };
        let (recipient, inbox) = Recipient::channel(8);
        let log = MemoryLogConfig { max_bytes: 16 << 20, destinations: 1, measured: false };
        Self {
            outbox: Arc::new(Outbox::new(&config)),
            spans: Arc::default(),
            log: Arc::new(MemoryLog::new(log)),
            inbox,
            recipient,
        }
    }

    fn actor(&self) -> OutboxActor {
        let scratch = RedScratch::new(Arc::default());
        OutboxActor::new(Arc::clone(&self.outbox), self.recipient.clone(), Arc::clone(&self.spans), scratch)
    }

    fn start_actor(&self) -> actix::Addr<OutboxActor> {
        self.actor().start()
    }

    fn delivery(&self) -> outbox::Delivery {
        self.actor().delivery().expect("a fresh actor has its scratch")
    }

    fn connection(&self) -> Connection {
        Connection::new(ConnectionId::new(7), Arc::clone(&self.outbox), ConnectionLimits::default())
    }

    /// Commits the next batch that arrives.
    async fn commit_next(&mut self) {
        let batch = self.inbox.recv().await.expect("the actor sends");
        self.log.commit(vec![batch.append]).await;
    }

    /// Flushes, with a collector that commits.
    async fn flush(&mut self) {
        let outbox = Arc::clone(&self.outbox);
        let mut flush = std::pin::pin!(outbox.flush());
        loop {
            tokio::select! {
                flushed = &mut flush => return flushed.unwrap(),
                () = self.commit_next() => {}
            }
        }
    }

    /// The spans in the log, decoded, with their resource's attributes.
    async fn logged(&self) -> Vec<WireSpan> {
        let records = self.log.read(0, ReadLimit { spans: u64::MAX, bytes: usize::MAX }).await.unwrap();
        let mut spans = Vec::new();
        for record in records {
            let request = ExportTraceServiceRequest::decode(record.bytes).unwrap();
            for resource_spans in request.resource_spans {
                let resource = resource_spans.resource.unwrap();
                assert_eq!(text(&resource.attributes[0].value), SERVICE);
                assert_eq!(text(&resource.attributes[1].value), "here");
                spans.extend(resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        spans
    }
}

fn text(value: &Option<AnyValue>) -> &str {
    match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        other => panic!("no string: {other:?}"),
    }
}

/// Runs on an actix System of its own, in paused time.
fn system(test: impl Future<Output = ()>) {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    actix_rt::System::with_tokio_rt(runtime).block_on(test);
}

#[test]
fn a_span_reaches_the_log_with_all_that_was_said_of_it() {
    system(async {
        let mut setup = Setup::new(1 << 20);
        let _actor = setup.start_actor();
        let connection = setup.connection();
        let parent: SpanContext = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        let mut span = connection
            .span("frame_processing")
            .kind(SpanKind::Server)
            .traceparent(&parent.to_string())
            .unwrap()
            .start_time(UNIX_EPOCH + Duration::from_nanos(5))
            .start();
        span.set_attribute("text", "a").set_attribute("number", 7i64).set_attribute("truth", true);
        span.set_attribute("list", Value::array(["x", "y"]));
        span.add_event("frame", &[("size", 9i64.into())]);
        span.add_link(parent, &[]);
        span.set_status(Status::Ok);
        let context = span.context();
        assert_eq!(span.traceparent(), context.to_string());
        assert_eq!(context.trace_id, parent.trace_id);
        span.end_at(UNIX_EPOCH + Duration::from_nanos(9));
        setup.flush().await;

        let spans = setup.logged().await;
        let [span] = spans.as_slice() else { panic!("{} spans", spans.len()) };
        assert_eq!(span.name, "frame_processing");
        assert_eq!(span.kind, 2);
        assert_eq!(span.trace_id, parent.trace_id.as_bytes());
        assert_eq!(span.span_id, context.span_id.as_bytes());
        assert_eq!(span.parent_span_id, parent.span_id.as_bytes());
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (5, 9));
        let keys: Vec<_> = span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!(keys, ["text", "number", "truth", "list"]);
        assert_eq!(span.events[0].name, "frame");
        assert_eq!(span.links[0].span_id, parent.span_id.as_bytes());
        assert_eq!(span.status.as_ref().unwrap().code(), status::StatusCode::Ok);
    });
}

#[test]
fn a_child_belongs_to_its_parents_trace_and_a_root_to_its_own() {
    system(async {
        let mut setup = Setup::new(1 << 20);
        let _actor = setup.start_actor();
        let connection = setup.connection();
        let root = connection.span("root").start();
        let child = connection.span("child").parent(root.context()).start();
        let other = connection.span("other").start();
        assert_eq!(child.context().trace_id, root.context().trace_id);
        assert_ne!(other.context().trace_id, root.context().trace_id);
        let root_id = root.context().span_id;
        for span in [child, root, other] {
            span.end();
        }
        setup.flush().await;
        let spans = setup.logged().await;
        assert_eq!(spans[0].parent_span_id, root_id.as_bytes());
        assert!(spans[1].parent_span_id.is_empty() && spans[2].parent_span_id.is_empty());
    });
}

#[test]
fn a_span_dropped_unfinished_ends_as_an_error_that_says_so() {
    system(async {
        let mut setup = Setup::new(1 << 20);
        let _actor = setup.start_actor();
        drop(setup.connection().span("forgotten").start());
        setup.flush().await;
        let spans = setup.logged().await;
        let status = spans[0].status.as_ref().unwrap();
        assert_eq!(
            (status.code(), status.message.as_str()),
            (status::StatusCode::Error, "span dropped before its end")
        );
        assert!(spans[0].end_time_unix_nano >= spans[0].start_time_unix_nano);
    });
}

#[test]
fn closing_a_connection_ends_its_open_spans_with_what_they_hold() {
    system(async {
        let mut setup = Setup::new(1 << 20);
        let _actor = setup.start_actor();
        let connection = setup.connection();
        let mut open = connection.span("open").start();
        open.set_attribute("kept", 1i64);
        let mut done = connection.span("done").start();
        done.set_status(Status::Ok);
        assert_eq!(connection.open_spans(), 2);
        connection.close();
        assert!(connection.is_closed());
        // What the handles do afterwards changes nothing.
        open.set_attribute("late", 1i64);
        open.end();
        drop(done);
        assert!(!connection.span("later").start().is_recording());
        setup.flush().await;

        let spans = setup.logged().await;
        assert_eq!(spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["open", "done"]);
        assert_eq!(spans[0].attributes.len(), 1);
        let status = spans[0].status.as_ref().unwrap();
        assert_eq!(status.message, "connection closed before the span ended");
        assert_eq!(spans[1].status.as_ref().unwrap().code(), status::StatusCode::Ok, "ok is final");
        let counts = setup.outbox.counts();
        assert_eq!(counts.refused(DoorReason::Closed).requests, 1);
        assert!(counts.balances());
    });
}

#[test]
fn dropping_the_last_handle_of_a_connection_closes_it() {
    let setup = Setup::new(1 << 20);
    let connection = setup.connection();
    let second = connection.clone();
    let span = connection.span("open").start();
    drop(connection);
    assert!(!second.is_closed());
    drop(second);
    assert_eq!(setup.outbox.counts().pending.requests, 1, "the open span ended");
    span.end();
    assert_eq!(setup.outbox.counts().pending.requests, 1);
}

#[test]
fn a_connection_whose_actor_is_stopped_is_closed() {
    system(async {
        let setup = Setup::new(1 << 20);
        let connection = setup.connection();
        let actor = connection.actor().start();
        let span = connection.span("open").start();
        drop(actor);
        tokio::task::yield_now().await;
        assert!(!connection.is_closed(), "the connection's actor lives while the connection is open");
        let second = setup.connection();
        drop(second.actor());
        assert!(second.is_closed());
        span.end();
    });
}

#[test]
fn beyond_the_bound_of_open_spans_a_span_records_nothing_and_is_counted() {
    let setup = Setup::new(1 << 20);
    let limits = ConnectionLimits { max_open_spans: 2 };
    let connection = Connection::new(ConnectionId::new(1), Arc::clone(&setup.outbox), limits);
    let first = connection.span("1").start();
    let _second = connection.span("2").start();
    let mut third = connection.span("3").start();
    assert!(!third.is_recording());
    third.set_attribute("ignored", true);
    third.end();
    first.end();
    assert!(connection.span("4").start().is_recording(), "an ended span makes room");
    let counts = setup.outbox.counts();
    assert_eq!(counts.refused(DoorReason::TooManyOpen).requests, 1);
    assert!(counts.balances());
}

#[test]
fn a_full_outbox_drops_the_span_counts_it_and_takes_again_after_a_commit() {
    system(async {
        let mut setup = Setup::new(1_000);
        let connection = setup.connection();
        for _ in 0..100 {
            connection.span("a name of some length, so that few spans fit").start().end();
        }
        let counts = setup.outbox.counts();
        let refused = counts.refused(DoorReason::InProcessFull).requests;
        assert!(counts.balances(), "{counts:?}");
        assert!(counts.pending.bytes <= 1_000 && counts.pending.bytes > 800, "{counts:?}");
        assert_eq!(counts.pending.requests + refused, 100);

        let _actor = setup.start_actor();
        setup.flush().await;
        connection.span("again").start().end();
        setup.flush().await;
        let counts = setup.outbox.counts();
        assert_eq!(counts.accepted.requests, 100 - refused + 1);
        assert_eq!((counts.pending.requests, counts.balances()), (0, true));
        assert_eq!(setup.log.end(), counts.accepted.requests);
    });
}

#[test]
fn a_batch_goes_out_at_its_size_or_after_five_milliseconds() {
    system(async {
        let mut setup = Setup::new(16 << 20);
        let _actor = setup.start_actor();
        let connection = setup.connection();
        let begun = tokio::time::Instant::now();
        connection.span("alone").start().end();
        let batch = setup.inbox.recv().await.unwrap();
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_millis(5) && waited < Duration::from_millis(8), "{waited:?}");
        assert_eq!(batch.append.pending.spans(), 1);
        setup.log.commit(vec![batch.append]).await;

        let begun = tokio::time::Instant::now();
        let mut spans = 0;
        while setup.outbox.counts().pending.bytes < 66_000 {
            connection.span("one of many").start().end();
            spans += 1;
        }
        let batch = setup.inbox.recv().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO, "a full batch does not wait");
        assert!(batch.append.bytes.len() >= 64 << 10 && batch.append.bytes.len() < 68 << 10);
        assert!(batch.append.pending.spans() < spans);
    });
}

#[test]
fn a_batch_stays_until_it_is_committed_however_often_it_is_refused_or_lost() {
    system(async {
        let mut setup = Setup::new(1 << 20);
        let _actor = setup.start_actor();
        setup.connection().span("kept").start().end();
        let full = CommitError::Full { bytes: 1, held: 1, limit: 1 };
        for fate in [None, Some(full), None] {
            let batch = setup.inbox.recv().await.unwrap();
            if let Some(error) = fate {
                batch.append.reply.send(Err(error)).unwrap();
            }
            assert_eq!(setup.outbox.counts().accepted.requests, 0);
        }
        setup.flush().await;
        assert_eq!(setup.logged().await.len(), 1);
        assert_eq!(setup.outbox.counts().accepted.requests, 1);
        let spans = setup.spans.counts();
        assert_eq!((spans.scanned, spans.accepted, spans.balances()), (4, 1, true));
    });
}

#[test]
fn what_an_outbox_actor_held_when_it_died_is_left_to_the_next_one() {
    system(async {
        let mut setup = Setup::new(1 << 20);
        setup.connection().span("kept").start().end();
        let mut delivery = Box::pin(setup.delivery().run());
        let in_flight = loop {
            assert!(futures_util::poll!(&mut delivery).is_pending());
            match setup.inbox.try_recv() {
                Ok(batch) => break batch,
                Err(_) => tokio::time::advance(Duration::from_millis(1)).await,
            }
        };
        drop(delivery);
        drop(in_flight);
        let _second = setup.start_actor();
        setup.flush().await;
        assert_eq!(setup.logged().await.len(), 1);
        assert!(setup.outbox.counts().balances());
    });
}

#[test]
fn a_flush_waits_for_what_ended_before_it_and_for_no_more() {
    system(async {
        let mut setup = Setup::new(1 << 20);
        let _actor = setup.start_actor();
        let connection = setup.connection();
        setup.outbox.flush().await.unwrap();
        connection.span("before").start().end();
        let outbox = Arc::clone(&setup.outbox);
        let mut flush = std::pin::pin!(outbox.flush());
        assert!(futures_util::poll!(&mut flush).is_pending());
        let batch = setup.inbox.recv().await.unwrap();
        connection.span("after").start().end();
        assert!(futures_util::poll!(&mut flush).is_pending(), "not committed yet");
        batch.append.reply.send(Ok(Committed { first: 0 })).unwrap();
        flush.await.unwrap();
        assert_eq!(setup.outbox.counts().pending.requests, 1);
    });
}

#[test]
fn a_flush_that_can_no_longer_succeed_says_how_much_is_missing() {
    system(async {
        let setup = Setup::new(1 << 20);
        let connection = setup.connection();
        connection.span("never").start().end();
        let mut flush = std::pin::pin!(setup.outbox.flush());
        assert!(futures_util::poll!(&mut flush).is_pending());
        setup.outbox.close();
        setup.outbox.abandon();
        let error = flush.await.unwrap_err();
        assert_eq!(error, FlushError::ShutDown { spans: 1 });
        assert_eq!(error.to_string(), "telemetry was shut down with 1 spans not yet committed");
        connection.span("later").start().end();
        let counts = setup.outbox.counts();
        assert_eq!(counts.refused(DoorReason::ShuttingDown).requests, 2);
        assert!(counts.balances());
    });
}

#[test]
fn a_closed_outbox_delivers_what_it_holds_and_then_its_actor_stops() {
    system(async {
        let mut setup = Setup::new(1 << 20);
        let actor = setup.start_actor();
        setup.connection().span("last").start().end();
        setup.outbox.close();
        setup.commit_next().await;
        while actor.connected() {
            tokio::task::yield_now().await;
        }
        assert_eq!(setup.logged().await.len(), 1);
        setup.outbox.flush().await.unwrap();
    });
}
