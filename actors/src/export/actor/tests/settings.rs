//! Other settings while it runs.

use super::*;

impl Exporter {
    async fn reconfigure(
        &self,
        endpoint: &str,
        change: impl FnOnce(&mut DestinationConfig),
    ) -> Result<(), DestinationConfigError> {
        let mut config = DestinationConfig {
            min_batch_spans: 1,
            max_batch_spans: 100,
            ..DestinationConfig::new("test", endpoint)
        };
        change(&mut config);
        self.addr.send(Reconfigure(Box::new(config))).await.unwrap()
    }
}

#[actix::test]
async fn it_goes_on_at_another_endpoint_where_it_stood() {
    let (source, before) = (Source::new(1), ScriptedDestination::start().unwrap());
    let after = ScriptedDestination::start().unwrap();
    source.commit(300).await;
    let exporter = source.export(D0, &before.endpoint(), |_| {});
    exporter.drain().await;
    exporter.reconfigure(&after.endpoint(), |_| {}).await.unwrap();
    source.commit(300).await;
    exporter.wake();
    assert_eq!(exporter.drain().await, Drained { left: 0 });
    assert_eq!(set(before.acknowledged()), set(0..300));
    assert_eq!(set(after.acknowledged()), set(300..600));
    let ledger = source.ledger(D0);
    assert_eq!((ledger.exported, ledger.position), (600, 600));
}

#[actix::test]
async fn what_is_in_flight_is_answered_first_and_not_repeated() {
    let (source, before) = (Source::new(1), ScriptedDestination::start().unwrap());
    let after = ScriptedDestination::start().unwrap();
    before.script([Reply::Late]);
    source.commit(100).await;
    let exporter = source.export(D0, &before.endpoint(), |config| config.concurrency = 1);
    before.until(|before| before.received().len() == 1).await;
    exporter.reconfigure(&after.endpoint(), |_| {}).await.unwrap();
    source.commit(100).await;
    exporter.wake();
    before.release();
    assert_eq!(exporter.drain().await, Drained { left: 0 });
    assert_eq!(before.acknowledged(), (0..100).collect::<Vec<_>>());
    assert_eq!(after.acknowledged(), (100..200).collect::<Vec<_>>());
}

#[actix::test]
async fn an_endpoint_that_was_wrong_is_left_at_once() {
    let (source, mut nobody) = (Source::new(1), ScriptedDestination::start().unwrap());
    nobody.kill();
    let right = ScriptedDestination::start().unwrap();
    source.commit(300).await;
    let exporter = source.export(D0, &nobody.endpoint(), |config| {
        // It would rest for an hour.
        config.backoff.initial = Duration::from_secs(3_600);
        config.backoff.cap = Duration::from_secs(3_600);
    });
    exporter.status.until(|status| status.state == DestinationState::Unreachable).await;
    exporter.reconfigure(&right.endpoint(), |_| {}).await.unwrap();
    right.until(|right| right.acknowledged().len() == 300).await;
    assert_eq!(exporter.drain().await, Drained { left: 0 });
    assert_eq!(set(right.acknowledged()), set(0..300));
}

#[actix::test]
async fn another_sampling_rate_holds_from_the_next_batch_on() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    source.commit(100).await;
    let exporter = source.export(D0, &destination.endpoint(), |_| {});
    exporter.drain().await;
    exporter.reconfigure(&destination.endpoint(), |config| config.sampling_rate = 0.0).await.unwrap();
    source.commit(100).await;
    exporter.wake();
    exporter.drain().await;
    let ledger = source.ledger(D0);
    assert_eq!((ledger.exported, ledger.sampled_out), (100, 100));
}

#[actix::test]
async fn settings_that_are_not_valid_change_nothing() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    let exporter = source.export(D0, &destination.endpoint(), |_| {});
    let refused = exporter.reconfigure("nowhere", |config| config.sampling_rate = 0.0).await.unwrap_err();
    assert_eq!(refused.problems[0].setting, "endpoint");
    source.commit(100).await;
    exporter.wake();
    exporter.drain().await;
    assert_eq!(set(destination.acknowledged()), set(0..100));
}

#[actix::test]
async fn another_share_of_the_stop_holds_at_once_and_connects_to_nobody_anew() {
    let (source, destination) = (Source::new(1), ScriptedDestination::start().unwrap());
    destination.judge(|_| Reply::Stall);
    source.commit(100).await;
    let exporter = source.export(D0, &destination.endpoint(), |config| {
        config.timeout = Duration::from_secs(600);
        config.drain_timeout = Duration::from_secs(600);
    });
    destination.until(|destination| destination.received().len() == 1).await;
    let (connections, _) = destination.counts();
    exporter.addr.send(DrainWithin(Duration::from_millis(100))).await.unwrap();
    // It would wait for ten minutes.
    stop(&exporter).await;
    assert_eq!((destination.counts().0, source.ledger(D0).queued()), (connections, 100));
}
