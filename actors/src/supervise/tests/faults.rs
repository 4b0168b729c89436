//! A panic wherever an actor runs code: it is restarted, and at most the message in hand is lost.

use std::{sync::Arc, time::Duration};

use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture, WrapFuture};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::supervise::{
    AskError, ChildState, FailureCause, InboxCounts, Strategy, fail,
    testing::{At, Do, Note, Run, Tree, Worker, paused, settle, until},
};

const BEHIND: u32 = 10;

/// Makes a worker fail with ten messages behind the failure, and sees what became of all.
fn with_ten_behind(lost: u64, cause: FailureCause, message: &str, fault: impl FnOnce(&Tree)) {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        tree.script.log();
        fault(&tree);
        for number in 0..BEHIND {
            tree.refs[0].try_send(Note(number)).unwrap();
        }
        let last = format!("a: {}", BEHIND - 1);
        until("the last message", || tree.script.seen(&last) == 1).await;
        let up = || tree.record("a").restarts == 1 && tree.record("a").state == ChildState::Running;
        until("the restart", up).await;

        for number in 0..BEHIND {
            assert_eq!(tree.script.seen(&format!("a: {number}")), 1, "message {number}");
        }
        let record = tree.record("a");
        assert_eq!(record.restarts, 1);
        assert_eq!(record.incarnation, 2);
        assert_eq!(record.panics, u64::from(cause == FailureCause::Panicked));
        let handled = record.inbox.accepted - lost;
        let counts = InboxCounts { accepted: record.inbox.accepted, handled, lost, ..InboxCounts::default() };
        assert_eq!(record.inbox, counts);
        let failure = record.last_failure.unwrap();
        assert_eq!((failure.cause, failure.message.as_str()), (cause, message));
        assert_eq!(failure.message_type.as_deref(), (lost == 1).then_some("Run"));
        let located = failure.location.is_some_and(|at| at.contains(".rs:"));
        assert_eq!(located, cause == FailureCause::Panicked);
        assert_eq!(tree.script.alive(), 1);
        assert!(tree.running.shutdown(Duration::from_secs(60)).await.is_clean());
    });
}

fn run(action: impl FnOnce(&mut Worker, &mut Context<Worker>) + Send + 'static) -> impl FnOnce(&Tree) {
    move |tree| tree.refs[0].try_send(Run::new(action)).unwrap()
}

#[test]
fn a_panic_in_a_handler_costs_the_message_in_hand() {
    with_ten_behind(1, FailureCause::Panicked, "boom", run(|_, _| panic!("boom")));
}

#[test]
fn a_panic_in_a_spawned_future_costs_no_message() {
    with_ten_behind(
        0,
        FailureCause::Panicked,
        "boom in a future",
        run(|actor, ctx| {
            let later = sleep(Duration::from_millis(5)).into_actor(actor);
            ctx.spawn(later.map(|(), _, _| panic!("boom in a future")));
        }),
    );
}

#[test]
fn a_panic_in_a_future_that_the_actor_waits_for_costs_no_message() {
    with_ten_behind(
        0,
        FailureCause::Panicked,
        "boom in a wait",
        run(|actor, ctx| {
            ctx.wait(async { panic!("boom in a wait") }.into_actor(actor));
        }),
    );
}

/// Its answer comes from a future that the actor polls.
struct Compute;

impl Message for Compute {
    type Result = u32;
}

impl Handler<Compute> for Worker {
    type Result = ResponseActFuture<Self, u32>;

    fn handle(&mut self, _: Compute, _: &mut Context<Self>) -> Self::Result {
        let answer = sleep(Duration::from_millis(5)).into_actor(self);
        Box::pin(answer.map(|(), _, _| panic!("boom in an answer")))
    }
}

#[test]
fn a_panic_in_the_future_of_an_answer_costs_no_message() {
    with_ten_behind(0, FailureCause::Panicked, "boom in an answer", |tree| {
        tree.refs[0].try_send(Compute).unwrap();
    });
}

#[test]
fn whoever_asks_for_an_answer_whose_future_dies_is_told() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        let asked = tree.refs[0].ask(Compute, Duration::from_secs(1)).await;
        assert!(matches!(asked, Err(AskError::Lost)));
    });
}

#[test]
fn a_lock_that_a_panicking_handler_held_is_free_for_the_next_incarnation() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        let state = Arc::new(Mutex::new((1, 1)));
        let change = |state: &Arc<Mutex<(u32, u32)>>, by: Option<u32>| {
            let state = Arc::clone(state);
            Run::new(move |_, _| {
                let mut held = state.lock();
                // Whatever may panic comes before the change, so that no half of one is ever seen.
                let next = (held.0 + by.expect("nothing to add"), held.1 + by.unwrap_or_default());
                *held = next;
            })
        };
        tree.refs[0].try_send(change(&state, None)).unwrap();
        for _ in 0..BEHIND {
            tree.refs[0].try_send(change(&state, Some(2))).unwrap();
        }
        until("the last message", || tree.record("a").inbox.handled == u64::from(BEHIND)).await;
        assert_eq!(*state.lock(), (21, 21));
        assert_eq!(tree.record("a").last_failure.unwrap().message, "nothing to add");
    });
}

#[test]
fn a_panic_in_an_interval_costs_no_message() {
    with_ten_behind(
        0,
        FailureCause::Panicked,
        "boom in an interval",
        run(|_, ctx| {
            ctx.run_interval(Duration::from_millis(5), |_, _| panic!("boom in an interval"));
        }),
    );
}

#[test]
fn a_panic_in_run_later_costs_no_message() {
    with_ten_behind(
        0,
        FailureCause::Panicked,
        "boom later",
        run(|_, ctx| {
            ctx.run_later(Duration::from_millis(5), |_, _| panic!("boom later"));
        }),
    );
}

#[test]
fn a_panic_in_a_notified_handler_costs_no_message() {
    with_ten_behind(
        0,
        FailureCause::Panicked,
        "boom notified",
        run(|_, ctx| ctx.notify(Run::new(|_, _| panic!("boom notified")))),
    );
}

#[test]
fn a_panic_in_stopping_costs_no_message() {
    with_ten_behind(0, FailureCause::Panicked, "a panics in Stopping", |tree| {
        tree.script.plan("a", At::Stopping, Do::Panic);
        run(|_, ctx| actix::ActorContext::stop(ctx))(tree);
    });
}

#[test]
fn a_panic_in_stopped_costs_no_message() {
    with_ten_behind(0, FailureCause::Panicked, "a panics in Stopped", |tree| {
        tree.script.plan("a", At::Stopped, Do::Panic);
        run(|_, ctx| actix::ActorContext::stop(ctx))(tree);
    });
}

#[test]
fn a_panic_in_the_drop_of_an_actor_that_stopped_costs_no_message() {
    with_ten_behind(0, FailureCause::Panicked, "a panics in its drop", |tree| {
        tree.script.plan("a", At::Drop, Do::Panic);
        run(|_, ctx| actix::ActorContext::stop(ctx))(tree);
    });
}

#[test]
fn a_failure_that_is_no_panic_costs_no_message() {
    with_ten_behind(0, FailureCause::Failed, "disk is gone", run(|_, ctx| fail(ctx, "disk is gone")));
}

#[test]
fn a_panic_in_the_drop_of_an_actor_that_panicked_changes_nothing() {
    with_ten_behind(1, FailureCause::Panicked, "boom", |tree| {
        tree.script.plan("a", At::Drop, Do::Panic);
        run(|_, _| panic!("boom"))(tree);
    });
}

/// The second incarnation fails to start, the third one is well.
fn failing_restart(at: At, what: Do, cause: FailureCause, message: &str) {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        tree.script.plan("a", at, what);
        tree.refs[0].try_send(Run::new(|_, _| panic!("boom"))).unwrap();
        for number in 0..BEHIND {
            tree.refs[0].try_send(Note(number)).unwrap();
        }
        until("the last message", || tree.script.seen("a: 9") == 1).await;
        for number in 0..BEHIND {
            assert_eq!(tree.script.seen(&format!("a: {number}")), 1, "message {number}");
        }
        let record = tree.record("a");
        assert_eq!((record.restarts, record.inbox.handled, record.inbox.lost), (2, 10, 1));
        let failure = record.last_failure.unwrap();
        assert_eq!((failure.cause, failure.message.as_str()), (cause, message));
        assert_eq!(failure.message_type, None);
    });
}

#[test]
fn a_panic_in_the_factory_is_a_failed_start() {
    failing_restart(At::Factory, Do::Panic, FailureCause::Panicked, "factory of a panics");
}

#[test]
fn an_error_of_the_factory_is_a_failed_start() {
    failing_restart(At::Factory, Do::Fail, FailureCause::Failed, "no such device");
}

#[test]
fn a_panic_in_started_is_a_failed_start() {
    failing_restart(At::Started, Do::Panic, FailureCause::Panicked, "a panics in Started");
}

#[test]
fn a_failure_in_started_is_a_failed_start() {
    failing_restart(At::Started, Do::Fail, FailureCause::Failed, "a fails in Started");
}

#[test]
fn a_start_that_hangs_is_replaced_at_its_deadline() {
    failing_restart(At::Started, Do::Hang, FailureCause::NotReady, "not ready within 5s");
}

#[test]
fn no_hook_runs_on_an_actor_that_panicked() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        tree.script.log();
        tree.refs[0].try_send(Run::new(|_, _| panic!("boom"))).unwrap();
        settle().await;
        assert_eq!(tree.script.log(), ["a drop"]);
    });
}

#[test]
fn whoever_asks_a_handler_that_dies_is_told() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        let asked = tree.refs[0].ask(Run::new(|_, _| panic!("boom")), Duration::from_secs(1)).await;
        assert!(matches!(asked, Err(AskError::Lost)));
        assert_eq!(tree.refs[0].ask(Note(7), Duration::from_secs(1)).await.unwrap(), 7);
    });
}

#[test]
fn the_record_of_a_panic_names_the_place() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        let line = line!() + 1;
        tree.refs[0].try_send(Run::new(|_, _| panic!("here"))).unwrap();
        settle().await;
        let record = tree.record("a");
        assert_eq!(record.state, ChildState::BackingOff);
        let failure = record.last_failure.unwrap();
        assert_eq!(failure.location, Some(format!("{}:{line}:47", file!())));
        assert_eq!(failure.to_string(), format!("here at {}:{line}:47", file!()));
    });
}
