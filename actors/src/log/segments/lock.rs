//! One folder, one process: the file `lock`, locked while the log is open. The system lets go of the lock with the
//! process, however it ends; the file stays.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

const NAME: &str = "lock";

/// The right to use a log's folder; given back when dropped.
#[derive(Debug)]
pub struct DirLock {
    file: File,
    dir: PathBuf,
}

/// It cannot be told whether the folder is free.
#[derive(Debug, Error)]
#[error("cannot {what} {path}: {source}", path = path.display())]
pub struct LockError {
    /// What failed.
    pub what: &'static str,
    /// With what.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl DirLock {
    /// Takes the lock of a folder, which is made where there is none, for its owner alone; `None` where somebody has
    /// the lock, this process included.
    ///
    /// # Errors
    /// Where the folder or the file cannot be made, or the file system knows no locks.
    pub fn try_acquire(dir: &Path) -> Result<Option<Self>, LockError> {
        let path = dir.join(NAME);
        let error = |what, path: &Path, source| LockError { what, path: path.to_owned(), source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| error("make the folder", dir, source))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(|source| error("open", &path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(error("lock", &path, source)),
        }
        let lock = Self { file, dir: dir.to_owned() };
        lock.sign();
        Ok(Some(lock))
    }

    /// The process that has the folder's lock, or had it when it was killed.
    pub fn holder(dir: &Path) -> Option<u32> {
        let mut text = String::new();
        File::open(dir.join(NAME)).ok()?.take(16).read_to_string(&mut text).ok()?;
        text.trim_end().parse().ok()
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process's id is for people to read: a full disk must not keep the log from being opened.
    fn sign(&self) {
        let _unsigned = self
            .file
            .set_len(0)
            .and_then(|()| self.file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        let _still_signed = self.file.set_len(0);
        // Closing the file would do, were it not for a child process that is about to start and has it too.
        let _closed_next = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Child, Command, Stdio},
    };

    use super::{super::super::testing::Folder, *};

    const CHILD_DIR: &str = "NYX_TEST_LOCK_DIR";

    #[test]
    fn the_lock_is_exclusive_and_free_again_after_it() {
        let folder = Folder::new("lock");
        let dir = folder.join("a/b");
        assert_eq!(DirLock::holder(&dir), None);
        let lock = DirLock::try_acquire(&dir).unwrap().expect("nobody has it");
        assert_eq!((lock.dir(), DirLock::holder(&dir)), (&*dir, Some(std::process::id())));
        assert!(DirLock::try_acquire(&dir).unwrap().is_none());
        assert_eq!(DirLock::holder(&dir), Some(std::process::id()), "the attempt left the name");
        assert_eq!((folder.mode("a/b"), folder.mode("a/b/lock")), (0o700, 0o600));
        drop(lock);
        assert_eq!(DirLock::holder(&dir), None);
        assert!(DirLock::try_acquire(&dir).unwrap().is_some());
    }

    #[test]
    fn another_processs_lock_ends_with_it_even_if_it_is_killed() {
        let folder = Folder::new("lock-process");
        let mut child = child_that_holds(folder.path());
        assert!(DirLock::try_acquire(folder.path()).unwrap().is_none());
        assert_eq!(DirLock::holder(folder.path()), Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(DirLock::try_acquire(folder.path()).unwrap().is_some());
    }

    /// Starts this test program anew, for the test below alone.
    fn child_that_holds(dir: &Path) -> Child {
        let name = "log::segments::lock::tests::the_other_process_holds_the_lock_until_it_ends";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD_DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(said.into_iter().any(|line| line.contains("it is locked")), "the child did not get the lock");
        child
    }

    #[test]
    fn the_other_process_holds_the_lock_until_it_ends() {
        let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
        let _lock = DirLock::try_acquire(Path::new(&dir)).unwrap().expect("nobody has it");
        println!("\nit is locked");
        let _killed_meanwhile = io::stdin().read_to_end(&mut Vec::new());
    }

    #[test]
    fn an_error_names_what_failed() {
        let folder = Folder::new("lock-error");
        std::fs::write(folder.join("file"), "").unwrap();
        let dir = folder.join("file");
        let error = DirLock::try_acquire(&dir).unwrap_err().to_string();
        assert_eq!(error, format!("cannot make the folder {}: File exists (os error 17)", dir.display()));
        std::fs::create_dir_all(folder.join("dir/lock")).unwrap();
        let error = DirLock::try_acquire(&folder.join("dir")).unwrap_err().to_string();
        let path = folder.join("dir/lock");
        assert_eq!(error, format!("cannot open {}: Is a directory (os error 21)", path.display()));
    }
}
