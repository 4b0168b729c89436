//! The command line.

use std::{ffi::OsString, num::NonZeroU64, path::PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

const AFTER_HELP: &str = "\
Without a configuration:
  127.0.0.1:14317        takes spans, OTLP over gRPC         [ingest.grpc.listen]
  127.0.0.1:14318        takes spans, OTLP over HTTP         [ingest.http.listen]
  http://localhost:4317  gets them, OTLP over gRPC           [telemetry.otlp_endpoint]
  http://127.0.0.1:9100  /metrics for Prometheus, /stats, /health, /livez, /readyz
                                                             [telemetry.prometheus_addr]

Later layers win: built-in defaults, /etc/nyx/nyx.toml, ./nyx.toml, --config files in their order,
OpenTelemetry's variables (OTEL_EXPORTER_OTLP_ENDPOINT and others), variables such as
NYX__TELEMETRY__PROMETHEUS_ADDR=127.0.0.1:9464, then --set section.key=value.
`config show` lists every key with its value and where that comes from.

Exit status: 0 success, 64 bad command line, 69 something needed is not available, 70 internal
failure, 75 the log's folder is in use, 78 bad configuration.";

/// The version and the commit that it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("NYX_COMMIT"), ")");

/// A telemetry daemon: takes spans over OTLP, keeps what it acknowledges, delivers it to OTLP destinations and turns it
/// into RED metrics for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "nyx-daemon", version = VERSION, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Option<Subcommands>,
}

/// What a configuration is read from, beside the standard places and the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ConfigArgs {
    /// A configuration file (TOML); may be repeated, a later one wins
    #[arg(long = "config", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// A key and its value, such as log.durability=power, without quotes; may be repeated, a later one wins, and all of
    /// them win over files and variables
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub flags: Vec<(String, String)>,
}

impl ConfigArgs {
    /// Those before the command, then those behind it.
    fn and(mut self, more: Self) -> Self {
        self.files.extend(more.files);
        self.flags.extend(more.flags);
        self
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE, such as log.durability=power")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Subcommands {
    /// Run the daemon (what happens without a command)
    Run(ConfigArgs),
    /// Check the configuration as `run` would, and do nothing else
    Validate(ConfigArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommands),
    /// Show the whole flow with simulated connections and a destination of its own
    Demo(DemoArgs),
    /// Write a script that completes this command line in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum ConfigCommands {
    /// Every key with its value and where that comes from; secrets are not shown
    Show(ConfigArgs),
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
    /// Run the daemon with this configuration.
    Run(ConfigArgs),
    /// Check this configuration.
    Validate(ConfigArgs),
    /// Show this configuration.
    ConfigShow(ConfigArgs),
    /// Run the demonstration.
    Demo(DemoArgs),
    /// Write the completions for a shell.
    Completions(Shell),
}

impl Command {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// It is wrong, or asks for `--help` or `--version`: the error says which, and prints itself.
    pub fn parse(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let Cli { config, command } = Cli::try_parse_from(args)?;
        let needless = |command: &str| {
            let why = format!("{command} takes no --config and no --set: it reads no configuration");
            Err(Cli::command().error(clap::error::ErrorKind::ArgumentConflict, why))
        };
        match command {
            None => Ok(Self::Run(config)),
            Some(Subcommands::Run(more)) => Ok(Self::Run(config.and(more))),
            Some(Subcommands::Validate(more)) => Ok(Self::Validate(config.and(more))),
            Some(Subcommands::Config(ConfigCommands::Show(more))) => Ok(Self::ConfigShow(config.and(more))),
            Some(Subcommands::Demo(_)) if config != ConfigArgs::default() => needless("demo"),
            Some(Subcommands::Completions { .. }) if config != ConfigArgs::default() => {
                needless("completions")
            }
            Some(Subcommands::Demo(demo)) => Ok(Self::Demo(demo)),
            Some(Subcommands::Completions { shell }) => Ok(Self::Completions(shell)),
        }
    }
}

/// The script that completes this command line in a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "nyx-daemon", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parse(args: &[&str]) -> Result<Command, clap::Error> {
        Command::parse(std::iter::once("nyx-daemon").chain(args.iter().copied()))
    }

    fn files(names: &[&str]) -> ConfigArgs {
        ConfigArgs { files: names.iter().map(PathBuf::from).collect(), flags: vec![] }
    }

    #[test]
    fn the_command_is_run_unless_another_is_named() {
        assert_eq!(parse(&[]).unwrap(), Command::Run(files(&[])));
        assert_eq!(parse(&["--config", "a.toml"]).unwrap(), Command::Run(files(&["a.toml"])));
        assert_eq!(parse(&["run", "--config", "a.toml"]).unwrap(), Command::Run(files(&["a.toml"])));
    }

    #[test]
    fn config_files_keep_their_order_on_either_side_of_the_command() {
        let command = parse(&["--config", "a", "--config", "b", "validate", "--config", "c"]).unwrap();
        assert_eq!(command, Command::Validate(files(&["a", "b", "c"])));
        let command = parse(&["--config", "a", "config", "show", "--config", "b"]).unwrap();
        assert_eq!(command, Command::ConfigShow(files(&["a", "b"])));
    }

    #[test]
    fn settings_are_keys_and_values_in_their_order() {
        let command = parse(&["--set", "a.b=c=d", "run", "--set", "a.b="]).unwrap();
        let flags = [("a.b", "c=d"), ("a.b", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(command, Command::Run(ConfigArgs { files: vec![], flags: flags.to_vec() }));
        let error = parse(&["--set", "log.dir"]).unwrap_err();
        let why = "'--set <KEY=VALUE>': must be KEY=VALUE, such as log.durability=power";
        assert!(error.to_string().contains(why), "{error}");
    }

    #[test]
    fn there_are_completions_for_the_usual_shells_and_they_know_every_command() {
        for name in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let Command::Completions(shell) = parse(&["completions", name]).unwrap() else {
                panic!("{name}")
            };
            let script = String::from_utf8(completions(shell)).unwrap();
            for word in ["nyx-daemon", "validate", "show", "demo", "completions", "config"] {
                assert!(script.contains(word), "{name}: {word}");
            }
        }
        assert!(parse(&["completions", "cmd"]).unwrap_err().use_stderr());
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
            "error: demo takes no --config and no --set: it reads no configuration\n\nUsage: nyx-daemon [OPTIONS] [COMMAND]\n\n\
             For more information, try '--help'.\n"
        );
    }

    #[test]
    fn help_and_version_are_no_failures() {
        assert_eq!(parse(&["--help"]).unwrap_err().kind(), ErrorKind::DisplayHelp);
        let version = parse(&["--version"]).unwrap_err();
        assert_eq!(version.kind(), ErrorKind::DisplayVersion);
        assert_eq!(version.to_string(), format!("nyx-daemon {VERSION}\n"));
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
