//! The `nyx-daemon` program.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use nyx_daemon::{
    cli::Command,
    config::{Config, Environment, LogFormat, Tracing},
    demo,
    exit::{self, Failure},
    logging, run,
};
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    let command = match Command::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => {
            // A closed pipe is the only way to fail here, and leaves nobody to tell.
            let _closed = error.print();
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match execute(command, &Environment::of_process()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _closed = writeln!(io::stderr(), "nyx-daemon: {failure}");
            ExitCode::from(&failure)
        }
    }
}

fn execute(command: Command, environment: &Environment) -> Result<(), Failure> {
    match command {
        Command::Run(files) => {
            let config = load(&files, environment)?;
            logging::install(&config.tracing, environment)?;
            run::run(config)
        }
        Command::Validate(files) => {
            let config = load(&files, environment)?;
            logging::filter(config.tracing.level, environment)?;
            let _closed = writeln!(io::stdout(), "configuration is valid");
            Ok(())
        }
        Command::Demo(args) => {
            let tracing = Tracing { level: LevelFilter::WARN, format: LogFormat::Text };
            logging::install(&tracing, environment)?;
            demo::demo(&args)
        }
    }
}

fn load(files: &[PathBuf], environment: &Environment) -> Result<Config, Failure> {
    Config::load(files, environment).map_err(|invalid| {
        let problems = invalid.problems.join("\n  ");
        Failure::new(exit::CONFIG, format!("the configuration is not valid\n  {problems}"))
    })
}
