use super::{
    super::{
        super::{Advance, disk::OsDisk, testing::Folder},
        files::ORDINAL_MAX,
    },
    *,
};

/// An account that has moved this many times, with a count for each reason.
fn ledger(steps: u64) -> DestinationLedger {
    let mut ledger = DestinationLedger::starting_at(100);
    let dropped: Vec<_> = DropReason::ALL.iter().map(|&reason| (reason, u64::from(reason.code()))).collect();
    let distance = 30 + 2 + dropped.iter().map(|(_, count)| count).sum::<u64>();
    for _ in 0..steps {
        let to = ledger.position + distance;
        let step = Advance { to, exported: 30, sampled_out: 2, dropped: dropped.clone() };
        ledger.advance(&step, to).unwrap();
    }
    ledger
}

fn read(path: &Path, durable: bool) -> (PositionFile, DestinationLedger, bool) {
    match PositionFile::open(&OsDisk, path, durable).unwrap() {
        Found::Read { file, ledger, fell_back } => (file, ledger, fell_back),
        other => panic!("{other:?}"),
    }
}

/// The bytes of a file that was created at step 0 and written for the steps 1 to `steps`.
fn written(steps: u64) -> Vec<u8> {
    let folder = Folder::new("written");
    let path = folder.join("a.position");
    let mut file = PositionFile::create(&OsDisk, &path, &ledger(0), false).unwrap();
    for step in 1..=steps {
        assert_eq!(file.write(&ledger(step)).unwrap(), 512);
    }
    std::fs::read(path).unwrap()
}

/// Frames the slots of a file anew, as if their fields had been written so.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    for slot in bytes.chunks_mut(SLOT) {
        let sum = crc32fast::hash(&slot[..SLOT - 4]).to_le_bytes();
        slot[SLOT - 4..].copy_from_slice(&sum);
    }
    bytes
}

#[test]
fn a_position_is_read_back_as_it_was_written_last() {
    let folder = Folder::new("position");
    let path = folder.join("a.position");
    assert!(matches!(PositionFile::open(&OsDisk, &path, true).unwrap(), Found::Absent));
    let mut file = PositionFile::create(&OsDisk, &path, &ledger(0), true).unwrap();
    assert_eq!(folder.mode("a.position"), 0o600);
    for step in 1..8 {
        file.write(&ledger(step)).unwrap();
        if step % 3 == 0 {
            file.sync().unwrap();
        }
        let (again, found, fell_back) = read(&path, step % 2 == 0);
        assert_eq!((found, fell_back), (ledger(step), false), "step {step}");
        file = again;
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1024);
}

#[test]
fn a_flipped_bit_costs_one_step_at_most() {
    let (older, newer) = (ledger(4), ledger(5));
    let bytes = written(5);
    let newest_slot = if bytes[16] > bytes[SLOT + 16] { 0 } else { 1 };
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let decoded = decode(&flipped).unwrap();
        let expected = if bit / 8 / SLOT == newest_slot { &older } else { &newer };
        assert_eq!((&decoded.ledger, decoded.fell_back), (expected, true), "bit {bit}");
    }
}

#[test]
fn a_file_that_was_cut_gives_its_whole_slot_or_is_damaged() {
    for steps in [4, 5] {
        let bytes = written(steps);
        let first_slot = ledger(if steps == 4 { 3 } else { 5 });
        for length in 0..bytes.len() {
            let decoded = decode(&bytes[..length]);
            if length < SLOT {
                assert_eq!(decoded, Err(Unreadable::Damaged), "{length} bytes");
            } else {
                assert_eq!(decoded.unwrap().ledger, first_slot, "{length} bytes");
            }
        }
    }
}

#[test]
fn two_damaged_slots_are_handed_over_as_they_are() {
    let folder = Folder::new("position-damaged");
    let path = folder.join("a.position");
    for bytes in [vec![], vec![0; 1024], vec![0xff; 1024], b"nyx-pos\0".to_vec()] {
        std::fs::write(&path, &bytes).unwrap();
        let found = PositionFile::open(&OsDisk, &path, false).unwrap();
        assert!(matches!(&found, Found::Damaged(all) if *all == bytes), "{found:?}");
    }
}

#[test]
fn another_version_is_told_from_damage() {
    let mut bytes = written(5);
    bytes[SLOT + 8] = 7;
    assert_eq!(decode(&bytes).unwrap().sequence % 2, 0, "it does not check");
    let folder = Folder::new("position-version");
    let path = folder.join("a.position");
    std::fs::write(&path, resealed(bytes)).unwrap();
    let found = PositionFile::open(&OsDisk, &path, false).unwrap();
    assert!(matches!(found, Found::OtherVersion(7)), "{found:?}");
}

#[test]
fn a_slot_that_says_what_cannot_be_is_damaged() {
    let spoilt = |offset: usize, value: u64| {
        let mut bytes = written(5);
        for slot in bytes.chunks_mut(SLOT) {
            slot[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        decode(&resealed(bytes))
    };
    let damaged = Err(Unreadable::Damaged);
    assert_eq!(spoilt(40, 1), damaged, "the counts do not balance");
    assert_eq!(spoilt(40, u64::MAX), damaged, "the counts overflow");
    assert_eq!(spoilt(32, ORDINAL_MAX), damaged, "no position is that large");
    assert_eq!(spoilt(24, 1 << 40), damaged, "it starts behind its position");
    assert_eq!(spoilt(16, u64::MAX), damaged, "no sequence is that large");
    assert_eq!(spoilt(56, 1), damaged, "no reason has this code");
    assert_eq!(spoilt(56 + 8 * 55, 1), damaged, "no reason has this code");
    let mut swapped = written(5);
    swapped.rotate_left(SLOT);
    assert_eq!(decode(&swapped), damaged, "each slot is in the other's place");
}

#[test]
fn the_slot_that_may_not_be_synced_is_the_one_that_is_written_over() {
    let folder = Folder::new("position-synced");
    let path = folder.join("a.position");
    let mut file = PositionFile::create(&OsDisk, &path, &ledger(0), true).unwrap();
    file.write(&ledger(1)).unwrap();
    file.sync().unwrap();
    let synced = std::fs::read(&path).unwrap();
    for step in 2..5 {
        file.write(&ledger(step)).unwrap();
    }
    // No sync since: the device may have anything in the place of what was written.
    let (mut file, _, _) = read(&path, true);
    file.write(&ledger(5)).unwrap();
    let now = std::fs::read(&path).unwrap();
    let changed: Vec<_> = (0..2).filter(|n| now[n * SLOT..][..SLOT] != synced[n * SLOT..][..SLOT]).collect();
    assert_eq!(changed, [file.sequence as usize % 2]);
    let mut torn = now;
    torn[changed[0] * SLOT..][..SLOT].fill(0xa5);
    assert_eq!(decode(&torn).unwrap().ledger, ledger(1));
}

#[test]
fn the_only_slot_that_checks_is_not_written_over() {
    let folder = Folder::new("position-only");
    let path = folder.join("a.position");
    for durable in [false, true] {
        let mut bytes = written(5);
        let damaged = if bytes[16] > bytes[SLOT + 16] { 0 } else { SLOT };
        bytes[damaged + 40] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (mut file, found, fell_back) = read(&path, durable);
        assert_eq!((found, fell_back), (ledger(4), true));
        file.write(&ledger(6)).unwrap();
        let (_, found, fell_back) = read(&path, durable);
        assert_eq!((found, fell_back), (ledger(6), false));
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1_100),
        at in 0usize..1024,
        reseal: bool,
    ) {
        let _any = decode(&bytes);
        let mut real = written(2);
        let length = bytes.len().min(16).min(real.len() - at);
        real[at..at + length].copy_from_slice(&bytes[..length]);
        if let Ok(decoded) = decode(&if reseal { resealed(real) } else { real }) {
            proptest::prop_assert!(decoded.ledger.balances());
        }
    }
}
