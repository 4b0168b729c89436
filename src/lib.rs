//! The nyx daemon as a library: its command line, its configuration, and what `main` runs.

mod admin;
pub mod cli;
pub mod config;
pub mod demo;
pub mod exit;
pub mod gates;
mod limits;
pub mod log_folder;
pub mod logging;
mod otlp_json;
pub mod reload;
pub mod run;
pub mod self_tracing;
pub mod service_manager;
mod spans_page;

/// The README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
