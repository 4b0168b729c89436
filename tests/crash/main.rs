//! The whole daemon, killed, stopped, replaced, without room and behind: whatever a sender was told is kept
//! arrives, and every account stays exact.
//!
//! Senders and sinks are this process's own, and share nothing with the daemon but the types of OTLP's messages. Those
//! without room need util-linux and the right to mount a tmpfs: root, or user namespaces. To go on for longer, or
//! from another seed (under `process`, under `power`, about a round a second):
//!
//! ```sh
//! NYX_CRASH_ROUNDS=5000 NYX_CRASH_SEED=7 cargo test --test crash killed_at_random -- --nocapture
//! NYX_CRASH_ROUNDS=1000 NYX_CRASH_SEED=7 cargo test --test crash killed_while_it_syncs -- --nocapture
//! ```
//!
//! and for a backlog of 2 GiB (`NYX_BACKLOG_BYTES`), which takes as much room on the build's file system and a release
//! build:
//!
//! ```sh
//! cargo test --release --test crash -- --ignored --nocapture
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the helpers of tests are tests"
)]

mod account;
mod backlog;
mod daemon;
mod harness;
#[allow(dead_code, unreachable_pub, reason = "shared with other test programs")]
#[path = "../support/http.rs"]
mod http;
mod no_room;
mod replaced;
mod rounds;
mod senders;
mod sink;
mod spans;

use std::sync::{Mutex, MutexGuard, PoisonError};

use self::rounds::Rounds;

/// One test at a time: instants are random, but not those of a machine that does six other things.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// In the normal run. Fewer may not meet every case.
const ROUNDS: u64 = 200;

fn killed(name: &'static str, durability: &'static str, count: u64) {
    let rounds = Rounds {
        name,
        durability,
        count: variable("NYX_CRASH_ROUNDS").unwrap_or(count),
        seed: variable("NYX_CRASH_SEED").unwrap_or(4),
        kills: true,
        forget: None,
    };
    match rounds.run() {
        Ok(summary) => {
            println!("{name}: {summary}");
            if rounds.count >= ROUNDS {
                summary.assert_meets_every_case();
            }
        }
        Err(wrong) => panic!("{wrong:#?}"),
    }
}

#[test]
fn killed_at_random_instants_under_load_it_loses_no_acknowledged_span() {
    killed("process", "process", ROUNDS);
}

#[test]
fn killed_while_it_syncs_each_group_it_loses_no_acknowledged_span() {
    killed("power", "power", 30);
}
