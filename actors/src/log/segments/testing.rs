//! A segment log without threads: work is done when it is given, so that tests know what happened when.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{OpenError, OpenLog, SegmentLog, SegmentLogConfig, Writer};
use crate::log::disk::Disk;

/// A segment log whose writer and reader work on the caller's thread.
#[derive(Debug)]
pub(crate) struct Inline {
    pub(crate) log: Arc<SegmentLog>,
    pub(crate) writer: Arc<Mutex<Writer>>,
}

impl Inline {
    /// Opens the folder on this disk.
    pub(crate) fn open(disk: Arc<dyn Disk>, config: &SegmentLogConfig) -> Result<Self, OpenError> {
        Ok(Self::of(&OpenLog::open_on(disk, config, None)?))
    }

    /// Opens it in this start of the machine.
    #[cfg(test)]
    pub(crate) fn open_in(
        disk: Arc<dyn Disk>,
        config: &SegmentLogConfig,
        boot: [u8; 16],
    ) -> Result<Self, OpenError> {
        Ok(Self::of(&OpenLog::open_in(disk, config, None, Some(boot))?))
    }

    /// The log of an opened folder.
    pub(crate) fn of(open: &OpenLog) -> Self {
        let writer = Arc::new(Mutex::new(open.writer()));
        let (write, report, reader) = (Arc::clone(&writer), Arc::clone(&writer), open.reader());
        let log = open.log(
            move |work| {
                write.lock().handle([work]);
                Ok(())
            },
            move |request| {
                reader.handle(request, &mut |work| report.lock().handle([work]));
                Ok(())
            },
        );
        Self { log: Arc::new(log), writer }
    }

    /// An orderly end.
    pub(crate) fn close(self) {
        self.writer.lock().close();
    }
}
