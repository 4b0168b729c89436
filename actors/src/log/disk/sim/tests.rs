use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
};

use rand::Rng as _;

use super::*;
use crate::log::disk::{OsDisk, read_full, write_full};

fn path(name: &str) -> PathBuf {
    Path::new("/log").join(name)
}

fn disk() -> SimDisk {
    SimDisk::with_dir("/log")
}

/// A file with these contents, durable like its name.
fn settled(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    disk.put(path(name), bytes);
    disk.open(&path(name)).unwrap()
}

fn read(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    let length = read_full(file, &mut bytes, 0).unwrap();
    assert_eq!(length, bytes.len());
    bytes
}

fn write(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.write_at(&[IoSlice::new(bytes)], offset)
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn is_dead<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| Dead::caused(&error))
}

/// Names and contents.
fn found(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    disk.paths().iter().map(|path| (name(path), disk.bytes(path))).collect()
}

// As the real one.

/// One random operation, and what the caller sees of it.
fn step(disk: &dyn Disk, dir: &Path, open: &mut Vec<Arc<dyn DiskFile>>, rng: &mut SmallRng) -> String {
    let mut name = || dir.join(["a", "b", "c", "deep/a", "deep/b", "none/a"][rng.random_range(0..6)]);
    let (one, other) = (name(), name());
    let (offset, length) = (rng.random_range(0..3_000), rng.random_range(0..2_000));
    let fill = rng.random::<u8>();
    let (first, second) = (vec![fill; length], vec![!fill; length / 3]);
    let chosen = rng.random_range(0..open.len().max(1));
    let kind = rng.random_range(0..12);
    let file = open.get(chosen).cloned();
    let told = |result: io::Result<String>| match result {
        Ok(text) => text,
        Err(error) => format!("{:?}", error.kind()),
    };
    let done = |result: io::Result<()>| told(result.map(|()| "done".to_owned()));
    match (kind, file) {
        (0, _) => done(disk.create_dir(&dir.join("deep"))),
        (1 | 2, _) => done(disk.create(&one).map(|file| open.push(file))),
        (3, _) => done(disk.open(&one).map(|file| open.push(file))),
        (4, _) => done(disk.rename(&one, &other)),
        (5, _) => done(disk.remove(&one)),
        (6, _) => done(disk.sync_dir(&dir.join(["", "deep", "none"][rng.random_range(0..3)]))),
        (7, _) => told(disk.list(one.parent().unwrap()).map(|mut names| {
            names.sort();
            format!("{names:?}")
        })),
        (8, Some(file)) => done(file.truncate(offset)),
        (9, Some(file)) => done(file.sync()),
        (10, Some(file)) => told(Ok(format!("{} {:?}", file.len().unwrap(), read(&*file)))),
        (_, Some(file)) => {
            let written = file.write_at(&[IoSlice::new(&first), IoSlice::new(&second)], offset);
            told(written.map(|written| written.to_string()))
        }
        (_, None) => "nothing is open".to_owned(),
    }
}

#[test]
fn without_faults_it_does_what_the_systems_disk_does() {
    for seed in 0..20 {
        let real = std::env::temp_dir().join(format!("nyx-sim-{}-{seed}", std::process::id()));
        OsDisk.create_dir(&real).unwrap();
        let sim = disk();
        let (mut sim_open, mut real_open) = (Vec::new(), Vec::new());
        let mut rng = SmallRng::seed_from_u64(seed);
        for number in 0..150 {
            let mut same = rng.clone();
            let expected = step(&OsDisk, &real, &mut real_open, &mut rng);
            let told = step(&sim, Path::new("/log"), &mut sim_open, &mut same);
            assert_eq!(told, expected, "seed {seed}, step {number}");
        }
        std::fs::remove_dir_all(&real).unwrap();
    }
}

// Crashes.

#[test]
fn a_new_process_finds_all_that_was_written() {
    let disk = disk();
    let file = disk.create(&path("a")).unwrap();
    write_full(&*file, b"not synced", 0).unwrap();
    disk.rename(&path("a"), &path("b")).unwrap();
    let next = disk.crash_process();
    assert_eq!(next.paths(), [path("b")]);
    assert_eq!(next.bytes(path("b")), b"not synced");
    assert!(next.operations().is_empty());
    write_full(&*file, b"NOT", 0).unwrap();
    assert_eq!(next.bytes(path("b")), b"not synced", "it is a disk of its own");
    assert!(next.crash_power_losing_all().paths().is_empty(), "what was not synced still is not");
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = disk();
        // What is durable and was not touched since, told apart from what may be anything.
        let mut durable: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut open: BTreeMap<String, Arc<dyn DiskFile>> = BTreeMap::new();
        for _ in 0..40 {
            let name = ["a", "b", "c", "d"][rng.random_range(0..4)].to_owned();
            match (rng.random_range(0..6), open.get(&name).cloned()) {
                (0, None) => {
                    open.insert(name.clone(), disk.create(&path(&name)).unwrap());
                }
                (1, Some(_)) => {
                    disk.remove(&path(&name)).unwrap();
                    open.remove(&name);
                    durable.remove(&name);
                }
                (2, Some(file)) => {
                    file.sync().unwrap();
                    disk.sync_dir(Path::new("/log")).unwrap();
                    durable.insert(name, read(&*file));
                }
                (3, Some(file)) => {
                    file.truncate(rng.random_range(0..2_000)).unwrap();
                    durable.remove(&name);
                }
                (_, Some(file)) => {
                    let bytes = vec![rng.random(); rng.random_range(0..1_500)];
                    write_full(&*file, &bytes, rng.random_range(0..2_000)).unwrap();
                    if !bytes.is_empty() {
                        durable.remove(&name);
                    }
                }
                (_, None) => {}
            }
            for cut in 0..4 {
                let left = found(&disk.crash_power(cut));
                for (name, bytes) in &durable {
                    assert_eq!(left.get(name), Some(bytes), "seed {seed}, cut {cut}");
                }
                assert_eq!(found(&disk.crash_power(cut)), left, "the same seed is the same cut");
            }
            let kept = found(&disk.crash_power_losing_all());
            assert!(durable.iter().all(|(name, bytes)| kept.get(name) == Some(bytes)), "seed {seed}");
        }
    }
}

#[test]
fn what_was_not_synced_is_there_or_not_or_torn_in_any_order() {
    let disk = disk();
    let file = settled(&disk, "a", &[1; 4 * 512]);
    write_full(&*file, &[2; 3 * 512], 512).unwrap();
    write_full(&*file, &[3; 2 * 512], 4 * 512).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let bytes = disk.crash_power(seed).bytes(path("a"));
        assert_eq!(bytes[..512], [1; 512], "nothing was written there");
        assert!((4 * 512..=6 * 512).contains(&bytes.len()));
        let all = |sector: usize, byte: u8| bytes[sector * 512..][..512].iter().all(|b| *b == byte);
        let torn = |sector: usize| {
            let sector = &bytes[sector * 512..][..512];
            sector.is_sorted() && sector.first() == Some(&1) && sector.last() == Some(&2)
        };
        let new: Vec<_> = (1..4).map(|sector| all(sector, 2)).collect();
        seen.extend((new == [true; 3]).then_some("all new"));
        seen.extend((1..4).all(|sector| all(sector, 1)).then_some("all old"));
        seen.extend((new == [true, false, false]).then_some("in order"));
        seen.extend((new == [false, false, true]).then_some("out of order"));
        seen.extend(torn(2).then_some("torn"));
        seen.extend(all(2, 0).then_some("zeroed"));
        let garbled = (1..4).any(|s| bytes[s * 512..][..512].iter().any(|byte| *byte > 3));
        seen.extend(garbled.then_some("garbled"));
        seen.insert(match bytes.len() {
            2048 => "short",
            3072 => "long",
            2560 => "a sector more",
            _ => "odd",
        });
        if bytes.len() == 3072 && all(4, 0) {
            seen.insert("the length before the bytes");
        }
    }
    let expected = [
        "all new",
        "all old",
        "in order",
        "out of order",
        "torn",
        "zeroed",
        "garbled",
        "short",
        "long",
        "a sector more",
        "odd",
        "the length before the bytes",
    ];
    assert_eq!(seen, BTreeSet::from(expected));
    assert_eq!(disk.crash_power_losing_all().bytes(path("a")), [1; 4 * 512]);
    assert_eq!(disk.unsynced(), [path("a")]);
    file.sync().unwrap();
    assert!(disk.unsynced().is_empty());
}

#[test]
fn synced_bytes_stay_though_their_sector_is_written_to_again() {
    let disk = disk();
    let file = settled(&disk, "a", &[1; 700]);
    write_full(&*file, &[2; 700], 700).unwrap();
    for seed in 0..200 {
        assert_eq!(disk.crash_power(seed).bytes(path("a"))[..700], [1; 700]);
    }
}

#[test]
fn a_cut_that_was_not_synced_may_not_have_been() {
    let disk = disk();
    let file = settled(&disk, "a", &[1; 2_000]);
    file.truncate(100).unwrap();
    let lengths: BTreeSet<_> = (0..200).map(|seed| disk.crash_power(seed).bytes(path("a")).len()).collect();
    assert!(lengths.contains(&100) && lengths.contains(&2_000) && lengths.len() > 4, "{lengths:?}");
    file.truncate(100).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.crash_power(1).bytes(path("a")), [1; 100]);
    file.truncate(50).unwrap();
    file.truncate(100).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.crash_power(1).bytes(path("a")), [[1; 50], [0; 50]].concat(), "what was cut is zeros");
}

#[test]
fn a_name_is_durable_when_its_folder_was_synced() {
    let disk = disk();
    settled(&disk, "removed", b"r");
    settled(&disk, "old", b"o");
    settled(&disk, "kept", b"k");
    disk.remove(&path("removed")).unwrap();
    disk.rename(&path("old"), &path("new")).unwrap();
    for name in ["first", "second"] {
        disk.create(&path(name)).unwrap().sync().unwrap();
    }
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let left = found(&disk.crash_power(seed));
        assert_eq!(left["kept"], b"k");
        assert!(left.get("old").or(left.get("new")).is_some_and(|bytes| bytes == b"o"), "never none");
        seen.insert(left.into_keys().filter(|name| name != "kept").collect::<Vec<_>>().join(" "));
    }
    for state in ["old removed", "new old", "first new second", "new second", "first new removed second"] {
        assert!(seen.contains(state), "{state} is not in {seen:?}");
    }
    let all_lost: Vec<_> = found(&disk.crash_power_losing_all()).into_keys().collect();
    assert_eq!(all_lost, ["kept", "old", "removed"]);
    disk.sync_dir(Path::new("/log")).unwrap();
    for seed in 0..50 {
        let names: Vec<_> = found(&disk.crash_power(seed)).into_keys().collect();
        assert_eq!(names, ["first", "kept", "new", "second"]);
    }
}

#[test]
fn a_replaced_name_stands_for_the_old_file_or_the_new() {
    let disk = disk();
    settled(&disk, "position", b"old");
    let new = disk.create(&path("temp")).unwrap();
    write_full(&*new, b"new", 0).unwrap();
    new.sync().unwrap();
    disk.rename(&path("temp"), &path("position")).unwrap();
    let seen: BTreeSet<_> = (0..100).map(|seed| disk.crash_power(seed).bytes(path("position"))).collect();
    assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
    disk.sync_dir(Path::new("/log")).unwrap();
    assert_eq!(found(&disk.crash_power_losing_all()), BTreeMap::from([("position".into(), b"new".into())]));
    write_full(&*new, b"N", 0).unwrap();
    let last = disk.operations().pop().unwrap();
    assert_eq!(last.path, path("position"), "an open file is logged by its present name");
}

#[test]
fn a_move_between_folders_leaves_one_name_or_both() {
    let disk = disk();
    settled(&disk, "segments/1", b"bad");
    disk.create_dir(&path("quarantine")).unwrap();
    disk.sync_dir(Path::new("/log")).unwrap();
    disk.rename(&path("segments/1"), &path("quarantine/1")).unwrap();
    for seed in 0..100 {
        let left = disk.crash_power(seed).paths();
        assert!(!left.is_empty());
    }
    disk.sync_dir(&path("segments")).unwrap();
    assert_eq!(disk.crash_power_losing_all().paths(), [path("quarantine/1")]);
}

#[test]
fn a_folder_that_was_not_synced_into_the_one_above_takes_its_files_with_it() {
    let disk = disk();
    disk.create_dir(&path("segments")).unwrap();
    disk.create(&path("segments/1")).unwrap().sync().unwrap();
    disk.sync_dir(&path("segments")).unwrap();
    assert!(disk.crash_power_losing_all().paths().is_empty());
    assert_eq!(disk.unsynced(), [path("segments")]);
    disk.sync_dir(Path::new("/log")).unwrap();
    assert_eq!(disk.crash_power_losing_all().paths(), [path("segments/1")]);
}

#[test]
fn a_sync_after_one_that_failed_saves_nothing_of_it() {
    let disk = disk();
    let file = settled(&disk, "a", &[1; 1_024]);
    write_full(&*file, &[2; 512], 512).unwrap();
    disk.plan(Ops::of([Kind::Sync]).nth(0), Effect::Fail(Errno::Io));
    assert_eq!(errno(file.sync()), Some(5));
    write_full(&*file, &[3; 512], 1_024).unwrap();
    file.sync().unwrap();
    assert_eq!(read(&*file)[512..1_024], [2; 512], "the page cache has it");
    assert_eq!(disk.unsynced(), [path("a")]);
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let bytes = disk.crash_power(seed).bytes(path("a"));
        assert_eq!((&bytes[..512], &bytes[1_024..]), (&[1; 512][..], &[3; 512][..]));
        seen.insert(bytes[512]);
    }
    assert!(seen.contains(&1) && seen.contains(&2), "{seen:?}");
    let evicted = disk.crash_process();
    evicted.evict();
    assert_eq!(evicted.bytes(path("a"))[512..1_024], [1; 512], "a reader may find what the device has");
    write_full(&*file, &[2; 512], 512).unwrap();
    file.sync().unwrap();
    for seed in 0..50 {
        let bytes = disk.crash_power(seed).bytes(path("a"));
        assert_eq!(bytes[512..1_024], [2; 512], "written again, it is durable");
    }
    assert!(disk.unsynced().is_empty());
}

#[test]
fn a_name_whose_folder_failed_to_sync_is_not_saved_by_a_later_sync() {
    let disk = disk();
    let dir = Path::new("/log");
    disk.create(&path("lost")).unwrap();
    disk.plan(Ops::of([Kind::SyncDir]).nth(0), Effect::Fail(Errno::Io));
    assert_eq!(errno(disk.sync_dir(dir)), Some(5));
    disk.create(&path("saved")).unwrap();
    disk.sync_dir(dir).unwrap();
    assert_eq!(disk.crash_power_losing_all().paths(), [path("saved")]);
    disk.remove(&path("lost")).unwrap();
    disk.sync_dir(dir).unwrap();
    for seed in 0..50 {
        assert_eq!(disk.crash_power(seed).paths(), [path("saved")], "what came after it counts");
    }
}

// Faults.

#[test]
fn a_fault_meets_the_operation_with_its_number() {
    let disk = disk();
    let (a, b) = (settled(&disk, "a", b""), settled(&disk, "b", b""));
    let fault = disk.plan(Ops::of([Kind::Write]).ending("/b").numbers(1..3), Effect::Fail(Errno::NoSpace));
    let results: Vec<_> =
        (0..4).flat_map(|_| [&a, &b]).map(|file| errno(write(&**file, b"x", file.len().unwrap()))).collect();
    assert_eq!(results, [None, None, None, Some(28), None, Some(28), None, None]);
    assert_eq!((disk.bytes(path("a")).len(), disk.bytes(path("b")).len()), (4, 2));
    assert_eq!(disk.met(fault), 2);
    disk.plan(Ops::any().containing("log/a").always(), Effect::Fail(Errno::ReadOnly));
    assert_eq!(errno(disk.rename(&path("a"), &path("c"))), Some(30));
    assert_eq!(errno(disk.rename(&path("b"), &path("a"))), Some(30), "either name counts");
    assert_eq!(errno(disk.open(&path("a"))), Some(30));
    assert_eq!(errno(a.truncate(0)), Some(30));
    assert_eq!(errno(disk.list(Path::new("/log"))), None);
    disk.heal();
    assert_eq!(errno(disk.remove(&path("a"))), None);
}

#[test]
fn every_kind_of_operation_fails_as_planned_and_changes_nothing() {
    for number in 0..12 {
        let disk = disk();
        let file = settled(&disk, "a", b"abc");
        let before = found(&disk);
        disk.plan(Ops::any().always(), Effect::Fail(Errno::Io));
        let result = match number {
            0 => disk.create_dir(&path("segments")),
            1 => disk.create(&path("b")).map(drop),
            2 => write(&*file, b"x", 0).map(drop),
            3 => file.sync(),
            4 => disk.sync_dir(Path::new("/log")),
            5 => disk.rename(&path("a"), &path("b")),
            6 => disk.remove(&path("a")),
            7 => file.truncate(0),
            8 => disk.open(&path("a")).map(drop),
            9 => file.read_at(&mut [0; 3], 0).map(drop),
            10 => disk.list(Path::new("/log")).map(drop),
            _ => disk.free_bytes(Path::new("/log")).map(drop),
        };
        assert_eq!(errno(result), Some(5), "{number}");
        assert_eq!(found(&disk), before, "{number}");
        let kinds: Vec<_> =
            disk.operations().iter().map(|operation| (operation.kind, operation.ok)).collect();
        let expected = Kind::CHANGES.into_iter().chain(Kind::LOOKS).nth(number).unwrap();
        assert_eq!(kinds[kinds.len() - 1], (expected, false));
        assert_eq!(file.len().unwrap(), 3, "a length is no operation");
        disk.create_dir(Path::new("/log")).unwrap();
    }
}

#[test]
fn chance_follows_its_seed() {
    let run = |seed| {
        let disk = disk();
        let file = settled(&disk, "a", b"");
        disk.plan(Ops::of([Kind::Write]).chance(0.3, seed), Effect::Fail(Errno::Io));
        (0..100).map(|_| write(&*file, b"x", 0).is_err()).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert!((15..45).contains(&run(1).iter().filter(|failed| **failed).count()));
}

#[test]
fn a_write_may_be_short_or_fail_half_way() {
    let disk = disk();
    let file = settled(&disk, "a", b"");
    let writes = || Ops::of([Kind::Write]);
    disk.plan(writes().nth(0), Effect::Short(2));
    disk.plan(writes().nth(1), Effect::FailAfter(Done::Bytes(3), Errno::NoSpace));
    disk.plan(writes().nth(2), Effect::FailAfter(Done::Whole, Errno::Io));
    disk.plan(Ops::of([Kind::Read]).nth(0), Effect::Short(4));
    let buffers = [IoSlice::new(b"a"), IoSlice::new(b"bcde")];
    assert_eq!(file.write_at(&buffers, 0).unwrap(), 2);
    assert_eq!(errno(file.write_at(&buffers, 2)), Some(28));
    assert_eq!(disk.bytes(path("a")), b"ababc");
    assert_eq!(errno(file.write_at(&buffers, 5)), Some(5));
    assert_eq!(disk.bytes(path("a")), b"ababcabcde");
    assert_eq!(file.read_at(&mut [0; 9], 0).unwrap(), 4);
    assert_eq!(file.read_at(&mut [0; 9], 0).unwrap(), 9);
}

#[test]
fn reads_stop_before_a_bad_place_and_fail_in_it() {
    let disk = disk();
    let file = settled(&disk, "a", &[7; 4_096]);
    let bad = Ops::of([Kind::Read, Kind::Write]).ending("/a").touching(1_024..1_536);
    disk.plan(bad.always(), Effect::Fail(Errno::Io));
    assert_eq!(write(&*file, &[8; 1_024], 0).unwrap(), 1_024);
    assert_eq!(errno(write(&*file, &[8; 1_025], 0)), Some(5), "a write that touches it fails as a whole");
    let mut buffer = [0; 4_096];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 1_024);
    assert_eq!(errno(file.read_at(&mut buffer, 1_024)), Some(5));
    assert_eq!(errno(file.read_at(&mut buffer, 1_535)), Some(5));
    assert_eq!(file.read_at(&mut buffer, 1_536).unwrap(), 2_560);
    assert_eq!(file.read_at(&mut buffer[..1_024], 0).unwrap(), 1_024);
}

#[test]
fn a_dead_process_changes_nothing_any_more() {
    for (done, expected) in [(Done::Nothing, "ab"), (Done::Half, "abcd"), (Done::Whole, "abcdef")] {
        let disk = disk();
        let file = settled(&disk, "a", b"");
        disk.plan(Ops::changes().nth(1), Effect::Die(done));
        write_full(&*file, b"ab", 0).unwrap();
        assert!(is_dead(write(&*file, b"cdef", 2)));
        assert!(disk.is_dead());
        disk.heal();
        assert!(is_dead(write(&*file, b"gh", 6)) && is_dead(file.len()) && is_dead(file.sync()));
        assert!(is_dead(disk.remove(&path("a"))) && is_dead(disk.list(Path::new("/log"))));
        assert!(is_dead(disk.create_dir(&path("b"))) && is_dead(disk.open(&path("a"))));
        assert_eq!(disk.operations().len(), 3, "the open of the test and two writes");
        let next = disk.crash_process();
        assert_eq!(next.bytes(path("a")), expected.as_bytes());
        assert!(!next.is_dead() && next.remove(&path("a")).is_ok());
        assert_eq!(disk.crash_power_losing_all().bytes(path("a")), b"");
    }
}

#[test]
fn a_process_may_die_before_or_behind_what_is_no_write() {
    for (done, expected) in [(Done::Nothing, "a"), (Done::Half, "a"), (Done::Whole, "b")] {
        let disk = disk();
        settled(&disk, "a", b"");
        disk.plan(Ops::of([Kind::Rename]).nth(0), Effect::Die(done));
        assert!(is_dead(disk.rename(&path("a"), &path("b"))));
        assert_eq!(disk.crash_process().paths(), [path(expected)]);
    }
    let disk = disk();
    let file = settled(&disk, "a", b"");
    write_full(&*file, b"x", 0).unwrap();
    disk.plan(Ops::of([Kind::Sync]).nth(0), Effect::Die(Done::Whole));
    assert!(is_dead(file.sync()));
    assert_eq!(disk.crash_power(0).bytes(path("a")), b"x");
}

#[test]
fn a_full_disk_takes_what_fits_until_room_returns() {
    let disk = disk();
    let (file, other) = (settled(&disk, "a", &[1; 60]), settled(&disk, "b", &[2; 20]));
    disk.set_capacity(100);
    assert_eq!(disk.free_bytes(Path::new("/log")).unwrap(), 20);
    assert_eq!(write(&*file, &[3; 50], 50).unwrap(), 30);
    assert_eq!(errno(write(&*file, &[3; 50], 80)), Some(28));
    assert!(!disk.operations().pop().unwrap().ok);
    assert_eq!(errno(file.truncate(81)), Some(28));
    assert_eq!(write(&*file, &[4; 80], 0).unwrap(), 80, "what is there may be written over");
    disk.remove(&path("b")).unwrap();
    assert_eq!(disk.used_bytes(), 100, "a removed file that is open has its bytes");
    drop(other);
    assert_eq!(write(&*file, &[5; 50], 80).unwrap(), 20);
    disk.set_capacity(110);
    assert_eq!(write(&*file, &[5; 50], 100).unwrap(), 10);
    assert_eq!(errno(write(&*file, &[5; 50], 110)), Some(28));
    assert_eq!(disk.crash_process().free_bytes(Path::new("/log")).unwrap(), 0);
    disk.set_capacity(None);
    assert_eq!(write(&*file, &[5; 50], 110).unwrap(), 50);
}

#[test]
fn the_log_of_operations_has_them_in_order() {
    let disk = disk();
    let file = disk.create(&path("a")).unwrap();
    write_full(&*file, b"abc", 5).unwrap();
    assert!(disk.create(&path("a")).is_err());
    disk.rename(&path("a"), &path("b")).unwrap();
    file.sync().unwrap();
    let told: Vec<_> =
        disk.operations().into_iter().map(|o| (o.number, o.kind, o.path, o.offset, o.length, o.ok)).collect();
    let expected = [
        (0, Kind::Create, path("a"), 0, 0, true),
        (1, Kind::Write, path("a"), 5, 3, true),
        (2, Kind::Create, path("a"), 0, 0, false),
        (3, Kind::Rename, path("a"), 0, 0, true),
        (4, Kind::Sync, path("b"), 0, 0, true),
    ];
    assert_eq!(told, expected);
    assert_eq!(disk.count(&Ops::changes().ending("/b")), 2);
    assert_eq!(disk.operations_of(&Ops::of([Kind::Rename]))[0].to, Some(path("b")));
}

#[test]
fn a_held_operation_waits_until_the_fault_is_taken_back() {
    let disk = disk();
    let file = settled(&disk, "a", b"");
    let fault = disk.plan(Ops::of([Kind::Write]).nth(0), Effect::Hold);
    let writer = thread::spawn({
        let file = Arc::clone(&file);
        move || write(&*file, b"held", 0)
    });
    disk.wait_until_held();
    assert_eq!(file.len().unwrap(), 0);
    write_full(&*file, b"x", 9).unwrap();
    disk.take_back(fault);
    assert_eq!(writer.join().unwrap().unwrap(), 4);
    assert_eq!(disk.bytes(path("a")), b"held\0\0\0\0\0x");
}

#[test]
fn a_test_may_look_and_damage_without_being_counted() {
    let disk = SimDisk::new();
    disk.put("/log/segments/1", b"abc");
    let whole = disk.crash_process();
    disk.overwrite("/log/segments/1", 1, b"X");
    disk.flip_bit("/log/segments/1", 16);
    disk.copy("/log/segments/1", "/log/segments/2");
    disk.edit("/log/segments/1", |bytes| bytes.truncate(1));
    assert_eq!(found(&disk), BTreeMap::from([("1".into(), b"a".into()), ("2".into(), b"aXb".into())]));
    disk.delete("/log/segments/1");
    assert!(!disk.exists("/log/segments/1"));
    assert_eq!(found(&disk.crash_power_losing_all()), found(&disk), "what it did is durable");
    assert_eq!(found(&whole), BTreeMap::from([("1".into(), b"abc".into())]), "the copy was taken before");
    assert!(disk.operations().is_empty());
}
