//! Children that come and go while the tree runs.

use std::time::Duration;

use actix::{AsyncContext, WrapFuture};
use tokio::time::Instant;

use crate::supervise::{
    ActorRef, ChildError, ChildState, FailureCause, Intensity, SettingsError, Strategy,
    testing::{At, Do, Note, Run, Script, Slow, Tree, Worker, paused, settle, spec, until, workers},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn crash() -> Run {
    Run::new(|_, _| panic!("boom"))
}

fn hang() -> Run {
    Run::new(|actor, ctx| ctx.wait(std::future::pending().into_actor(actor)))
}

async fn come(tree: &Tree, name: &str, before: &str) -> Result<ActorRef<Worker>, ChildError> {
    let declared = spec(name).declare();
    let actor = declared.actor_ref();
    tree.running.add(declared, before, tree.script.factory(name)).await.map(|()| actor)
}

fn names(tree: &Tree) -> Vec<String> {
    tree.running.records().into_iter().map(|record| record.name).collect()
}

fn state(tree: &Tree, name: &str) -> ChildState {
    tree.running.records().into_iter().find(|record| record.name == name).unwrap().state
}

#[test]
fn one_that_comes_has_its_place_in_the_order() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        let c = come(&tree, "c", "b").await.unwrap();
        assert_eq!(
            (names(&tree), state(&tree, "c")),
            (["a", "c", "b"].map(str::to_owned).to_vec(), ChildState::Running)
        );
        assert_eq!(c.ask(Note(1), SECOND).await.unwrap(), 1);
        tree.refs[1].try_send(Note(2)).unwrap();
        settle().await;
        assert_eq!(tree.script.seen("b: 2"), 1, "the reports of those behind it still find them");
        tree.refs[1].try_send(crash()).unwrap();
        until("b is back", || tree.script.seen("b started") == 2).await;
        tree.script.log();
        assert!(tree.running.shutdown(MINUTE).await.is_clean());
        let stops: Vec<_> = tree.script.log().into_iter().filter(|line| line.ends_with("stopping")).collect();
        assert_eq!(stops, ["b stopping", "c stopping", "a stopping"]);
    });
}

#[test]
fn its_failures_count_with_those_of_the_others_and_its_backoff_is_its_own() {
    paused(async {
        let script = Script::default();
        let intensity = Intensity { max_restarts: 2, window: SECOND };
        let (supervisor, refs) = workers(&script, Strategy::OneForOne, intensity, &["a"]);
        let tree = Tree { script, running: supervisor.start().await.unwrap(), refs };
        let b = come(&tree, "b", "a").await.unwrap();
        let begin = Instant::now();
        b.try_send(crash()).unwrap();
        until("b is back", || tree.script.seen("b started") == 2).await;
        assert!((100..110).contains(&begin.elapsed().as_millis()));
        tree.refs[0].try_send(crash()).unwrap();
        until("a is back", || tree.script.seen("a started") == 2).await;
        b.try_send(crash()).unwrap();
        let failure = tree.running.escalated().await;
        assert!(failure.message.starts_with("more than 2 restarts within 1s, last of b"), "{failure}");
        assert_eq!(come(&tree, "c", "a").await.unwrap_err(), ChildError::Stopping);
    });
}

#[test]
fn one_that_fails_before_it_is_ready_is_out_again_and_counts_for_nothing() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        for (at, what, cause) in [
            (At::Factory, Do::Fail, FailureCause::Failed),
            (At::Factory, Do::Panic, FailureCause::Panicked),
            (At::Started, Do::Panic, FailureCause::Panicked),
            (At::Started, Do::Hang, FailureCause::NotReady),
        ] {
            tree.script.plan("b", at, what);
            let Err(ChildError::Start(failure)) = come(&tree, "b", "a").await else {
                panic!("{at:?}: it came")
            };
            assert_eq!((failure.cause, names(&tree)), (cause, vec!["a".to_owned()]));
        }
        settle().await;
        assert_eq!(tree.script.alive(), 1);
        let b = come(&tree, "b", "a").await.unwrap();
        assert_eq!(b.ask(Note(1), SECOND).await.unwrap(), 1);
        // From now on it is restarted.
        b.try_send(crash()).unwrap();
        until("b is back", || tree.script.seen("b started") >= 2 && state(&tree, "b") == ChildState::Running)
            .await;
        assert!(tree.running.shutdown(MINUTE).await.is_clean());
    });
}

#[test]
fn a_name_that_is_taken_and_a_place_that_is_not_there_are_refused() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a"]).await;
        let taken = ChildError::Settings(SettingsError::DuplicateName("a".to_owned()));
        assert_eq!(come(&tree, "a", "a").await.unwrap_err(), taken);
        assert_eq!(come(&tree, "b", "nobody").await.unwrap_err().to_string(), "there is no child nobody");
        assert_eq!(tree.running.remove("b").await.unwrap_err().to_string(), "there is no child b");
        assert_eq!(names(&tree), ["a"]);
    });
}

#[test]
fn one_that_goes_is_drained_and_forgotten_while_others_are_restarted() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        for number in 0..3 {
            tree.refs[1].try_send(Slow(number, SECOND)).unwrap();
        }
        let begin = Instant::now();
        let others = async {
            settle().await;
            assert_eq!(state(&tree, "b"), ChildState::Stopping);
            assert!(tree.refs[1].try_send(Note(4)).is_err(), "nothing comes in any more");
            assert_eq!(tree.running.remove("b").await, Err(ChildError::Unknown("b".to_owned())), "once");
            tree.refs[0].try_send(crash()).unwrap();
            until("a is back", || tree.script.seen("a started") == 2).await;
            assert!((100..110).contains(&begin.elapsed().as_millis()));
        };
        let (report, ()) = tokio::join!(tree.running.remove("b"), others);
        assert!(report.unwrap().is_clean());
        assert_eq!((begin.elapsed().as_secs(), tree.script.seen("b: 2")), (3, 1));
        assert_eq!((names(&tree), tree.script.alive()), (vec!["a".to_owned()], 1));
        come(&tree, "b", "a").await.unwrap();
        assert_eq!(names(&tree), ["b", "a"]);
    });
}

#[test]
fn one_that_does_not_stop_is_given_up_at_its_deadline_and_nobody_waits_for_it() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        tree.refs[1].try_send(hang()).unwrap();
        tree.refs[1].try_send(Note(1)).unwrap();
        let begin = Instant::now();
        let report = tree.running.remove("b").await.unwrap();
        assert_eq!((report.given_up, report.abandoned), (vec!["b".to_owned()], 1));
        assert_eq!((begin.elapsed().as_secs(), names(&tree)), (5, vec!["a".to_owned()]));
        assert_eq!(tree.script.alive(), 1, "it is let go");
        assert!(tree.running.shutdown(MINUTE).await.is_clean(), "a later stop has nothing to do with it");
    });
}

#[test]
fn one_that_was_about_to_be_restarted_drains_in_a_last_incarnation() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        tree.refs[1].try_send(crash()).unwrap();
        tree.refs[1].try_send(Note(1)).unwrap();
        settle().await;
        assert_eq!(state(&tree, "b"), ChildState::BackingOff);
        assert!(tree.running.remove("b").await.unwrap().is_clean());
        assert_eq!((tree.script.seen("b: 1"), names(&tree)), (1, vec!["a".to_owned()]));
    });
}

#[test]
fn a_stop_overtakes_whatever_comes_and_goes() {
    paused(async {
        let tree = Tree::start(Strategy::OneForOne, &["a", "b"]).await;
        tree.refs[1].try_send(hang()).unwrap();
        tree.script.plan("c", At::Started, Do::Hang);
        let stop = async {
            settle().await;
            tree.running.shutdown(SECOND).await
        };
        let begin = Instant::now();
        let (going, coming, report) = tokio::join!(tree.running.remove("b"), come(&tree, "c", "a"), stop);
        assert_eq!((going, coming.unwrap_err()), (Err(ChildError::Stopping), ChildError::Stopping));
        assert_eq!(begin.elapsed().as_secs(), 1);
        let mut given_up = report.given_up;
        given_up.sort();
        assert_eq!(given_up, ["a", "b", "c"], "cut off, as all who wait for them");
        assert_eq!(come(&tree, "d", "a").await.unwrap_err(), ChildError::Stopping);
        assert_eq!(tree.running.remove("a").await, Err(ChildError::Stopping));
    });
}
