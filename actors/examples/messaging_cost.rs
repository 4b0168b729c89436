//! What supervision costs: a message from `try_send` to its handler, on one thread and across two, and a
//! dynamic child at rest.
//!
//! ```sh
//! cargo run --release -p nyx-telemetry --example messaging_cost
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a measurement, in real time"
)]

use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message, WrapFuture};
use actix_rt::{Arbiter, System};
use nyx_telemetry::supervise::{
    ActorRef, ChildSpec, DynamicSpec, Intensity, StopSignal, Strategy, Supervisor, TrySendError,
};

const MESSAGES: u64 = 5_000_000;
const CONNECTIONS: usize = 100_000;

struct Sum(u64);

impl Actor for Sum {
    type Context = Context<Self>;
}

struct Add(u64);

impl Message for Add {
    type Result = ();
}

impl Handler<Add> for Sum {
    type Result = ();

    fn handle(&mut self, Add(number): Add, _: &mut Context<Self>) {
        self.0 += number;
    }
}

struct Total;

impl Message for Total {
    type Result = u64;
}

impl Handler<Total> for Sum {
    type Result = u64;

    fn handle(&mut self, _: Total, _: &mut Context<Self>) -> u64 {
        self.0
    }
}

/// Sends in bursts of 512, as full as the inbox allows.
async fn flood(sum: &ActorRef<Sum>) -> f64 {
    let begin = Instant::now();
    for number in 0..MESSAGES {
        let mut message = Add(1);
        while let Err(TrySendError::Full(refused)) = sum.try_send(message) {
            message = refused;
            tokio::task::yield_now().await;
        }
        if number % 512 == 511 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(sum.ask(Total, Duration::from_secs(60)).await.unwrap() % MESSAGES, 0);
    begin.elapsed().as_secs_f64() * 1e9 / MESSAGES as f64
}

struct Idle(StopSignal);

impl Actor for Idle {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(self.0.wait().into_actor(self));
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

fn main() {
    System::new().block_on(async {
        let other = Arbiter::new();
        let mut tree = Supervisor::new("root", Strategy::OneForOne, Intensity::default());
        let here = tree.child(ChildSpec::new("here"), || Ok(Sum(0)));
        let there = tree.child(ChildSpec::new("there").arbiter(other.handle()), || Ok(Sum(0)));
        let idle = tree.dynamic(DynamicSpec::new("idle", CONNECTIONS));
        let running = tree.start().await.unwrap();
        for _ in 0..5 {
            let (one, across) = (flood(&here).await, flood(&there).await);
            println!("try_send to handled: {one:.0} ns on one thread, {across:.0} ns across");
        }

        let before = resident_bytes();
        let begin = Instant::now();
        for _ in 0..CONNECTIONS {
            let _handle = idle.start(&Arbiter::current(), "peer", |stop| Ok(Idle(stop))).unwrap();
        }
        // Behind all of them in the arbiter's queue.
        let (told, tell) = tokio::sync::oneshot::channel();
        Arbiter::current().spawn_fn(move || told.send(()).unwrap());
        tell.await.unwrap();
        tokio::task::yield_now().await;
        let started = begin.elapsed();
        let each = (resident_bytes() - before) / CONNECTIONS;
        let begin = Instant::now();
        let report = running.shutdown(Duration::from_secs(30)).await;
        let drained = begin.elapsed();
        println!("{CONNECTIONS} dynamic children: {each} bytes each, started in {started:?}, drained in {drained:?}");
        assert!(report.is_clean(), "{report:?}");
        other.stop();
        other.join().unwrap();
    });
}
