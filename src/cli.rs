//! The command line.

use std::{ffi::OsString, num::NonZeroU64, path::PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

const AFTER_HELP: &str = "\
Without a configuration:
  127.0.0.1:14317        takes spans, OTLP over gRPC         [ingest.grpc.listen]
  http://localhost:4317  gets them, OTLP over gRPC           [telemetry.otlp_endpoint]
  http://127.0.0.1:9100  /metrics for Prometheus, /stats, /health, /livez, /readyz
                                                             [telemetry.prometheus_addr]

Later layers win: built-in defaults, --config files in their order, OTEL_EXPORTER_OTLP_ENDPOINT and
OTEL_SERVICE_NAME, then variables such as NYX__TELEMETRY__PROMETHEUS_ADDR=127.0.0.1:9464.

Exit status: 0 success, 64 bad command line, 69 something needed is not available, 70 internal
failure, 78 bad configuration.";

/// A telemetry daemon: takes spans over OTLP, keeps what it acknowledges, delivers it to OTLP destinations and turns it
/// into RED metrics for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "nyx-daemon", version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Option<Subcommands>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
struct ConfigArgs {
    /// A configuration file (TOML); may be repeated, a later one wins
    #[arg(long = "config", value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Subcommands {
    /// Run the daemon (what happens without a command)
    Run(ConfigArgs),
    /// Show the whole flow with simulated connections and a destination of its own
    Demo(DemoArgs),
    /// Check the configuration as `run` would, and do nothing else
    Validate(ConfigArgs),
}

/// The arguments of `demo`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// End after so many seconds; without, on Ctrl-C
    #[arg(long, value_name = "N")]
    pub seconds: Option<NonZeroU64>,
    /// Spans per second that the simulated connections make together
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the daemon with these configuration files.
    Run(Vec<PathBuf>),
    /// Check these configuration files.
    Validate(Vec<PathBuf>),
    /// Run the demonstration.
    Demo(DemoArgs),
}

impl Command {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// It is wrong, or asks for `--help` or `--version`: the error says which, and prints itself.
    pub fn parse(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let Cli { config: ConfigArgs { mut files }, command } = Cli::try_parse_from(args)?;
        match command {
            None => Ok(Self::Run(files)),
            Some(Subcommands::Run(more)) => {
                files.extend(more.files);
                Ok(Self::Run(files))
            }
            Some(Subcommands::Validate(more)) => {
                files.extend(more.files);
                Ok(Self::Validate(files))
            }
            Some(Subcommands::Demo(demo)) if files.is_empty() => Ok(Self::Demo(demo)),
            Some(Subcommands::Demo(_)) => Err(Cli::command().error(
                clap::error::ErrorKind::ArgumentConflict,
                "demo takes no --config: it needs nothing else",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parse(args: &[&str]) -> Result<Command, clap::Error> {
        Command::parse(std::iter::once("nyx-daemon").chain(args.iter().copied()))
    }

    fn files(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn the_command_is_run_unless_another_is_named() {
        assert_eq!(parse(&[]).unwrap(), Command::Run(vec![]));
        assert_eq!(parse(&["--config", "a.toml"]).unwrap(), Command::Run(files(&["a.toml"])));
        assert_eq!(parse(&["run", "--config", "a.toml"]).unwrap(), Command::Run(files(&["a.toml"])));
    }

    #[test]
    fn config_files_keep_their_order_on_either_side_of_the_command() {
        let command = parse(&["--config", "a", "--config", "b", "validate", "--config", "c"]).unwrap();
        assert_eq!(command, Command::Validate(files(&["a", "b", "c"])));
    }

    #[test]
    fn the_demo_has_a_rate_and_no_end_by_default() {
        assert_eq!(parse(&["demo"]).unwrap(), Command::Demo(DemoArgs { seconds: None, rate: 2_000 }));
        let command = parse(&["demo", "--seconds", "5", "--rate", "100"]).unwrap();
        assert_eq!(command, Command::Demo(DemoArgs { seconds: NonZeroU64::new(5), rate: 100 }));
    }

    #[test]
    fn what_the_demo_cannot_do_is_refused() {
        for args in [&["demo", "--rate", "0"][..], &["demo", "--seconds", "0"], &["demo", "--seconds", "-1"]]
        {
            assert!(parse(args).unwrap_err().use_stderr(), "{args:?}");
        }
        let error = parse(&["--config", "a", "demo"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error: demo takes no --config: it needs nothing else\n\nUsage: nyx-daemon [OPTIONS] [COMMAND]\n\n\
             For more information, try '--help'.\n"
        );
    }

    #[test]
    fn help_and_version_are_no_failures() {
        assert_eq!(parse(&["--help"]).unwrap_err().kind(), ErrorKind::DisplayHelp);
        let version = parse(&["--version"]).unwrap_err();
        assert_eq!(version.kind(), ErrorKind::DisplayVersion);
        assert_eq!(version.to_string(), concat!("nyx-daemon ", env!("CARGO_PKG_VERSION"), "\n"));
    }

    #[test]
    fn help_names_the_addresses_that_are_the_defaults() {
        let help = parse(&["--help"]).unwrap_err().to_string();
        let config = crate::config::Config::load(&[], &crate::config::Environment::default()).unwrap();
        for address in [
            config.ingest.grpc.listen.unwrap().to_string(),
            config.telemetry.otlp_endpoint.to_string(),
            format!("http://{}", config.telemetry.prometheus_addr),
        ] {
            assert!(help.contains(&format!("  {address} ")), "{address} in {help}");
        }
    }
}
