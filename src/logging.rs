//! The daemon's own log lines, on standard error: text on a terminal, JSON otherwise.

mod repeats;

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use self::repeats::Limited;
use crate::{
    config::{Environment, LogFormat, Tracing},
    exit::{CONFIG, Failure},
};

/// What is written: `RUST_LOG`, if it is set and not empty, else `level`. At `info` the page server's own start and
/// stop are left out: ours say the same. Below it only our own lines are written: those of the HTTP libraries hold what
/// senders say.
///
/// # Errors
/// `RUST_LOG` cannot be read.
pub fn filter(level: LevelFilter, environment: &Environment) -> Result<EnvFilter, Failure> {
    match environment.rust_log().map_err(|problem| Failure::new(CONFIG, problem))? {
        None if level == LevelFilter::INFO => Ok(EnvFilter::new("info,actix_server=warn")),
        None if level > LevelFilter::INFO => {
            Ok(EnvFilter::new(format!("info,actix_server=warn,nyx_daemon={level},nyx_telemetry={level}")))
        }
        None => Ok(EnvFilter::default().add_directive(level.into())),
        Some(directives) => EnvFilter::try_new(directives).map_err(|_| {
            let rule = "must be filter directives, such as warn or nyx_telemetry=debug";
            Failure::new(CONFIG, format!("variable RUST_LOG is {directives:?}: {rule}"))
        }),
    }
}

/// The log lines of this process, once they are written.
#[derive(Clone)]
pub struct Logging {
    filter: Reload,
    lines: Limited,
    environment: Environment,
}

/// Puts another filter in the place of the one there is.
type Reload = reload::Handle<EnvFilter, Registry>;

impl Logging {
    /// Takes on another level and another limit of repeats. The form of a line stays as it is.
    ///
    /// # Errors
    /// `RUST_LOG` cannot be read.
    pub fn change(&self, tracing: &Tracing) -> Result<(), Failure> {
        let filter = filter(tracing.level, &self.environment)?;
        // It fails only where nobody writes lines any more.
        let _gone = self.filter.reload(filter);
        self.lines.set_burst(tracing.burst);
        Ok(())
    }

    /// Says at the end what was left out and not yet told.
    pub fn finish(&self) {
        self.lines.finish();
    }
}

/// Starts to write log lines. Only the first call in a process has an effect.
///
/// # Errors
/// `RUST_LOG` cannot be read.
pub fn install(tracing: &Tracing, environment: &Environment) -> Result<Logging, Failure> {
    let (filter, reload) = reload::Layer::new(filter(tracing.level, environment)?);
    let lines = Limited::default();
    lines.set_burst(tracing.burst);
    let terminal = io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(lines.clone()).with_ansi(terminal);
    let layer = match (tracing.format, terminal) {
        (LogFormat::Json, _) | (LogFormat::Auto, false) => layer.json().flatten_event(true).boxed(),
        (LogFormat::Text, _) | (LogFormat::Auto, true) => layer.boxed(),
    };
    // A second call means that the program around us writes log lines already: its choice stands.
    let _installed_before = tracing_subscriber::registry().with(filter).with(layer).try_init();
    Ok(Logging { filter: reload, lines, environment: environment.clone() })
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
        assert_eq!(filter_at(LevelFilter::WARN, ""), Ok("warn".into()));
        assert_eq!(filter_at(LevelFilter::INFO, "info"), Ok("info".into()));
    }

    #[test]
    fn below_info_only_our_own_lines_are_written() {
        for (level, name) in [(LevelFilter::DEBUG, "debug"), (LevelFilter::TRACE, "trace")] {
            let filter = filter_at(level, "").unwrap();
            let mut directives: Vec<_> = filter.split(',').collect();
            directives.sort_unstable();
            let own = ["nyx_daemon", "nyx_telemetry"].map(|target| format!("{target}={name}"));
            assert_eq!(directives, ["actix_server=warn", "info", &own[0], &own[1]]);
        }
    }

    #[test]
    fn a_rust_log_that_cannot_be_read_is_refused() {
        assert_eq!(
            filter_with("a=b=c"),
            Err("variable RUST_LOG is \"a=b=c\": must be filter directives, such as warn or nyx_telemetry=debug".into())
        );
    }
}
