//! Payloads are their senders' and may hold anything: after damage, nothing in one is taken for a record.

use super::{super::format::UnsealedHeader, *};

/// A record that would be the one behind `before` records and `spans` spans, sealed for this place of a segment with
/// this key.
fn record(key: [u8; 16], offset: u64, sequence: u64, first: Ordinal) -> Vec<u8> {
    let payload = payload(first, 1);
    let length = u32::try_from(payload.len()).unwrap();
    let fields = UnsealedHeader { length, sequence, first, spans: 1, group_left: 0, committed: 1 };
    let mut record = [&RecordHeader::seal(&key, offset, &payload, fields)[..], &payload].concat();
    record.resize(record.len().next_multiple_of(8), 0);
    record
}

#[test]
fn damage_before_a_payload_that_holds_records_is_not_healed_by_them() {
    let config = SegmentLogConfig { segment_bytes: 1 << 20, ..config(Durability::Process) };
    let disk = SimDisk::with_dir("/log");
    let log = open(&disk, &config);
    let mut sent = commit(&log, &[3, 2, 4]);
    drop(log);
    // Another segment, so that there are records of two.
    let log = open(&disk, &config);
    sent.extend(commit(&log, &[2, 2]));
    let (first, second) = (disk.bytes(segment(1)), disk.bytes(segment(2)));
    let key = SegmentHeader::decode(&second).unwrap().key;
    let (offset, end) = (second.len() as u64, log.log.end());
    let in_payload = offset + 48;
    // Everything that a sender could have seen and more: the log's own records, whole segments, records with the numbers
    // that would fit, under another key, and under the right key but for another place.
    let mut held = [&second[128..], &first[128..], &second, &first].concat();
    for at in [0, 8] {
        held.extend(record([7; 16], in_payload + held.len() as u64, 5, end));
        held.extend(record(key, offset + at, 5, end));
        held.extend(record(key, in_payload + held.len() as u64 + 8, 6, end + 1));
    }
    let bait = Bytes::from(held);
    let replies = commit_bytes(&log, vec![(bait.clone(), 3)]);
    let bait = Sent { first: replies[0].as_ref().unwrap().first, end: end + 3, bytes: bait };
    sent.push(bait.clone());
    sent.extend(commit(&log, &[5, 1]));
    drop(log);

    // Found by recovery; and with a segment behind it, by a reader.
    let last = disk.crash_process();
    let log = open(&disk, &config);
    sent.extend(commit(&log, &[2]));
    drop(log);
    for (disk, segments) in [(last, 2), (disk, 3)] {
        for at in offset..in_payload + bait.bytes.len() as u64 {
            let disk = disk.crash_process();
            disk.flip_bit(segment(2), usize::try_from(at * 8 + at % 8).unwrap());
            let log = open(&disk, &config);
            let mut expected = sent.clone();
            expected.retain(|sent| sent.first != bait.first && sent.end <= log.log.end());
            let delivered = deliver(&log, A);
            assert_eq!(
                delivered,
                Delivered { records: expected, damaged: 3, evicted: 0 },
                "byte {at}, {segments}"
            );
        }
    }
}

#[test]
fn a_torn_tail_that_holds_whole_records_is_still_torn() {
    let config = SegmentLogConfig { segment_bytes: 1 << 20, ..config(Durability::Process) };
    let disk = SimDisk::with_dir("/log");
    let log = open(&disk, &config);
    let sent = commit(&log, &[3, 2, 4]);
    let bytes = disk.bytes(segment(1));
    let bait = Bytes::from([&bytes[128..], &bytes].concat());
    let length = bait.len();
    commit_bytes(&log, vec![(bait, 9)]);
    drop(log);
    for cut in 1..length + 48 {
        let disk = disk.crash_process();
        disk.edit(segment(1), |bytes| bytes.truncate(bytes.len() - cut));
        let log = open(&disk, &config);
        assert_eq!(log.log.end(), sent[2].end, "{cut} bytes cut");
        assert_eq!(deliver(&log, A), Delivered { records: sent.clone(), ..Delivered::default() });
        assert_eq!(log.log.troubles(), [""; 0]);
    }
}
