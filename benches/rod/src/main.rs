//! The measuring rod: a load generator, a counting sink and a runner that share no code with what they measure.
//! `README.md` beside this crate says what it proves and what it does not.

mod cli;
mod grpc;
mod hold;
mod http1;
mod idle;
mod json;
mod ledger;
mod load;
mod log_folder;
mod process;
mod programs;
mod protocol;
mod report;
mod run;
mod scale;
mod sink;
mod spans;
mod subject;
mod tally;
mod wire;
mod written;

use std::future::Future;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// Ends with 0 if every span arrived once and intact, with 1 if not or if a run failed, with 130 when interrupted.
fn main() -> ExitCode {
    let command = cli::Cli::parse().command;
    let outcome = runtime().and_then(|runtime| runtime.block_on(cli::execute(command)));
    outcome.unwrap_or_else(|why| {
        cli::say(&format!("nyx-rod: {why}"));
        ExitCode::FAILURE
    })
}

/// A runtime on the calling thread: the rod is to leave the machine to what it measures.
fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|why| format!("no runtime: {why}"))
}

#[allow(clippy::disallowed_methods, reason = "a plain program without actors: nothing here is supervised")]
fn detach(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}

/// Waits for SIGINT or SIGTERM.
async fn interrupted() -> Result<(), String> {
    let fault = |why| format!("cannot wait for signals: {why}");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fault)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(fault)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
