//! The demo's own folder: its log is on disk as the daemon's is, and gone with it.

use std::{
    fs::{DirBuilder, remove_dir_all},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// A new folder among the system's temporary files, removed when dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it. Its name cannot be guessed, and one that exists is not taken: others may write there.
    pub(super) fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("nyx-demo-{:016x}", rand::random::<u64>()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = remove_dir_all(&self.0) {
            tracing::warn!(%error, "cannot remove {}", self.0.display());
        }
    }
}
