//! The measured program as a child process: started with a clean environment, read through `/proc`, and gone when
//! its guard is.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::written::Io;

const READY_POLL: Duration = Duration::from_millis(20);
const END_POLL: Duration = Duration::from_millis(2);
/// The end of a program's output that stands in an error.
const LOG_TAIL_BYTES: usize = 2_000;
/// The largest page read from a measured program.
const PAGE_MAX: usize = 4 * 1024 * 1024;

/// A running child. Dropped, it is killed and waited for.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts `path` in `folder` with only `PATH` and `HOME` of our environment and what `environment` adds; its
    /// output goes to the file `log`.
    ///
    /// # Errors
    /// In words, with the path.
    pub(crate) fn start(
        path: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        folder: &Path,
        log: PathBuf,
    ) -> Result<Self, String> {
        let output = File::create(&log).map_err(|why| format!("cannot write {}: {why}", log.display()))?;
        let errors = output.try_clone().map_err(|why| format!("cannot write {}: {why}", log.display()))?;
        let kept = ["PATH", "HOME"].iter().filter_map(|key| Some((key, std::env::var_os(key)?)));
        let child = Command::new(path)
            .args(arguments)
            .env_clear()
            .envs(kept)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|why| format!("cannot start {}: {why}", path.display()))?;
        Ok(Self { child, log })
    }

    /// Waits until `address` takes connections.
    ///
    /// # Errors
    /// When the program ends first or `limit` passes, with the end of its output.
    pub(crate) async fn ready(&mut self, address: SocketAddr, limit: Duration) -> Result<(), String> {
        let until = Instant::now() + limit;
        while TcpStream::connect(address).await.is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended before it was ready ({status}){}", self.tail()));
            }
            if Instant::now() >= until {
                let waited_s = limit.as_secs();
                return Err(format!("nothing listens on {address} after {waited_s} s{}", self.tail()));
            }
            sleep(READY_POLL).await;
        }
        Ok(())
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn usage(&self) -> Result<Usage, String> {
        usage(&self.child.id().to_string())
            .map_err(|why| format!("cannot read the program's use of resources: {why}{}", self.tail()))
    }

    /// What the kernel says that it has written so far, where it says it.
    pub(crate) fn io(&self) -> Option<Io> {
        let path = format!("/proc/{}/io", self.child.id());
        Io::parse(&std::fs::read_to_string(path).ok()?)
    }

    /// Asks it to end, then insists after `limit`.
    pub(crate) async fn stop(mut self, limit: Duration) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + limit;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            sleep(READY_POLL).await;
        }
    }

    /// Asks it to end: how long that took, and its exit status. One that does not end within `limit` is killed and
    /// has none.
    pub(crate) async fn terminate(mut self, limit: Duration) -> (Duration, Option<i32>) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        self.end(limit).await
    }

    /// Waits for its end, which it finds by itself, and reads the JSON at the end of its output.
    ///
    /// # Errors
    /// Where there is none, with the end of its output.
    pub(crate) async fn report<T: DeserializeOwned>(mut self, limit: Duration) -> Result<T, String> {
        self.end(limit).await;
        let output = std::fs::read_to_string(&self.log).unwrap_or_default();
        let json =
            output.find("\n{").or(output.starts_with('{').then_some(0)).and_then(|at| output.get(at..));
        serde_json::from_str(json.unwrap_or_default())
            .map_err(|why| format!("no report: {why}{}", self.tail()))
    }

    async fn end(&mut self, limit: Duration) -> (Duration, Option<i32>) {
        let asked = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return (asked.elapsed(), status.code());
            }
            if asked.elapsed() >= limit {
                return (asked.elapsed(), None);
            }
            sleep(END_POLL).await;
        }
    }

    fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let end = text.get(text.len().saturating_sub(LOG_TAIL_BYTES)..).unwrap_or_default();
        format!("; the end of {}:\n{}", self.log.display(), String::from_utf8_lossy(end))
    }
}

/// A process' use of resources.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// User and system time of all its threads, those that ended included; the kernel shows it in ticks (10 ms).
    pub(crate) cpu_s: f64,
    pub(crate) resident_mb: f64,
    pub(crate) resident_peak_mb: f64,
}

/// The use of resources of this process itself.
pub(crate) fn own_usage() -> Usage {
    usage("self").unwrap_or_default()
}

fn usage(process: &str) -> Result<Usage, String> {
    let read = |file: &str| {
        let path = format!("/proc/{process}/{file}");
        std::fs::read_to_string(&path).map_err(|why| format!("{path}: {why}"))
    };
    let ticks = cpu_ticks(&read("stat")?).ok_or("stat is not as expected")?;
    let status = read("status")?;
    let megabytes = |key| Some(kibibytes(&status, key)? * 1_024.0 / 1e6);
    Ok(Usage {
        cpu_s: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        resident_mb: megabytes("VmRSS:").ok_or("no VmRSS: the program has ended")?,
        resident_peak_mb: megabytes("VmHWM:").ok_or("no VmHWM: the program has ended")?,
    })
}

/// utime + stime, the 14th and 15th field of proc_pid_stat(5); the second may hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kibibytes(status: &str, key: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_ascii_whitespace().next()?.parse().ok()
}

/// The first line that `path --version` prints.
pub(crate) fn version(path: &Path) -> String {
    let output = Command::new(path).arg("--version").stdin(Stdio::null()).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").to_owned()
}

/// The JSON at `http://address/path`, if there is any within a second.
pub(crate) async fn json_page(address: SocketAddr, path: &str) -> Option<serde_json::Value> {
    serde_json::from_str(&text_page(address, path).await?).ok()
}

/// The text at `http://address/path`, if there is any within a second.
pub(crate) async fn text_page(address: SocketAddr, path: &str) -> Option<String> {
    let page = timeout(Duration::from_secs(1), page(address, path)).await.ok()?.ok()?;
    let (head, body) = page.split_once("\r\n\r\n")?;
    head.split_ascii_whitespace().nth(1).filter(|status| *status == "200")?;
    Some(body.to_owned())
}

// HTTP/1.0, so that the answer comes whole and the connection ends with it.
async fn page(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut page = Vec::new();
    stream.take(PAGE_MAX as u64).read_to_end(&mut page).await?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_ticks_are_read_behind_a_name_with_brackets_and_spaces() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 3 0 99";
        assert_eq!(cpu_ticks(stat), Some(175));
    }

    #[test]
    fn memory_is_read_by_its_key() {
        assert_eq!(kibibytes("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1024 kB\n", "VmRSS:"), Some(1_024.0));
    }

    #[test]
    fn a_program_is_gone_when_its_guard_is() {
        let folder = std::env::temp_dir();
        let log = folder.join(format!("nyx-rod-test-{}.log", std::process::id()));
        let program =
            Program::start(Path::new("sleep"), &["600".to_owned()], &[], &folder, log.clone()).unwrap();
        let pid = program.child.id().to_string();
        assert!(usage(&pid).is_ok());
        drop(program);
        assert!(usage(&pid).is_err());
        std::fs::remove_file(log).unwrap();
    }

    #[tokio::test]
    async fn a_program_that_ends_before_it_is_ready_is_reported_with_its_output() {
        let folder = std::env::temp_dir();
        let log = folder.join(format!("nyx-rod-test-ready-{}.log", std::process::id()));
        let arguments = ["-c".to_owned(), "echo no such luck; exit 3".to_owned()];
        let mut program = Program::start(Path::new("sh"), &arguments, &[], &folder, log.clone()).unwrap();
        // Held but not listening: nothing answers on it.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let closed = socket.local_addr().unwrap();
        let why = program.ready(closed, Duration::from_secs(60)).await.unwrap_err();
        let shown = log.display();
        assert_eq!(
            why,
            format!("it ended before it was ready (exit status: 3); the end of {shown}:\nno such luck\n")
        );
        std::fs::remove_file(log).unwrap();
    }
}
