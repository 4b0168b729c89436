//! Ends the process at a change to the disk: for child processes of tests.

use std::{
    fmt, io,
    io::IoSlice,
    path::Path,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Disk, DiskFile};

/// Where the process ends; as text `12/half`, for an environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortPoint {
    /// Which change, counted from 0.
    pub(crate) change: u64,
    pub(crate) moment: Moment,
}

/// When within the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    /// After the first half of a write; before any other change.
    Half,
    After,
}

impl Moment {
    pub(crate) const ALL: [Self; 3] = [Self::Before, Self::Half, Self::After];
}

impl fmt::Display for AbortPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match self.moment {
            Moment::Before => "before",
            Moment::Half => "half",
            Moment::After => "after",
        };
        write!(f, "{}/{moment}", self.change)
    }
}

impl FromStr for AbortPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("abort point is not like \"12/half\": {text:?}");
        let (change, moment) = text.split_once('/').ok_or_else(wrong)?;
        let moment = match moment {
            "before" => Moment::Before,
            "half" => Moment::Half,
            "after" => Moment::After,
            _ => return Err(wrong()),
        };
        Ok(Self { change: change.parse().map_err(|_| wrong())?, moment })
    }
}

/// A disk whose changes are counted; at one of them the process aborts. Changes are calls of `create_dir`,
/// `create`, `rename`, `remove`, `sync_dir`, `write_at`, `sync` and `truncate`, whether they succeed or not.
#[derive(Debug)]
pub(crate) struct AbortDisk<D> {
    inner: D,
    counter: Arc<Counter>,
}

#[derive(Debug)]
struct Counter {
    changes: AtomicU64,
    point: Option<AbortPoint>,
}

impl Counter {
    /// Runs the change, unless the process ends first.
    fn change<T>(&self, change: impl FnOnce() -> T, half: impl FnOnce()) -> T {
        let number = self.changes.fetch_add(1, Ordering::SeqCst);
        match self.point.filter(|point| point.change == number).map(|point| point.moment) {
            None => change(),
            Some(Moment::Before) => std::process::abort(),
            Some(Moment::Half) => {
                half();
                std::process::abort()
            }
            Some(Moment::After) => {
                change();
                std::process::abort()
            }
        }
    }
}

impl<D> AbortDisk<D> {
    /// Without a point it only counts.
    pub(crate) fn new(inner: D, point: Option<AbortPoint>) -> Self {
        Self { inner, counter: Arc::new(Counter { changes: AtomicU64::new(0), point }) }
    }

    /// Changes so far.
    pub(crate) fn changes(&self) -> u64 {
        self.counter.changes.load(Ordering::SeqCst)
    }

    fn change<T>(&self, change: impl FnOnce(&D) -> T) -> T {
        self.counter.change(|| change(&self.inner), || {})
    }

    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(AbortFile { inner, counter: Arc::clone(&self.counter) })
    }
}

impl<D: Disk> Disk for AbortDisk<D> {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change(|disk| disk.create_dir(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.change(|disk| disk.create(path)).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.open(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|disk| disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|disk| disk.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|disk| disk.sync_dir(dir))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }
}

#[derive(Debug)]
struct AbortFile {
    inner: Arc<dyn DiskFile>,
    counter: Arc<Counter>,
}

impl AbortFile {
    fn change<T>(&self, change: impl FnOnce(&dyn DiskFile) -> T) -> T {
        self.counter.change(|| change(&*self.inner), || {})
    }
}

impl DiskFile for AbortFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let half = || {
            let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
            super::write_full(&*self.inner, &bytes[..bytes.len() / 2], offset).unwrap();
        };
        self.counter.change(|| self.inner.write_at(buffers, offset), half)
    }

    fn sync(&self) -> io::Result<()> {
        self.change(|file| file.sync())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.change(|file| file.truncate(length))
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::PathBuf, process};

    use super::*;
    use crate::log::disk::OsDisk;

    const POINT: &str = "NYX_TEST_ABORT_POINT";
    const FOLDER: &str = "NYX_TEST_ABORT_FOLDER";

    /// What the child does, and the names and contents after each of its changes.
    fn work(disk: &dyn Disk, dir: &Path) {
        disk.create_dir(dir).unwrap();
        let file = disk.create(&dir.join("a")).unwrap();
        file.write_at(&[IoSlice::new(b"12"), IoSlice::new(b"3456")], 0).unwrap();
        file.sync().unwrap();
        file.truncate(5).unwrap();
        disk.rename(&dir.join("a"), &dir.join("b")).unwrap();
        disk.sync_dir(dir).unwrap();
        disk.remove(&dir.join("b")).unwrap();
    }

    fn found(dir: &Path) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).ok()? {
            let entry = entry.unwrap();
            let text = fs::read_to_string(entry.path()).unwrap();
            found.push((entry.file_name().into_string().unwrap(), text));
        }
        Some(found)
    }

    #[test]
    fn a_process_ends_before_after_and_in_the_middle_of_each_change() {
        if let (Ok(point), Ok(folder)) = (env::var(POINT), env::var(FOLDER)) {
            work(&AbortDisk::new(OsDisk, Some(point.parse().unwrap())), &PathBuf::from(folder));
            return;
        }
        let states = [
            None,
            Some(vec![]),
            Some(vec![("a", "")]),
            Some(vec![("a", "123456")]),
            Some(vec![("a", "123456")]),
            Some(vec![("a", "12345")]),
            Some(vec![("b", "12345")]),
            Some(vec![("b", "12345")]),
            Some(vec![]),
        ];
        let states = states.map(|state| {
            let owned = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
            state.map(|files| files.into_iter().map(owned).collect::<Vec<_>>())
        });
        for change in 0..=8 {
            for moment in Moment::ALL {
                let point = AbortPoint { change, moment };
                let dir = env::temp_dir().join(format!("nyx-abort-{}-{change}", process::id()));
                let test =
                    "log::disk::abort::tests::a_process_ends_before_after_and_in_the_middle_of_each_change";
                let output = process::Command::new(env::current_exe().unwrap())
                    .args(["--exact", test])
                    .env(POINT, point.to_string())
                    .env(FOLDER, &dir)
                    .output()
                    .unwrap();
                let change = usize::try_from(change).unwrap();
                let expected = match moment {
                    Moment::Half if change == 2 => Some(vec![("a".to_owned(), "123".to_owned())]),
                    Moment::Before | Moment::Half => states[change].clone(),
                    Moment::After => states[(change + 1).min(8)].clone(),
                };
                assert_eq!(found(&dir), expected, "{point}");
                assert_eq!(output.status.success(), change == 8, "{point}: {output:?}");
                fs::remove_dir_all(&dir).ok();
            }
        }
    }

    #[test]
    fn an_abort_point_is_told_as_text() {
        for moment in Moment::ALL {
            let point = AbortPoint { change: 12, moment };
            assert_eq!(point.to_string().parse(), Ok(point));
        }
        let error = "12".parse::<AbortPoint>().unwrap_err();
        assert_eq!(error, "abort point is not like \"12/half\": \"12\"");
    }
}
