//! What the process finds around it, as a value, so that tests never touch the real one.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

/// Where the log lives when nothing says otherwise and there is no home.
const SYSTEM_STATE_DIR: &str = "/var/lib/nyx";

/// The variables of the process and whether it runs as root.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    root: bool,
}

// By hand: variables hold secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.len())
            .field("root", &self.root)
            .finish()
    }
}

impl Environment {
    /// An environment of these variables. A name that is not UTF-8 cannot be one of ours and is left out.
    pub fn new<N, V>(variables: impl IntoIterator<Item = (N, V)>, root: bool) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value.into())))
            .collect();
        Self { variables, root }
    }

    /// The environment of this process.
    pub fn of_process() -> Self {
        Self::new(std::env::vars_os(), rustix::process::geteuid().is_root())
    }

    /// The value of a variable, if it is set.
    ///
    /// # Errors
    /// It is set, but not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, String> {
        let Some(value) = self.variables.get(name) else { return Ok(None) };
        match value.to_str() {
            Some(text) => Ok(Some(text)),
            None => Err(format!("variable {name}: must be UTF-8")),
        }
    }

    /// The directives of `RUST_LOG`, if it is set and not empty.
    ///
    /// # Errors
    /// It is set, but not UTF-8.
    pub fn rust_log(&self) -> Result<Option<&str>, String> {
        Ok(self.text("RUST_LOG")?.filter(|directives| !directives.is_empty()))
    }

    /// The names of all variables, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// The default of `log.dir`: `$STATE_DIRECTORY` (systemd's; the first, if it names several), else
    /// `/var/lib/nyx` for root, else `$XDG_STATE_HOME/nyx`, else `$HOME/.local/state/nyx`, else, for a user
    /// without a home, `/var/lib/nyx`.
    pub fn state_dir(&self) -> PathBuf {
        let state_directory =
            self.absolute("STATE_DIRECTORY").and_then(|dirs| std::env::split_paths(&dirs).next());
        if let Some(dir) = state_directory {
            return dir;
        }
        if !self.root {
            if let Some(state) = self.absolute("XDG_STATE_HOME") {
                return state.join("nyx");
            }
            if let Some(home) = self.absolute("HOME") {
                return home.join(".local/state/nyx");
            }
        }
        SYSTEM_STATE_DIR.into()
    }

    /// A variable that holds an absolute path; the XDG specification says to ignore any other.
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        let path = Path::new(self.variables.get(name)?);
        path.is_absolute().then(|| path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn resolves(root: bool, variables: &[(&str, &str)], dir: &str) {
        assert_eq!(Environment::new(variables.iter().copied(), root).state_dir(), Path::new(dir));
    }

    #[test]
    fn the_state_directory_of_systemd_comes_first() {
        let all = [("STATE_DIRECTORY", "/var/lib/own"), ("XDG_STATE_HOME", "/x"), ("HOME", "/home/me")];
        resolves(true, &all, "/var/lib/own");
        resolves(false, &all, "/var/lib/own");
        resolves(false, &[("STATE_DIRECTORY", "/a:/b")], "/a");
    }

    #[test]
    fn root_keeps_its_state_with_the_system() {
        resolves(true, &[("XDG_STATE_HOME", "/x"), ("HOME", "/root")], "/var/lib/nyx");
    }

    #[test]
    fn a_user_keeps_it_at_home() {
        resolves(false, &[("XDG_STATE_HOME", "/x"), ("HOME", "/home/me")], "/x/nyx");
        resolves(false, &[("HOME", "/home/me")], "/home/me/.local/state/nyx");
    }

    #[test]
    fn empty_and_relative_paths_count_as_unset() {
        let variables = [("STATE_DIRECTORY", ""), ("XDG_STATE_HOME", "state"), ("HOME", "/home/me")];
        resolves(false, &variables, "/home/me/.local/state/nyx");
        resolves(false, &[], "/var/lib/nyx");
    }

    #[test]
    fn debug_shows_no_values() {
        let environment = Environment::new([("TOKEN", "secret")], false);
        assert_eq!(format!("{environment:?}"), "Environment { variables: 1, root: false }");
    }
}
