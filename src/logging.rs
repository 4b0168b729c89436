//! The daemon's own log lines, on standard error: text on a terminal, JSON otherwise.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, fmt};

use crate::{
    config::{Environment, LogFormat, Tracing},
    exit::{CONFIG, Failure},
};

/// What is written: `RUST_LOG`, if it is set and not empty, else `level`. At `info` the page server's own start and
/// stop are left out: ours say the same.
///
/// # Errors
/// `RUST_LOG` cannot be read.
pub fn filter(level: LevelFilter, environment: &Environment) -> Result<EnvFilter, Failure> {
    let rust_log = environment.text("RUST_LOG").map_err(|problem| Failure::new(CONFIG, problem))?;
    match rust_log.filter(|directives| !directives.is_empty()) {
        None if level == LevelFilter::INFO => Ok(EnvFilter::new("info,actix_server=warn")),
        None => Ok(EnvFilter::default().add_directive(level.into())),
        Some(directives) => EnvFilter::try_new(directives).map_err(|_| {
            let rule = "must be filter directives, such as warn or nyx_telemetry=debug";
            Failure::new(CONFIG, format!("variable RUST_LOG is {directives:?}: {rule}"))
        }),
    }
}

/// Starts to write log lines. Only the first call in a process has an effect.
///
/// # Errors
/// `RUST_LOG` cannot be read.
pub fn install(tracing: &Tracing, environment: &Environment) -> Result<(), Failure> {
    let filter = filter(tracing.level, environment)?;
    let terminal = io::stderr().is_terminal();
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(terminal);
    // A second call means that the program around us writes log lines already: its choice stands.
    let _installed_before = match (tracing.format, terminal) {
        (LogFormat::Json, _) | (LogFormat::Auto, false) => lines.json().flatten_event(true).try_init(),
        (LogFormat::Text, _) | (LogFormat::Auto, true) => lines.try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter_with(rust_log: &str) -> Result<String, String> {
        filter_at(LevelFilter::WARN, rust_log)
    }

    fn filter_at(level: LevelFilter, rust_log: &str) -> Result<String, String> {
        let environment = Environment::new([("RUST_LOG", rust_log)], false);
        let filter = filter(level, &environment);
        filter.map(|filter| filter.to_string()).map_err(|failure| failure.message)
    }

    #[test]
    fn the_configured_level_holds_unless_rust_log_is_set() {
        assert_eq!(filter_with(""), Ok("warn".into()));
        assert_eq!(filter_with("nyx_telemetry=debug"), Ok("nyx_telemetry=debug".into()));
    }

    #[test]
    fn the_page_server_is_quiet_at_info_and_nowhere_else() {
        assert_eq!(filter_at(LevelFilter::INFO, ""), Ok("actix_server=warn,info".into()));
        assert_eq!(filter_at(LevelFilter::DEBUG, ""), Ok("debug".into()));
        assert_eq!(filter_at(LevelFilter::INFO, "info"), Ok("info".into()));
    }

    #[test]
    fn a_rust_log_that_cannot_be_read_is_refused() {
        assert_eq!(
            filter_with("a=b=c"),
            Err("variable RUST_LOG is \"a=b=c\": must be filter directives, such as warn or nyx_telemetry=debug".into())
        );
    }
}
