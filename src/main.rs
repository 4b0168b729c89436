//! The `nyx-daemon` program.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use nyx_daemon::{
    cli::{self, Command, ConfigArgs},
    config::{Environment, Loaded, LogFormat, Sources, Tracing},
    demo,
    exit::{self, Failure},
    logging, run,
    service_manager::ServiceManager,
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
        Command::Run(args) => {
            let Loaded { config, notices, .. } = load(args, environment)?;
            let logging = logging::install(&config.tracing, environment)?;
            for notice in notices {
                tracing::info!("{notice}");
            }
            let ended = run::run(config, &ServiceManager::of(environment));
            logging.finish();
            ended
        }
        Command::Validate(args) => {
            let loaded = load(args, environment)?;
            logging::filter(loaded.config.tracing.level, environment)?;
            for notice in loaded.notices {
                say(format!("{notice}\n").as_bytes());
            }
            say(b"configuration is valid\n");
            Ok(())
        }
        Command::ConfigShow(args) => {
            say(load(args, environment)?.show().as_bytes());
            Ok(())
        }
        Command::Demo(args) => {
            let tracing = Tracing { level: LevelFilter::WARN, format: LogFormat::Text, burst: 50 };
            logging::install(&tracing, environment)?;
            demo::demo(&args)
        }
        Command::Completions(shell) => {
            say(&cli::completions(shell));
            Ok(())
        }
    }
}

fn load(ConfigArgs { files, flags }: ConfigArgs, environment: &Environment) -> Result<Loaded, Failure> {
    Sources::of_daemon(&files, environment.clone(), flags).load().map_err(|invalid| {
        let problems = invalid.problems.join("\n  ");
        Failure::new(exit::CONFIG, format!("the configuration is not valid\n  {problems}"))
    })
}

fn say(text: &[u8]) {
    // A closed pipe leaves nobody to tell.
    let _closed = io::stdout().write_all(text);
}
