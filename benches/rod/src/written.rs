//! What a daemon wrote for what it was sent: by its own count, and by the kernel's.

use serde::Serialize;
use serde_json::Value;

/// What the daemon's log has done so far, by its `/stats`; none of it where the log is in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LogCounts {
    pub(crate) groups: u64,
    pub(crate) syncs: u64,
    /// Bytes of the batches that were taken.
    pub(crate) payload_bytes: u64,
    /// Bytes written to files, whatever for.
    pub(crate) written_bytes: u64,
}

impl LogCounts {
    pub(crate) fn of(stats: &Value) -> Option<Self> {
        let number = |key| stats.get("log")?.get(key)?.as_u64();
        Some(Self {
            groups: number("groups")?,
            syncs: number("syncs")?,
            payload_bytes: number("payload_bytes")?,
            written_bytes: number("written_bytes")?,
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            groups: self.groups.saturating_sub(before.groups),
            syncs: self.syncs.saturating_sub(before.syncs),
            payload_bytes: self.payload_bytes.saturating_sub(before.payload_bytes),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// What the kernel counts for a process (proc_pid_io(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Io {
    /// Bytes given to `write` and its kin, to sockets too (but not by `send`).
    pub(crate) wchar: u64,
    /// Bytes of the pages that became dirty, whole pages or folios each time.
    pub(crate) write_bytes: u64,
}

impl Io {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |key| text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok();
        Some(Self { wchar: number("wchar:")?, write_bytes: number("write_bytes:")? })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            wchar: self.wchar.saturating_sub(before.wchar),
            write_bytes: self.write_bytes.saturating_sub(before.write_bytes),
        }
    }
}

/// Both counts at one instant, or over a trial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Written {
    pub(crate) log: Option<LogCounts>,
    /// None where the kernel does not show it.
    pub(crate) kernel: Option<Io>,
}

impl Written {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            log: self.log.zip(before.log).map(|(after, before)| after.since(before)),
            kernel: self.kernel.zip(before.kernel).map(|(after, before)| after.since(before)),
        }
    }

    /// Bytes written to files for a byte of payload, by the daemon's count.
    pub(crate) fn amplification(&self) -> Option<f64> {
        let log = self.log.filter(|log| log.payload_bytes > 0)?;
        Some(log.written_bytes as f64 / log.payload_bytes as f64)
    }

    /// The same by the kernel's and the rod's count: what went through `write` beyond what a daemon without a log on
    /// disk wrote for the same spans (to its sockets), for a byte sent.
    pub(crate) fn amplification_beyond(&self, without: &Self, sent_bytes: u64) -> Option<f64> {
        let (with, without) = self.kernel.zip(without.kernel)?;
        Some((with.wchar as f64 - without.wchar as f64) / sent_bytes.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_log_on_disk_is_read_from_the_page_and_one_in_memory_has_no_counts() {
        let page = json!({ "log": {
            "durability": "power", "groups": 2, "syncs": 3, "payload_bytes": 100, "written_bytes": 104
        } });
        let counts = LogCounts { groups: 2, syncs: 3, payload_bytes: 100, written_bytes: 104 };
        assert_eq!(LogCounts::of(&page), Some(counts));
        assert_eq!(LogCounts::of(&json!({ "log": { "durability": "memory" } })), None);
    }

    #[test]
    fn the_kernels_counts_are_read_by_their_names() {
        let text = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\ncancelled_write_bytes: 7\n";
        assert_eq!(Io::parse(text), Some(Io { wchar: 2, write_bytes: 6 }));
        assert_eq!(Io::parse(""), None);
    }

    #[test]
    fn amplification_is_of_the_trial_and_not_of_what_was_before() {
        let at = |payload_bytes, written_bytes, wchar| Written {
            log: Some(LogCounts { payload_bytes, written_bytes, ..LogCounts::default() }),
            kernel: Some(Io { wchar, write_bytes: 0 }),
        };
        let trial = at(1_100, 1_220, 5_000).since(at(100, 200, 1_000));
        assert_eq!(trial.amplification(), Some(1.02));
        let memory = Written { log: None, kernel: Some(Io { wchar: 2_970, write_bytes: 0 }) };
        assert_eq!(trial.amplification_beyond(&memory, 1_000), Some(1.03));
        assert_eq!(memory.amplification(), None);
        assert_eq!(trial.amplification_beyond(&Written::default(), 1_000), None);
    }
}
