//! The inbox: refusals, backpressure, order, fairness, fencing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    task::{Context as TaskContext, Waker},
    time::Duration,
};

use actix::{AsyncContext, WrapFuture};
use futures_util::{FutureExt, future::join_all};
use tokio::{sync::oneshot, time::Instant};

use crate::supervise::{
    AskError, ChildSpec, ChildState, Closed, FailureCause, Intensity, Recipient, Strategy, Supervisor,
    TrySendError,
    inbox::inbox,
    queue::{Gate, Take},
    testing::{Note, Run, Script, Slow, Tree, Worker, paused, record, settle, spec, threads, until},
};

const LIMIT: Duration = Duration::from_secs(1);

fn small(script: &Script) -> (Supervisor, crate::supervise::ActorRef<Worker>) {
    let mut supervisor = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
    let a = supervisor.child(spec("a").inbox_capacity(2), script.factory("a"));
    (supervisor, a)
}

#[test]
fn a_full_inbox_hands_the_message_back() {
    paused(async {
        let (_supervisor, a) = small(&Script::default());
        assert_eq!(a.depth(), 0);
        a.try_send(Note(1)).unwrap();
        a.recipient::<Note>().try_send(Note(2)).unwrap();
        assert_eq!(a.depth(), 2);
        assert!(matches!(a.try_send(Note(3)), Err(TrySendError::Full(Note(3)))));
        assert!(matches!(a.clone().recipient().try_send(Note(4)), Err(TrySendError::Full(Note(4)))));
        let asked = a.ask(Note(5), LIMIT).await;
        assert!(matches!(asked, Err(AskError::NotAccepted(Note(5)))));
        assert_eq!(a.depth(), 2);
    });
}

#[test]
fn messages_wait_for_the_first_start_and_keep_their_order() {
    paused(async {
        let script = Script::default();
        let (supervisor, a) = small(&script);
        a.try_send(Note(1)).unwrap();
        a.try_send(Note(2)).unwrap();
        let _running = supervisor.start().await.unwrap();
        settle().await;
        assert_eq!(script.log(), ["a started", "a: 1", "a: 2"]);
    });
}

#[test]
fn a_sender_that_waits_no_longer_has_its_message_back() {
    paused(async {
        let script = Script::default();
        let (supervisor, a) = small(&script);
        let a = a.recipient::<Note>();
        for number in 1..=2 {
            a.send_within(Note(number), LIMIT).await.unwrap();
        }
        let begin = Instant::now();
        assert!(matches!(a.send_within(Note(3), LIMIT).await, Err(TrySendError::Full(Note(3)))));
        assert_eq!(begin.elapsed().as_secs(), 1);
        let mut fourth = Box::pin(a.send_within(Note(4), LIMIT));
        assert!((&mut fourth).now_or_never().is_none());
        let running = supervisor.start().await.unwrap();
        fourth.await.unwrap();
        running.shutdown(LIMIT).await;
        assert!(matches!(a.send_within(Note(5), LIMIT).await, Err(TrySendError::Closed(Note(5)))));
        assert_eq!((script.seen("a: 2"), script.seen("a: 3"), script.seen("a: 4")), (1, 0, 1));
    });
}

#[test]
fn a_sender_waits_for_room() {
    paused(async {
        let script = Script::default();
        let (supervisor, a) = small(&script);
        let sent = join_all((0..6).map(|number| {
            let (direct, recipient) = (a.clone(), a.recipient());
            async move {
                if number % 2 == 0 {
                    direct.send(Note(number)).await
                } else {
                    recipient.send(Note(number)).await
                }
            }
        }));
        let mut sent = Box::pin(sent);
        assert!((&mut sent).now_or_never().is_none(), "six messages went into an inbox for two");
        let running = supervisor.start().await.unwrap();
        assert!(sent.await.into_iter().all(|sent| sent.is_ok()));
        until("the last message", || script.seen("a: 5") == 1).await;
        assert_eq!(script.log(), ["a started", "a: 0", "a: 1", "a: 2", "a: 3", "a: 4", "a: 5"]);
        assert_eq!(record(&running, "a").inbox.handled, 6);
    });
}

#[test]
fn an_asker_gets_the_answer_or_learns_that_it_takes_too_long() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        assert_eq!(tree.refs[0].ask(Note(7), LIMIT).await.unwrap(), 7);
        tree.refs[0].try_send(Slow(1, LIMIT * 2)).unwrap();
        let begin = Instant::now();
        assert!(matches!(tree.refs[0].ask(Note(8), LIMIT).await, Err(AskError::Timeout)));
        assert_eq!(begin.elapsed(), LIMIT);
        until("the late answer", || tree.script.seen("a: 8") == 1).await;
    });
}

#[test]
fn after_a_shutdown_every_sender_gets_its_message_back() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        let recipient: Recipient<Note> = tree.refs[0].recipient();
        tree.running.shutdown(LIMIT).await;
        assert!(matches!(tree.refs[0].try_send(Note(1)), Err(TrySendError::Closed(Note(1)))));
        assert!(matches!(tree.refs[0].send(Note(2)).await, Err(Closed(Note(2)))));
        assert!(matches!(tree.refs[0].ask(Note(3), LIMIT).await, Err(AskError::Closed(Note(3)))));
        assert!(matches!(recipient.try_send(Note(4)), Err(TrySendError::Closed(Note(4)))));
        assert!(matches!(recipient.send(Note(5)).await, Err(Closed(Note(5)))));
        assert_eq!(tree.record("a").inbox.accepted, 0);
    });
}

#[test]
fn a_sender_that_waits_for_room_gets_its_message_back_at_a_shutdown() {
    paused(async {
        let script = Script::default();
        let (supervisor, a) = small(&script);
        let running = supervisor.start().await.unwrap();
        a.try_send(Slow(1, LIMIT)).unwrap();
        settle().await;
        a.try_send(Note(2)).unwrap();
        a.try_send(Note(3)).unwrap();
        let (sent, report) = tokio::join!(a.send(Note(4)), running.shutdown(LIMIT * 10));
        assert!(matches!(sent, Err(Closed(Note(4)))));
        assert!(report.is_clean());
        assert_eq!((script.seen("a: 2"), script.seen("a: 3"), script.seen("a: 4")), (1, 1, 0));
        assert_eq!(record(&running, "a").inbox.handled, 3);
    });
}

#[test]
fn a_slot_that_was_promised_before_the_end_is_not_filled_after_it() {
    paused(async {
        let inbox = inbox::<Worker>(1);
        inbox.admit(1);
        inbox.try_tell(Note(1)).unwrap();
        let mut waiting = Box::pin(inbox.tell(Note(2)));
        assert!((&mut waiting).now_or_never().is_none());
        // The slot that becomes free is the sender's, which has not been polled yet.
        let mut cx = TaskContext::from_waker(Waker::noop());
        assert!(matches!(inbox.take(1, &mut cx), Take::Next(_)));
        inbox.settle(1);
        assert_eq!(inbox.abandon(), 0);
        assert!(matches!(waiting.await, Err(Closed(Note(2)))));
        let counts = inbox.counts();
        assert_eq!((counts.accepted, counts.handled, counts.depth), (1, 1, 0));
    });
}

#[test]
fn an_actor_takes_nothing_while_it_waits_for_a_future() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        tree.refs[0].try_send(Slow(1, LIMIT)).unwrap();
        tree.refs[0].try_send(Note(2)).unwrap();
        settle().await;
        let counts = tree.record("a").inbox;
        assert_eq!((counts.handled, counts.depth, counts.in_hand), (1, 1, 0));
        until("the second message", || tree.script.seen("a: 2") == 1).await;
        assert_eq!(tree.script.log(), ["a started", "a: 1", "a: 2"]);
    });
}

#[test]
fn a_message_is_in_hand_while_its_handler_runs() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        let monitor = tree.running.monitor();
        let (seen, see) = oneshot::channel();
        let look = move |_: &mut Worker, _: &mut actix::Context<Worker>| {
            seen.send(monitor.records().remove(0).inbox).unwrap();
        };
        tree.refs[0].try_send(Run::new(look)).unwrap();
        tree.refs[0].try_send(Note(1)).unwrap();
        let counts = see.await.unwrap();
        assert_eq!((counts.accepted, counts.in_hand, counts.depth, counts.handled), (2, 1, 1, 0));
    });
}

#[test]
fn a_flood_leaves_the_actors_own_futures_their_turn() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        let spawn = |actor: &mut Worker, ctx: &mut actix::Context<Worker>| {
            let script = actor.script.clone();
            let turns = async move {
                for _ in 0..4 {
                    script.note("turn");
                    tokio::task::yield_now().await;
                }
            };
            ctx.spawn(turns.into_actor(actor));
        };
        tree.refs[0].try_send(Run::new(spawn)).unwrap();
        for number in 0..500 {
            tree.refs[0].try_send(Note(number)).unwrap();
        }
        settle().await;
        let log = tree.script.log();
        let turns: Vec<_> = (0..log.len()).filter(|at| log[*at] == "turn").collect();
        assert_eq!(turns.len(), 4);
        assert!(turns.windows(2).all(|pair| pair[1] - pair[0] <= 65), "{turns:?}");
    });
}

#[test]
fn a_flooded_neighbour_delays_a_timer_by_a_bounded_number_of_messages() {
    /// Messages that a neighbour handles between a timer's moment and the timer: two rounds of its budget
    /// for each of the tasks that the runtime polls before it looks at its timers.
    const MESSAGES_MAX: u64 = 2 * 64 * 61;
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["flooded", "ticking"]).await;
        let (on, handled, ticks) = (Arc::new(AtomicBool::new(true)), Counter::default(), Counter::default());
        for _ in 0..512 {
            let (flooded, on, handled) = (tree.refs[0].clone(), Arc::clone(&on), Arc::clone(&handled));
            tree.refs[0].try_send(flood(flooded, on, handled)).unwrap();
        }
        let ticked = Arc::clone(&ticks);
        let tick = Run::new(move |_, ctx| {
            ctx.run_interval(Duration::from_millis(1), move |_, _| {
                ticked.fetch_add(1, Relaxed);
            });
        });
        tree.refs[1].try_send(tick).unwrap();
        tokio::task::yield_now().await;
        for tick in 0..20 {
            while tree.record("ticking").inbox.handled == 0 {
                tokio::task::yield_now().await;
            }
            let before = handled.load(Relaxed);
            tokio::time::advance(Duration::from_millis(1)).await;
            while ticks.load(Relaxed) <= tick {
                tokio::task::yield_now().await;
            }
            let between = handled.load(Relaxed) - before;
            assert!(between <= MESSAGES_MAX, "{between} messages before the timer");
        }
        assert!(handled.load(Relaxed) > 1_000, "there was no flood");
        on.store(false, Relaxed);
    });
}

type Counter = Arc<AtomicU64>;

/// A message that is sent again whenever it is handled.
fn flood(to: crate::supervise::ActorRef<Worker>, on: Arc<AtomicBool>, handled: Counter) -> Run {
    Run::new(move |_, _| {
        handled.fetch_add(1, Relaxed);
        if on.load(Relaxed) {
            let again = flood(to.clone(), on, handled);
            to.try_send(again).unwrap();
        }
    })
}

#[test]
fn senders_to_an_actor_that_is_restarting_are_refused_wait_or_time_out_as_ever() {
    paused(async {
        let script = Script::default();
        let (supervisor, a) = small(&script);
        let running = supervisor.start().await.unwrap();
        a.try_send(Run::new(|_, _| panic!("boom"))).unwrap();
        until("the crash", || record(&running, "a").state == ChildState::BackingOff).await;
        let ms = Duration::from_millis;
        // A fresh clone each time: the bound is the inbox's, not the sender's.
        for number in 0..2 {
            a.clone().try_send(Note(number)).unwrap();
        }
        for number in 2..10 {
            let refused = a.clone().recipient::<Note>().try_send(Note(number));
            assert!(matches!(refused, Err(TrySendError::Full(Note(n))) if n == number));
        }
        let not_accepted = a.clone().ask(Note(10), ms(10)).await;
        assert!(matches!(not_accepted, Err(AskError::NotAccepted(Note(10)))));
        let full = a.clone().recipient().send_within(Note(11), ms(10)).await;
        assert!(matches!(full, Err(TrySendError::Full(Note(11)))));
        assert_eq!(record(&running, "a").state, ChildState::BackingOff);
        let (sent, asked) = tokio::join!(a.send(Note(12)), a.ask(Note(13), LIMIT));
        sent.unwrap();
        assert_eq!(asked.unwrap(), 13);
        assert_eq!(script.log()[2..], ["a started", "a: 0", "a: 1", "a: 12", "a: 13"]);

        // Accepted, but the answer would come after the restart.
        a.try_send(Run::new(|_, _| panic!("boom"))).unwrap();
        assert!(matches!(a.ask(Note(14), ms(10)).await, Err(AskError::Timeout)));
        assert_eq!(record(&running, "a").state, ChildState::BackingOff);
        until("its handling", || script.seen("a: 14") == 1).await;
        a.try_send(Run::new(|_, _| panic!("boom"))).unwrap();
        until("the crash", || record(&running, "a").state == ChildState::BackingOff).await;
        let (closed, _) = tokio::join!(
            async {
                settle().await;
                a.ask(Note(15), LIMIT).await
            },
            running.shutdown(LIMIT),
        );
        assert!(matches!(closed, Err(AskError::Closed(Note(15)))));
    });
}

#[test]
fn an_incarnation_that_was_replaced_never_touches_the_inbox_again() {
    let inbox = inbox::<Worker>(8);
    let mut cx = TaskContext::from_waker(Waker::noop());
    inbox.admit(1);
    for number in 0..3 {
        inbox.try_tell(Note(number)).unwrap();
    }
    assert!(matches!(inbox.take(1, &mut cx), Take::Next(_)));
    inbox.admit(2);
    assert_eq!(inbox.counts().lost, 1, "what the first one had in hand is lost");
    assert!(matches!(inbox.take(1, &mut cx), Take::Fenced));
    assert!(matches!(inbox.take_many(1, &mut cx, &mut Vec::new(), 8), Take::Fenced));
    assert!(matches!(inbox.take(2, &mut cx), Take::Next(_)));
    inbox.settle(1);
    assert_eq!(inbox.forfeit(1), None);
    assert_eq!(inbox.counts().in_hand, 1, "the first one settled what the second has in hand");
    assert!(matches!(inbox.take(2, &mut cx), Take::Next(_)));
    let counts = inbox.counts();
    assert_eq!((counts.handled, counts.lost, counts.in_hand, counts.depth), (1, 1, 1, 0));
}

#[test]
fn a_thread_that_comes_back_late_finds_itself_replaced() {
    // Real threads and real time: the first incarnation blocks its arbiter until it is let go.
    threads(async {
        let script = Script::default();
        let stuck = actix_rt::Arbiter::new();
        let mut supervisor = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let (blocked, is_blocked) = oneshot::channel();
        let (let_go, gate) = mpsc::channel::<()>();
        let a = supervisor.child(spec("a").arbiter(stuck.handle()), script.factory("a"));
        let running = supervisor.start().await.unwrap();
        a.try_send(Run::new(move |_, _| {
            blocked.send(()).unwrap();
            gate.recv().unwrap_err();
        }))
        .unwrap();
        is_blocked.await.unwrap();
        a.try_send(Note(1)).unwrap();
        assert_eq!(record(&running, "a").inbox.in_hand, 1);

        let report = running.shutdown(Duration::from_millis(20)).await;
        assert_eq!((report.given_up, report.abandoned), (vec!["a".to_owned()], 1));
        let counts = record(&running, "a").inbox;
        assert_eq!((counts.lost, counts.abandoned, counts.handled), (1, 1, 0));
        let failure = record(&running, "a").last_failure.unwrap();
        assert_eq!(failure.cause, FailureCause::GivenUp);

        drop(let_go);
        stuck.stop();
        stuck.join().unwrap();
        assert_eq!(script.log(), ["a started", "a drop"], "it took something, or ran a hook");
        assert_eq!(record(&running, "a").inbox, counts);
        assert_eq!(script.alive(), 0);
    });
}

#[test]
fn an_arbiter_that_ends_under_its_actor_is_that_actors_failure() {
    threads(async {
        let script = Script::default();
        let arbiter = actix_rt::Arbiter::new();
        let intensity = Intensity { max_restarts: 9, window: Duration::from_secs(60) };
        let mut supervisor = Supervisor::new("root", Strategy::OneForOne, intensity);
        let spec = ChildSpec::new("a").arbiter(arbiter.handle());
        let a = supervisor.child(spec, script.factory("a"));
        let running = supervisor.start().await.unwrap();
        assert_eq!(a.ask(Note(1), LIMIT).await.unwrap(), 1);
        arbiter.stop();
        arbiter.join().unwrap();
        a.try_send(Note(2)).unwrap();
        let failure = running.escalated().await;
        assert_eq!(failure.message, "a cannot be restarted: arbiter is gone");
        let record = record(&running, "a");
        assert_eq!(record.last_failure.unwrap().cause, FailureCause::ArbiterGone);
        assert_eq!((record.state, record.restarts), (ChildState::Stopped, 1));
        assert_eq!((record.inbox.handled, record.inbox.depth, record.inbox.lost), (1, 1, 0));
        // No hook runs on the actor whose thread ended, but it is dropped.
        assert_eq!(script.log(), ["a started", "a: 1", "a drop"]);
        let report = running.shutdown(LIMIT).await;
        assert_eq!(report.abandoned, 1);
    });
}

#[test]
fn a_panic_while_a_message_is_dropped_does_not_stop_the_count() {
    struct Grenade;
    impl Drop for Grenade {
        fn drop(&mut self) {
            panic!("message panics in its drop");
        }
    }
    let inbox = inbox::<Worker>(8);
    for _ in 0..2 {
        let grenade = Grenade;
        inbox.try_tell(Run::new(move |_, _| drop(grenade))).unwrap();
    }
    assert_eq!(inbox.abandon(), 2);
}

#[test]
fn a_recipient_may_be_a_plain_channel() {
    paused(async {
        let (recipient, mut messages) = Recipient::channel(1);
        recipient.try_send(1).unwrap();
        assert_eq!(recipient.depth(), 1);
        assert!(matches!(recipient.try_send(2), Err(TrySendError::Full(2))));
        assert_eq!(messages.recv().await, Some(1));
        recipient.send(3).await.unwrap();
        drop(messages);
        assert!(matches!(recipient.send(4).await, Err(Closed(4))));
    });
}

#[test]
fn the_types_that_are_handed_around_are_for_any_thread() {
    fn any_thread<T: Clone + Send + Sync + 'static>() {}
    any_thread::<crate::supervise::ActorRef<Worker>>();
    any_thread::<Recipient<Note>>();
    any_thread::<crate::supervise::DynamicRef>();
    any_thread::<crate::supervise::TreeMonitor>();
}
