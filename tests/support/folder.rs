//! A folder of a test's own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// A folder that is not there yet, and gone with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _nothing_left_behind = fs::remove_dir_all(&path);
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// The mode of everything in it and of itself, by whether it is a folder.
    pub fn modes(&self) -> Vec<(PathBuf, bool, u32)> {
        let mut found = vec![self.0.clone()];
        let mut modes = Vec::new();
        while let Some(path) = found.pop() {
            let about = fs::metadata(&path).unwrap();
            if about.is_dir() {
                found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            modes.push((path, about.is_dir(), about.permissions().mode() & 0o7777));
        }
        modes
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _never_made = fs::remove_dir_all(&self.0);
    }
}
