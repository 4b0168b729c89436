mod model;
mod points;
mod reads;
mod world;

use std::sync::Arc;

use super::{testing::Inline, *};
use crate::log::{conformance, disk::OsDisk, testing::Folder};

fn config(folder: &Folder, max_bytes: u64, destinations: usize, measured: bool) -> SegmentLogConfig {
    let destinations = (0..destinations)
        .map(|index| LogDestination { name: format!("d{index}"), start: StartAt::End })
        .collect();
    SegmentLogConfig {
        max_bytes,
        min_free_bytes: 0,
        // Each group has a segment of its own.
        segment_bytes: 1,
        destinations,
        measured,
        ..SegmentLogConfig::new(folder.join("log"))
    }
}

#[test]
fn the_segment_form_conforms() {
    let folders = parking_lot::Mutex::new(Vec::new());
    conformance::suite(move |max_bytes, destinations, measured| {
        let folder = Folder::new("conformance");
        let config = config(&folder, max_bytes as u64, destinations, measured);
        folders.lock().push(folder);
        Inline::open(Arc::new(OsDisk), &config).unwrap().log
    });
}

mod round {
    use bytes::Bytes;

    use super::*;
    use crate::log::{
        ReadLimit,
        conformance::{append_bytes, wait},
        disk::sim::SimDisk,
    };

    const WIDE: ReadLimit = ReadLimit { spans: u64::MAX, bytes: usize::MAX };

    fn commit(log: &Inline, size: usize, spans: u32) {
        let (batch, mut reply) = append_bytes(Bytes::from(vec![spans as u8; size]), spans);
        wait(log.log.commit(vec![batch]));
        reply.try_recv().unwrap().unwrap();
    }

    #[test]
    fn what_was_committed_is_there_after_a_crash_and_after_an_orderly_end() {
        let mut disk = SimDisk::with_dir("/log");
        let mut config = SegmentLogConfig::new("/log");
        config.destinations.push(LogDestination { name: "default".to_owned(), start: StartAt::End });
        for round in 0..6u64 {
            let log = Inline::open(Arc::new(disk.clone()), &config).unwrap();
            assert_eq!(log.log.end(), round * 30);
            assert_eq!(log.log.troubles(), [""; 0]);
            for size in [10, 100_000, 7] {
                commit(&log, size, 10);
            }
            let records = wait(log.log.read(0, WIDE)).unwrap();
            assert_eq!(records.len() as u64, 3 * (round + 1));
            let first = |record: &Record| (record.first, record.spans, record.bytes[0]);
            assert_eq!(
                records.iter().map(first).collect::<Vec<_>>(),
                (0..3 * (round + 1)).map(|n| (n * 10, 10, 10)).collect::<Vec<_>>()
            );
            if round % 2 == 0 {
                log.close();
            }
            disk = disk.crash_process();
        }
    }
}

mod forged {
    use super::*;
    use crate::log::{
        ReadLimit,
        conformance::wait,
        disk::sim::SimDisk,
        segments::format::{RecordHeader, SegmentHeader, UnsealedHeader},
    };

    const KEY: [u8; 16] = [7; 16];

    /// A segment of records with these numbers, ordinals and spans, whose payloads are eight bytes.
    fn segment(first: u64, records: &[(u64, u64, u32)]) -> Vec<u8> {
        let header =
            SegmentHeader { key: KEY, synced: false, anew: false, sequence: records[0].0, first, created: 0 };
        let mut bytes = header.encode().to_vec();
        for &(sequence, first, spans) in records {
            let fields = UnsealedHeader { length: 8, sequence, first, spans, group_left: 0, committed: 0 };
            let header = RecordHeader::seal(&KEY, bytes.len() as u64, b"payload.", fields);
            bytes.extend_from_slice(&header);
            bytes.extend_from_slice(b"payload.");
        }
        bytes
    }

    fn open(segments: &[Vec<u8>]) -> Inline {
        let disk = SimDisk::with_dir("/log");
        for (number, bytes) in (1..).zip(segments) {
            disk.put(format!("/log/segments/{number:012}.segment"), bytes.clone());
        }
        let destinations = vec![LogDestination { name: "d".to_owned(), start: StartAt::Beginning }];
        let config = SegmentLogConfig { measured: false, destinations, ..SegmentLogConfig::new("/log") };
        Inline::open(Arc::new(disk), &config).unwrap()
    }

    #[test]
    fn a_header_at_the_end_whose_ordinals_go_back_does_not_move_the_end_back() {
        let mut bytes = segment(0, &[(0, 0, 50), (1, 3, 2)]);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(open(&[bytes]).log.end(), 50);
    }

    #[test]
    fn a_record_that_reaches_into_the_next_segment_is_damage() {
        let log = open(&[segment(0, &[(0, 0, 10), (1, 10, 200)]), segment(20, &[(2, 20, 10)])]);
        let wide = ReadLimit { spans: u64::MAX, bytes: usize::MAX };
        assert_eq!(wait(log.log.read(10, wide)), Err(ReadError::Damaged { from: 10, to: 20 }));
        let read = wait(log.log.read(20, wide)).unwrap();
        assert_eq!(read.iter().map(|record| (record.first, record.spans)).collect::<Vec<_>>(), [(20, 10)]);
    }
}

mod anew {
    use bytes::Bytes;

    use super::*;
    use crate::log::{
        conformance::{append_bytes, wait},
        disk::sim::SimDisk,
    };

    #[test]
    fn counters_that_began_anew_never_go_back_to_the_checkpoint_before() {
        let disk = SimDisk::with_dir("/log");
        // Its destination has had nothing yet, so that all segments stay.
        let destinations = vec![LogDestination { name: "d".to_owned(), start: StartAt::Beginning }];
        let config = SegmentLogConfig { segment_bytes: 1, destinations, ..SegmentLogConfig::new("/log") };
        let commit = |log: &Inline| {
            let (batch, _reply) = append_bytes(Bytes::from_static(b"some spans"), 10);
            wait(log.log.commit(vec![batch]));
        };
        let log = Inline::open(Arc::new(disk.clone()), &config).unwrap();
        commit(&log);
        log.log.measured(10);
        wait(log.log.checkpoint(10, Bytes::from_static(b"counted"))).unwrap();
        commit(&log);
        // What is counted behind the checkpoint cannot be read any more.
        disk.flip_bit("/log/segments/000000000002.segment", (128 + 48) * 8);
        let mut disk = disk.crash_process();
        for end in [20, 30, 40] {
            let log = Inline::open(Arc::new(disk.clone()), &config).unwrap();
            assert!(matches!(log.log.restored(), Restored::Broken { position, .. } if position == end));
            // The damage is no longer in the last segment.
            commit(&log);
            disk = disk.crash_process();
        }
    }
}

mod torn {
    use super::*;
    use crate::log::{
        Append, Durability,
        conformance::{append_bytes, wait},
        disk::sim::{Done, Effect, Kind, Ops, SimDisk},
        segments::format::{DATA_START, record_size},
    };

    fn group(batches: usize) -> Vec<Append> {
        (0..batches).map(|_| append_bytes(bytes::Bytes::from_static(b"some spans"), 10).0).collect()
    }

    #[test]
    fn a_hole_that_a_power_cut_leaves_in_a_group_before_its_sync_is_no_damage() {
        let disk = SimDisk::with_dir("/log");
        let config = SegmentLogConfig { durability: Durability::Power, ..SegmentLogConfig::new("/log") };
        let log = Inline::open(Arc::new(disk.clone()), &config).unwrap();
        wait(log.log.commit(group(1)));
        let sync = Ops::of([Kind::Sync]).ending(".segment");
        disk.plan(sync.nth(0), Effect::Die(Done::Nothing));
        wait(log.log.commit(group(3)));
        let disk = disk.crash_process();
        // The second of the three records never came to the device.
        let second = (DATA_START + 2 * record_size(10)) as usize;
        disk.edit("/log/segments/000000000001.segment", |bytes| bytes[second..second + 58].fill(0));
        let log = Inline::open(Arc::new(disk), &config).unwrap();
        let stats = log.log.stats().disk.unwrap();
        assert_eq!((log.log.end(), stats.damaged_spans), (20, 0));
        assert!(stats.torn_bytes > 0);
        assert_eq!(log.log.troubles(), [""; 0]);
    }
}
