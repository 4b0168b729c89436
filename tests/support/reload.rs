//! A daemon whose configuration is read again, and what can be seen of it.

use std::{fs, path::PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use super::{
    folder::Folder,
    http::{Samples, get_blocking},
    process::Daemon,
};

/// A configuration file that the test rewrites.
pub struct File(PathBuf);

impl File {
    pub fn new(name: &str, text: &str) -> Self {
        let file = Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
        file.write(text);
        file
    }

    pub fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub fn daemon(&self) -> Daemon {
        Daemon::configured(&["run", "--config", self.path()], &[])
    }

    /// With its log in a folder.
    pub fn daemon_in(&self, folder: &Folder) -> Daemon {
        let variables = [("NYX__LOG__DURABILITY", "process"), ("NYX__LOG__DIR", folder.text())];
        Daemon::configured(&["run", "--config", self.path()], &variables)
    }
}

/// A configuration with its destination here, and more.
pub fn to(endpoint: &str, more: &str) -> String {
    format!(
        "[telemetry]\notlp_endpoint = \"{endpoint}\"\n{more}\n[export.default.batch]\nmax_delay = \"1ms\"\n"
    )
}

/// A table of another destination.
pub fn another(name: &str, endpoint: &str) -> String {
    format!("[export.{name}]\nendpoint = \"{endpoint}\"\nbatch = {{ max_delay = \"1ms\" }}\n")
}

/// How often it was reloaded, and how often that was refused.
pub fn reloads(daemon: &Daemon) -> (u64, u64) {
    let reloads = &daemon.stats()["reloads"];
    (reloads["applied"].as_u64().unwrap(), reloads["refused"].as_u64().unwrap())
}

pub fn metric(daemon: &Daemon, name: &str, labels: &[&str]) -> f64 {
    Samples::parse(&get_blocking(daemon.pages, "/metrics", None).body).sum(name, labels)
}

pub fn exported(daemon: &Daemon) -> u64 {
    exported_to(daemon, "default")
}

pub fn exported_to(daemon: &Daemon, name: &str) -> u64 {
    daemon.stats()["destinations"][name]["exported"].as_u64().unwrap_or_default()
}

/// Reloads, and waits for its line.
pub fn reloaded(daemon: &mut Daemon) -> Value {
    let (applied, _) = reloads(daemon);
    daemon.signal(Signal::HUP);
    daemon.page("/stats", |_| reloads(daemon).0 == applied + 1);
    let line = daemon.line("of the reload", |line| line["message"] == "configuration reloaded");
    daemon.forget();
    line
}
