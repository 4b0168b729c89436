//! The plain threads of the tree: those of a log on disk, and that of the retention.

use std::{sync::Arc, time::Duration};

use crate::{
    log::segments::{OpenLog, SegmentLog},
    retain::{Retainer, Retention},
    supervise::{Backoff, ChildSpec, Supervisor, TrySendError},
};

/// Messages that wait for the log's threads at most. There is one group at a time, one checkpoint, a read for each
/// consumer, and one message about positions.
const LOG_INBOX: usize = 256;
/// What the log needs to sync its files when it is closed.
const LOG_STOP: Duration = Duration::from_secs(10);

/// The log's threads: one that writes, and one that reads what is no longer in memory.
pub(super) fn segment_log(supervisor: &mut Supervisor, open: &OpenLog, backoff: Backoff) -> SegmentLog {
    let spec = |name: &str| ChildSpec::new(name).backoff(backoff).inbox_capacity(LOG_INBOX);
    let writing = open.clone();
    // Stopped last, it finishes what waits and closes the log, even if it was down.
    let writer = spec("log").stop_deadline(LOG_STOP).drains_more();
    let write = supervisor.thread(writer, move |context| {
        let mut writer = writing.writer();
        // The one before may have ended before positions that somebody waits for were written.
        writer.handle([]);
        let mut batch = Vec::with_capacity(LOG_INBOX);
        while context.recv(&mut batch, LOG_INBOX) {
            writer.handle(batch.drain(..));
        }
        if !context.is_fenced() {
            writer.close();
        }
        Ok(())
    });
    let reader = open.reader();
    let report = write.clone();
    let read = supervisor.thread(spec("log.reader"), move |context| {
        let mut batch = Vec::with_capacity(1);
        while context.recv(&mut batch, 1) {
            for request in batch.drain(..) {
                reader.handle(request, &mut |work| {
                    // Told to nobody, it is found again after the next start.
                    let _full = report.try_send(work);
                });
            }
        }
        Ok(())
    });
    open.log(
        move |work| write.try_send(work).map_err(TrySendError::into_message),
        move |request| read.try_send(request).map_err(TrySendError::into_message),
    )
}

/// The retention's thread: it is woken when there is enough to look through.
pub(super) fn retention_thread(
    supervisor: &mut Supervisor,
    spec: ChildSpec,
    retention: Arc<Retention>,
) -> Retainer {
    let sifted = Arc::clone(&retention);
    let thread = supervisor.thread(spec.inbox_capacity(1), move |context| {
        let mut wakes: Vec<()> = Vec::with_capacity(1);
        while context.recv(&mut wakes, 1) {
            wakes.clear();
            sifted.sift();
        }
        Ok(())
    });
    let wake = move || {
        // Full means that a wake is already waiting there.
        let _waiting = thread.try_send(());
    };
    Retainer::new(retention, Arc::new(wake))
}
