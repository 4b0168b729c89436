//! Where the measured programs are, built or installed if need be, and where the rod writes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the rod writes; made if it is not there.
///
/// # Errors
/// In words.
pub(crate) fn work_folder() -> Result<PathBuf, String> {
    let folder = target_folder().join("rod");
    std::fs::create_dir_all(&folder).map_err(|why| format!("cannot create {}: {why}", folder.display()))?;
    Ok(folder)
}

fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// nyx-daemon's binary; `auto` builds it in release form.
///
/// # Errors
/// In words.
pub(crate) fn nyx_path(choice: &str) -> Result<PathBuf, String> {
    if choice != "auto" {
        return absolute(choice);
    }
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--bin", "nyx-daemon"]).current_dir(workspace());
    // Ours is for the report.
    build.stdout(Stdio::null());
    match build.status() {
        Ok(status) if status.success() => {
            absolute(&target_folder().join("release/nyx-daemon").to_string_lossy())
        }
        Ok(status) => Err(format!("building nyx-daemon failed ({status})")),
        Err(why) => Err(format!("cannot run cargo: {why}")),
    }
}

/// Rotel's binary; `auto` installs it from PyPI.
///
/// # Errors
/// In words.
pub(crate) fn rotel_path(choice: &str) -> Result<PathBuf, String> {
    if choice != "auto" {
        return absolute(choice);
    }
    let script = workspace().join("benches/rod/install-rotel.sh");
    let output = Command::new(&script)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|why| format!("cannot run {}: {why}", script.display()))?;
    if !output.status.success() {
        return Err(format!("{} failed ({})", script.display(), output.status));
    }
    absolute(String::from_utf8_lossy(&output.stdout).trim())
}

// The measured program starts in a folder of its own.
fn absolute(path: &str) -> Result<PathBuf, String> {
    std::fs::canonicalize(path).map_err(|why| format!("cannot find {path}: {why}"))
}
