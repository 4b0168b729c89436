//! A fresh folder for the log of one daemon, and what it lies on.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use crate::cli::say;
use crate::report::median;
use crate::tally::seconds;

/// Appends that are timed to tell what a sync costs.
const PROBES: usize = 21;
/// About a request of 512 spans.
const PROBE_BYTES: usize = 180_000;
/// File systems that have no disk: what is measured on them is no cost of durability.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// A folder that is removed, with all that is in it, when this is dropped.
#[derive(Debug)]
pub(crate) struct LogFolder(PathBuf);

impl LogFolder {
    /// A new one in `base`.
    ///
    /// # Errors
    /// In words, with the path; also where there is one of this name already.
    pub(crate) fn fresh(base: &Path, run: u32) -> Result<Self, String> {
        let path = base.join(format!("nyx-log-{}-{run}", std::process::id()));
        fs::create_dir(&path).map_err(|why| format!("cannot create {}: {why}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LogFolder {
    fn drop(&mut self) {
        if let Err(why) = fs::remove_dir_all(&self.0) {
            say(&format!("cannot remove {}: {why}", self.0.display()));
        }
    }
}

/// The file system that a folder is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) kind: String,
    /// The file system's own options, `barrier=0` for one.
    options: String,
}

impl Mount {
    /// That of `path`.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn of(path: &Path) -> Result<Self, String> {
        let path = fs::canonicalize(path).map_err(|why| format!("cannot find {}: {why}", path.display()))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|why| format!("cannot read /proc/self/mountinfo: {why}"))?;
        Self::find(&mounts, &path).ok_or_else(|| format!("{} is on no known mount", path.display()))
    }

    /// As in proc_pid_mountinfo(5): the longest mount point that the path begins with; of equal ones the last, which
    /// lies on top.
    fn find(mounts: &str, path: &Path) -> Option<Self> {
        let of_line = |line: &str| {
            let (place, system) = line.split_once(" - ")?;
            let point = place.split(' ').nth(4)?.replace("\\040", " ");
            path.starts_with(&point).then_some(())?;
            let mut system = system.split(' ');
            let (kind, options) = (system.next()?.to_owned(), system.nth(1)?.to_owned());
            Some((point.len(), Self { kind, options }))
        };
        mounts.lines().filter_map(of_line).max_by_key(|(length, _)| *length).map(|(_, mount)| mount)
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        IN_MEMORY.contains(&self.kind.as_str())
    }
}

/// The file system below `base` in words, with what an append and its sync take there.
///
/// # Errors
/// In words, where nothing can be written.
pub(crate) fn describe(base: &Path) -> Result<String, String> {
    let Mount { kind, options } = Mount::of(base)?;
    let folder = LogFolder::fresh(base, 0)?;
    let took = time_syncs(&folder.path().join("probe"))
        .map_err(|why| format!("cannot write in {}: {why}", folder.path().display()))?;
    let bytes = PROBE_BYTES / 1_000;
    Ok(format!(
        "{kind} ({options}), where appending {bytes} kB and fdatasync take {took:.2} ms, median of {PROBES}"
    ))
}

fn time_syncs(path: &Path) -> std::io::Result<f64> {
    let mut file = File::create(path)?;
    let payload = vec![1; PROBE_BYTES];
    let mut took_ms = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let begin = Instant::now();
        file.write_all(&payload)?;
        file.sync_data()?;
        took_ms.push(seconds(begin.elapsed()) * 1e3);
    }
    Ok(median(took_ms).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_on_the_innermost_mount_and_on_the_last_one_there() {
        let mounts = "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/a rw,discard\n\
                      22 21 0:5 / /tmp rw - tmpfs tmpfs rw,size=1g\n\
                      23 22 254:1 / /tmp/a\\040b rw - xfs /dev/b rw\n\
                      24 23 254:2 / /tmp/a\\040b rw - btrfs /dev/c rw,compress\n";
        let kind = |path: &str| Mount::find(mounts, Path::new(path)).map(|mount| (mount.kind, mount.options));
        let is = |kind: &str, options: &str| Some((kind.to_owned(), options.to_owned()));
        assert_eq!(kind("/var/tmp"), is("ext4", "rw,discard"));
        assert_eq!(kind("/tmp/a"), is("tmpfs", "rw,size=1g"));
        assert_eq!(kind("/tmp/a b/c"), is("btrfs", "rw,compress"));
        assert_eq!(Mount::find("", Path::new("/")), None);
    }

    #[test]
    fn only_file_systems_without_a_disk_are_in_memory() {
        let mount = |kind: &str| Mount { kind: kind.to_owned(), options: "rw".to_owned() };
        assert!(mount("tmpfs").is_in_memory() && mount("ramfs").is_in_memory());
        assert!(!mount("ext4").is_in_memory());
    }

    #[test]
    fn a_log_folder_is_gone_with_its_files_when_its_guard_is() {
        let folder = LogFolder::fresh(&std::env::temp_dir(), 4_000_000).unwrap();
        let path = folder.path().to_owned();
        fs::create_dir(path.join("segments")).unwrap();
        fs::write(path.join("segments/1"), "x").unwrap();
        let again = LogFolder::fresh(&std::env::temp_dir(), 4_000_000).unwrap_err();
        assert_eq!(again, format!("cannot create {}: File exists (os error 17)", path.display()));
        drop(folder);
        assert!(!path.exists());
    }
}
