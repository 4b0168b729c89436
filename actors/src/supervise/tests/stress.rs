//! Several threads against an actor that crashes all the time, and whose arbiter is killed under it.

use std::{sync::Arc, thread, time::Duration};

use actix::{Actor, Context, Handler, Message};
use actix_rt::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::supervise::{
    Backoff, ChildSpec, Intensity, Strategy, Supervisor, TrySendError,
    testing::{record, threads},
};

const SENDERS: u32 = 3;
const MESSAGES: u32 = 3_000;
const ARBITER_KILLS: u32 = 20;

/// The arbiter of the moment.
#[derive(Clone)]
struct Ground(Arc<Mutex<ArbiterHandle>>);

impl Ground {
    fn new(arbiter: &Arbiter) -> Self {
        Self(Arc::new(Mutex::new(arbiter.handle())))
    }

    /// Another one from now on; the old one ends with all that lives on it.
    fn shift(&self, arbiter: Arbiter) -> Arbiter {
        let next = Arbiter::new();
        *self.0.lock() = next.handle();
        arbiter.stop();
        arbiter.join().unwrap();
        next
    }
}

struct Clumsy(Arc<Mutex<Vec<(u32, u32)>>>);

impl Actor for Clumsy {
    type Context = Context<Self>;
}

struct Numbered {
    sender: u32,
    number: u32,
    crash: bool,
}

impl Message for Numbered {
    type Result = ();
}

impl Handler<Numbered> for Clumsy {
    type Result = ();

    fn handle(&mut self, message: Numbered, _: &mut Context<Self>) {
        assert!(!message.crash, "crash of {} by {}", message.number, message.sender);
        self.0.lock().push((message.sender, message.number));
    }
}

#[test]
fn every_message_is_handled_once_in_its_senders_order_or_lost_with_a_crash_whatever_arbiters_die() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    threads(async move {
        let handled = Arc::new(Mutex::new(Vec::new()));
        let mut arbiter = Arbiter::new();
        let ground = Ground::new(&arbiter);
        let below = ground.clone();
        let ms = Duration::from_millis(1);
        let intensity = Intensity { max_restarts: 10_000, window: Duration::from_secs(60) };
        let mut root = Supervisor::new("root", Strategy::OneForOne, intensity);
        let log = Arc::clone(&handled);
        let clumsy = root.child(
            ChildSpec::new("clumsy")
                .placed(move || below.0.lock().clone())
                .inbox_capacity(64)
                .backoff(Backoff::new(ms, 1.0, ms, 1.0, ms).unwrap()),
            move || Ok(Clumsy(Arc::clone(&log))),
        );
        let running = root.start().await.unwrap();

        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let clumsy = clumsy.clone();
                thread::spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed ^ u64::from(sender));
                    let mut crashes = Vec::new();
                    for number in 0..MESSAGES {
                        let crash = random.random_ratio(1, 100);
                        if crash {
                            crashes.push((sender, number));
                        }
                        let mut message = Numbered { sender, number, crash };
                        while let Err(refused) = clumsy.try_send(message) {
                            assert!(matches!(refused, TrySendError::Full(_)));
                            message = refused.into_message();
                            thread::yield_now();
                        }
                    }
                    crashes
                })
            })
            .collect();
        let mut random = StdRng::seed_from_u64(seed);
        let mut kill_at = 0;
        let mut kills = 0;
        while senders.iter().any(|sender| !sender.is_finished()) {
            let counts = record(&running, "clumsy").inbox;
            if kills < ARBITER_KILLS && counts.handled >= kill_at {
                arbiter = ground.shift(arbiter);
                kill_at = counts.handled
                    + random.random_range(1..2 * u64::from(SENDERS * MESSAGES / ARBITER_KILLS));
                kills += 1;
            }
            tokio::task::yield_now().await;
        }
        let crashes: Vec<_> = senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
        while clumsy.depth() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(running.shutdown(Duration::from_secs(30)).await.is_clean());

        let counts = record(&running, "clumsy").inbox;
        assert_eq!(counts.accepted, u64::from(SENDERS * MESSAGES));
        assert_eq!((counts.lost, counts.depth), (crashes.len() as u64, 0));
        assert!(kills > 1, "no arbiter died");
        let handled = handled.lock();
        for sender in 0..SENDERS {
            let seen: Vec<_> = handled.iter().filter(|(by, _)| *by == sender).copied().collect();
            let sent = (0..MESSAGES).map(|number| (sender, number));
            let expected: Vec<_> = sent.filter(|message| !crashes.contains(message)).collect();
            assert_eq!(seen, expected, "sender {sender}");
        }
        arbiter.stop();
        arbiter.join().unwrap();
    });
}
