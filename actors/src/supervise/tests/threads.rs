//! A plain thread as a child. Real threads, so real time, which no outcome depends on.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::supervise::{
    ChildKind, ChildState, Closed, FailureCause, Intensity, Recipient, Restart, RunningTree, StartError,
    Strategy, Supervisor, ThreadContext, TrySendError,
    queue::{Gate, Queue},
    testing::{Script, record, spec, threads, workers},
};

const MINUTE: Duration = Duration::from_secs(60);

/// What a writer of the tests is told.
enum Line {
    Write(u32),
    Panic,
    Fail,
    Return,
    /// Tells that it came to this, and goes on when the other end is gone.
    Block(oneshot::Sender<()>, std::sync::mpsc::Receiver<()>),
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u32>>>);

impl Written {
    fn seen(&self) -> Vec<u32> {
        self.0.lock().clone()
    }

    fn write(&self, thread: &mut ThreadContext<Line>, max: usize) -> Result<(), StartError> {
        let mut batch = Vec::new();
        while thread.recv(&mut batch, max) {
            for line in batch.drain(..) {
                match line {
                    Line::Write(number) => self.0.lock().push(number),
                    Line::Panic => panic!("disk is on fire"),
                    Line::Fail => return Err(StartError::new("disk is full")),
                    Line::Return => return Ok(()),
                    Line::Block(blocked, gate) => {
                        blocked.send(()).unwrap();
                        gate.recv().unwrap_err();
                        // Whether it may still write to what it shares with its successor.
                        self.0.lock().push(if thread.is_fenced() { 1_000 } else { 2_000 });
                    }
                }
            }
        }
        assert!(thread.is_stopping());
        Ok(())
    }
}

fn root() -> Supervisor {
    Supervisor::new("root", Strategy::OneForOne, Intensity::default())
}

async fn writer(max: usize, lines: impl FnOnce(&Recipient<Line>)) -> (RunningTree, Recipient<Line>, Written) {
    let (mut root, written) = (root(), Written::default());
    let body = {
        let written = written.clone();
        move |thread: &mut ThreadContext<Line>| written.write(thread, max)
    };
    let writer = root.thread(spec("writer"), body);
    lines(&writer);
    (root.start().await.unwrap(), writer, written)
}

/// Waits for real threads.
async fn come(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_thread_takes_what_is_there_in_batches_and_in_order() {
    threads(async {
        let (mut root, batches) = (root(), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&batches);
        let numbers = root.thread(spec("writer"), move |thread| {
            let mut batch = Vec::new();
            while thread.recv(&mut batch, 4) {
                log.lock().push(std::mem::take(&mut batch));
            }
            Ok(())
        });
        for number in 0..10 {
            numbers.try_send(number).unwrap();
        }
        assert_eq!(numbers.depth(), 10);
        let running = root.start().await.unwrap();
        numbers.send(10).await.unwrap();
        assert!(running.shutdown(MINUTE).await.is_clean());
        let batches = std::mem::take(&mut *batches.lock());
        assert_eq!(batches.concat(), (0..=10).collect::<Vec<_>>());
        assert_eq!(batches[..2], [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
        let record = record(&running, "writer");
        assert_eq!((record.kind, record.state), (ChildKind::Thread, ChildState::Stopped));
        assert_eq!((record.inbox.accepted, record.inbox.handled), (11, 11));
        assert!(matches!(numbers.try_send(7), Err(TrySendError::Closed(7))));
        assert!(matches!(numbers.send(8).await, Err(Closed(8))));
    });
}

#[test]
fn a_full_inbox_of_a_thread_hands_the_message_back() {
    threads(async {
        let mut root = root();
        let numbers: Recipient<u32> = root.thread(spec("writer").inbox_capacity(1), |_| Ok(()));
        numbers.try_send(1).unwrap();
        assert!(matches!(numbers.try_send(2), Err(TrySendError::Full(2))));
        assert!(matches!(numbers.send_within(3, Duration::from_millis(1)).await, Err(TrySendError::Full(3))));
    });
}

#[test]
fn a_panic_in_a_thread_costs_the_message_in_hand_and_leaves_the_inbox_intact() {
    threads(async {
        let (running, writer, written) = writer(1, |writer| {
            writer.try_send(Line::Panic).ok().unwrap();
            for number in 0..10 {
                writer.try_send(Line::Write(number)).ok().unwrap();
            }
        })
        .await;
        come(|| record(&running, "writer").inbox.handled == 10).await;
        come(|| record(&running, "writer").state == ChildState::Running).await;
        assert_eq!((written.seen(), writer.depth()), ((0..10).collect(), 0));
        let record = record(&running, "writer");
        assert_eq!((record.state, record.restarts, record.panics), (ChildState::Running, 1, 1));
        assert_eq!((record.inbox.accepted, record.inbox.handled, record.inbox.lost), (11, 10, 1));
        let failure = record.last_failure.unwrap();
        assert_eq!((failure.cause, failure.message.as_str()), (FailureCause::Panicked, "disk is on fire"));
        assert_eq!(failure.message_type.as_deref(), Some("Line"));
        assert!(failure.location.unwrap().starts_with(file!()));
        assert!(running.shutdown(MINUTE).await.is_clean());
    });
}

#[test]
fn the_batch_in_hand_is_lost_with_its_thread() {
    threads(async {
        let (running, _, written) = writer(3, |writer| {
            for line in [Line::Write(0), Line::Panic, Line::Write(1), Line::Write(2)] {
                writer.try_send(line).ok().unwrap();
            }
        })
        .await;
        come(|| record(&running, "writer").inbox.handled == 1).await;
        assert_eq!(written.seen(), [0, 2]);
        assert_eq!(record(&running, "writer").inbox.lost, 3);
    });
}

#[test]
fn a_thread_that_gives_up_or_returns_is_restarted_as_its_policy_says() {
    threads(async {
        let (running, writer, written) = writer(1, |_| {}).await;
        writer.try_send(Line::Fail).ok().unwrap();
        writer.try_send(Line::Return).ok().unwrap();
        writer.try_send(Line::Write(7)).ok().unwrap();
        come(|| written.seen() == [7] && record(&running, "writer").inbox.handled == 2).await;
        let child = record(&running, "writer");
        assert_eq!((child.restarts, child.panics, child.inbox.lost, child.inbox.handled), (2, 0, 1, 2));
        let failure = child.last_failure.unwrap();
        assert_eq!((failure.cause, failure.message.as_str()), (FailureCause::Failed, "disk is full"));

        let mut root = root();
        let once: Recipient<u32> = root.thread(spec("once").restart(Restart::Transient), |_| Ok(()));
        let running = root.start().await;
        // It returns before it is ready, which a transient child may.
        let running = running.unwrap();
        come(|| record(&running, "once").state == ChildState::Stopped).await;
        assert!(matches!(once.try_send(1), Err(TrySendError::Closed(1))));
    });
}

#[test]
fn the_next_child_starts_when_the_thread_is_ready() {
    threads(async {
        let (script, mut root) = (Script::default(), root());
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let log = script.clone();
        let _writer: Recipient<u32> = root.thread(spec("writer"), move |thread| {
            gate.lock().recv().unwrap_err();
            log.note("writer is ready");
            thread.ready();
            while thread.recv(&mut Vec::new(), 1) {}
            Ok(())
        });
        root.child(spec("a"), script.factory("a"));
        let (running, ()) = tokio::join!(root.start(), async { drop(go) });
        assert_eq!(script.log(), ["writer is ready", "a started"]);
        assert!(running.unwrap().shutdown(MINUTE).await.is_clean());
    });
}

#[test]
fn a_panic_before_a_thread_is_ready_fails_the_first_start() {
    threads(async {
        let (mut root, _) = workers(&Script::default(), Strategy::OneForOne, Intensity::default(), &["a"]);
        let _never: Recipient<u32> = root.thread(spec("writer"), |_| panic!("no disk"));
        let failure = root.start().await.err().unwrap().to_string();
        assert!(failure.starts_with("child writer: no disk at "), "{failure}");
    });
}

#[test]
fn a_thread_that_does_not_end_is_given_up_fenced_and_named() {
    threads(async {
        let (mut root, written) = (root(), Written::default());
        let body = written.clone();
        let (ended, mut end) = mpsc::unbounded_channel();
        let writer = root.thread(spec("writer").stop_deadline(Duration::from_millis(20)), move |thread| {
            let result = body.write(thread, 1);
            ended.send(()).unwrap();
            result
        });
        let running = root.start().await.unwrap();
        let (blocked, is_blocked) = oneshot::channel();
        let (let_go, gate) = std::sync::mpsc::channel();
        writer.try_send(Line::Block(blocked, gate)).ok().unwrap();
        is_blocked.await.unwrap();
        writer.try_send(Line::Write(1)).ok().unwrap();

        let report = running.shutdown(MINUTE).await;
        assert_eq!((report.given_up, report.abandoned), (vec!["writer".to_owned()], 1));
        let counts = record(&running, "writer").inbox;
        assert_eq!((counts.lost, counts.abandoned, counts.handled), (1, 1, 0));
        drop(let_go);
        end.recv().await.unwrap();
        assert_eq!(written.seen(), [1_000], "it took something more");
        assert_eq!(record(&running, "writer").inbox, counts);
    });
}

#[test]
fn a_thread_that_makes_no_progress_is_replaced_and_its_successor_goes_on() {
    threads(async {
        let (mut root, written) = (root(), Written::default());
        let body = written.clone();
        let spec = spec("writer").progress_deadline(Some(Duration::from_millis(400)));
        let writer = root.thread(spec, move |thread| body.write(thread, 1));
        let running = root.start().await.unwrap();
        let (blocked, is_blocked) = oneshot::channel();
        let (let_go, gate) = std::sync::mpsc::channel();
        writer.try_send(Line::Block(blocked, gate)).ok().unwrap();
        is_blocked.await.unwrap();
        writer.try_send(Line::Write(1)).ok().unwrap();
        come(|| written.seen() == [1]).await;
        let child = record(&running, "writer");
        assert_eq!((child.stuck, child.restarts, child.inbox.lost), (1, 1, 1));
        let failure = child.last_failure.unwrap();
        assert_eq!((failure.cause, failure.message_type.as_deref()), (FailureCause::Stuck, Some("Line")));
        drop(let_go);
        come(|| written.seen() == [1, 1_000]).await;
        assert!(running.shutdown(MINUTE).await.is_clean());
    });
}

#[test]
fn a_thread_in_its_backoff_drains_at_a_shutdown() {
    threads(async {
        let (running, writer, written) = writer(1, |_| {}).await;
        writer.try_send(Line::Panic).ok().unwrap();
        come(|| record(&running, "writer").state == ChildState::BackingOff).await;
        writer.try_send(Line::Write(1)).ok().unwrap();
        assert!(running.shutdown(MINUTE).await.is_clean());
        assert_eq!(written.seen(), [1]);
    });
}

#[test]
fn a_sign_of_life_counts_as_progress() {
    let queue = Queue::new(1, |_: &u32| "u32", None);
    queue.fill(queue.try_reserve().unwrap(), 7);
    let before = queue.standing();
    assert_eq!(before, queue.standing());
    queue.beat();
    assert_eq!((queue.standing().waiting, queue.standing() == before), (1, false));
}

#[test]
fn a_thread_that_is_told_to_crash_does_so_while_it_waits_and_with_a_batch_in_hand() {
    threads(async {
        let mut root = root();
        let numbers: Recipient<u32> = root.thread(spec("reader"), |thread| {
            let mut batch = Vec::new();
            while thread.recv(&mut batch, 8) {
                batch.clear();
            }
            Ok(())
        });
        let running = root.start().await.unwrap();
        running.monitor().crash("reader", "while it waits").unwrap();
        come(|| record(&running, "reader").panics == 1).await;
        assert_eq!(record(&running, "reader").inbox.lost, 0);
        running.monitor().crash("reader", "with a batch").unwrap();
        numbers.send(1).await.unwrap();
        come(|| record(&running, "reader").panics == 2).await;
        numbers.send(2).await.unwrap();
        assert!(running.shutdown(MINUTE).await.is_clean());
        let record = record(&running, "reader");
        assert_eq!(record.last_failure.unwrap().message, "with a batch");
        assert_eq!(record.inbox.handled + record.inbox.lost, 2, "{:?}", record.inbox);
        assert!(running.monitor().crash("reader", "too late").is_err());
    });
}
