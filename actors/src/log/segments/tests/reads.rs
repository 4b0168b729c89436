//! What a start reads.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::log::{
    conformance::{append_bytes, wait},
    disk::sim::{Kind, Ops, SimDisk},
    segments::format::DATA_START,
};

#[test]
fn a_start_reads_the_headers_of_all_segments_and_the_records_of_the_last_whatever_the_backlog() {
    const SEGMENT_BYTES: u64 = 1 << 20;
    let disk = SimDisk::with_dir("/log");
    let destinations = vec![LogDestination { name: "d".to_owned(), start: StartAt::Beginning }];
    let config =
        SegmentLogConfig { segment_bytes: SEGMENT_BYTES, destinations, ..SegmentLogConfig::new("/log") };
    let log = Inline::open(Arc::new(disk.clone()), &config).unwrap();
    for _ in 0..200 {
        let (batch, mut reply) = append_bytes(Bytes::from(vec![7; 100_000]), 10);
        wait(log.log.commit(vec![batch]));
        reply.try_recv().unwrap().unwrap();
    }
    let disk = disk.crash_process();
    let segments: Vec<_> = {
        let paths = disk.paths().into_iter();
        paths.filter(|path| path.extension().is_some_and(|end| end == "segment")).collect()
    };
    assert!(segments.len() >= 15, "{segments:?}");
    let before = disk.operations().len() as u64;
    let log = Inline::open(Arc::new(disk.clone()), &config).unwrap();
    assert_eq!(log.log.end(), 2_000);
    let reads = disk.operations_of(&Ops::of([Kind::Read]).ending(".segment"));
    let mut of_the_last = 0;
    for read in reads.iter().filter(|read| read.number >= before) {
        if segments.last() == Some(&read.path) {
            of_the_last += read.length;
        } else {
            assert!(read.offset + read.length <= DATA_START, "more than the two headers: {read:?}");
        }
    }
    let length = disk.bytes(segments.last().unwrap()).len() as u64;
    assert!((length..2 * length).contains(&of_the_last), "{of_the_last} of {length} bytes");
}
