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
            let sources = sources(args, environment);
            let loaded = load(&sources)?;
            let logging = logging::install(&loaded.config.tracing, environment)?;
            for notice in &loaded.notices {
                tracing::info!("{notice}");
            }
            for warning in &loaded.warnings {
                tracing::warn!("{warning}");
            }
            let ended = run::run(sources, loaded, &logging, &ServiceManager::of(environment));
            logging.finish();
            ended
        }
        Command::Validate(args) => {
            let loaded = load(&sources(args, environment))?;
            logging::filter(loaded.config.tracing.level, environment)?;
            for notice in loaded.notices {
                say(format!("{notice}\n").as_bytes());
            }
            for warning in loaded.warnings {
                say(format!("warning: {warning}\n").as_bytes());
            }
            say(b"configuration is valid\n");
            Ok(())
        }
        Command::ConfigShow(args) => {
            say(load(&sources(args, environment))?.show().as_bytes());
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

fn sources(ConfigArgs { files, flags }: ConfigArgs, environment: &Environment) -> Sources {
    Sources::of_daemon(&files, environment.clone(), flags)
}

fn load(sources: &Sources) -> Result<Loaded, Failure> {
    sources.load().map_err(|invalid| {
        let problems = invalid.problems.join("\n  ");
        Failure::new(exit::CONFIG, format!("the configuration is not valid\n  {problems}"))
    })
}

fn say(text: &[u8]) {
    // A closed pipe leaves nobody to tell.
    let _closed = io::stdout().write_all(text);
}
