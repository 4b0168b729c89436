use bytes::Bytes;

use super::{
    super::super::{
        DropReason,
        disk::OsDisk,
        letters::{DEAD_LETTER_BYTES_MAX, DEAD_LETTERS_MAX},
        testing::Folder,
    },
    encoding::LETTER_HEADER,
    *,
};

mod failing;

fn letter(ordinal: Ordinal) -> DeadLetter {
    let bytes = Bytes::from(format!("span {ordinal}"));
    DeadLetter { ordinal, reason: DropReason::TooLarge, message: "zu groß".into(), bytes }
}

fn letters(ordinals: impl IntoIterator<Item = Ordinal>) -> Vec<DeadLetter> {
    ordinals.into_iter().map(letter).collect()
}

fn listed(kept: &KeptLetters) -> Vec<DeadLetter> {
    kept.iter().cloned().collect()
}

fn ordinals(kept: &KeptLetters) -> Vec<Ordinal> {
    kept.iter().map(|letter| letter.ordinal).collect()
}

fn read(path: &Path) -> (LetterFile, Vec<DeadLetter>, Vec<u8>) {
    match LetterFile::open(&OsDisk, path).unwrap() {
        Found::Read { file, letters, bad } => (file, listed(&letters), bad),
        other => panic!("{other:?}"),
    }
}

/// The bytes of a file with these letters, and where each of them ends.
fn written(ordinals: impl IntoIterator<Item = Ordinal>) -> (Vec<u8>, Vec<usize>) {
    let folder = Folder::new("letters-written");
    let path = folder.join("a.letters");
    let (mut file, size) = LetterFile::create(&OsDisk, &path, &[], false).unwrap();
    let mut ends = vec![usize::try_from(size).unwrap()];
    for letter in letters(ordinals) {
        let size = file.append(&[letter]).unwrap();
        ends.push(ends.last().unwrap() + usize::try_from(size).unwrap());
    }
    (std::fs::read(path).unwrap(), ends)
}

#[test]
fn letters_are_read_back_as_they_were_appended() {
    let folder = Folder::new("letters");
    let path = folder.join("a.letters");
    assert!(matches!(LetterFile::open(&OsDisk, &path).unwrap(), Found::Absent));
    let (mut file, _) = LetterFile::create(&OsDisk, &path, &letters([3]), true).unwrap();
    let mut expected = letters([3]);
    for (ordinal, &reason) in (10..).zip(DropReason::ALL) {
        expected.push(DeadLetter { reason, ..letter(ordinal) });
    }
    expected.push(DeadLetter { message: String::new(), bytes: Bytes::new(), ..letter(9) });
    let written = file.append(&expected[1..]).unwrap();
    file.sync().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 64 + LETTER_HEADER as u64 + 14 + written);
    let (file, found, bad) = read(&path);
    assert_eq!((found, bad.len(), file.needs_rewrite()), (expected, 0, false));
    assert_eq!((folder.names(), folder.mode("a.letters")), (vec!["a.letters".into()], 0o600));
}

#[test]
fn a_span_has_one_letter_across_reopening() {
    let folder = Folder::new("letters-once");
    let path = folder.join("a.letters");
    let (mut file, _) = LetterFile::create(&OsDisk, &path, &letters([1, 1]), false).unwrap();
    file.append(&letters([2, 1, 2])).unwrap();
    let (mut file, _, _) = read(&path);
    assert_eq!(file.append(&letters([1, 2])).unwrap(), 0);
    file.append(&letters([2, 3])).unwrap();
    assert_eq!(read(&path).1, letters([1, 2, 3]));
}

#[test]
fn a_torn_tail_is_cut_and_appending_goes_on() {
    let (bytes, ends) = written([1, 2, 3]);
    let folder = Folder::new("letters-torn");
    let path = folder.join("a.letters");
    for length in 64..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let (mut file, found, bad) = read(&path);
        let whole = ends[1..].iter().filter(|&&end| end <= length).count() as u64;
        assert_eq!(
            (found, bad.len(), file.needs_rewrite()),
            (letters(1..=whole), 0, false),
            "{length} bytes"
        );
        file.append(&letters([9])).unwrap();
        let (_, found, bad) = read(&path);
        assert_eq!((found, bad.len()), (letters((1..=whole).chain([9])), 0), "{length} bytes");
    }
}

#[test]
fn zeros_behind_the_last_letter_are_no_damage() {
    let (bytes, _) = written([1]);
    let folder = Folder::new("letters-zeros");
    let path = folder.join("a.letters");
    std::fs::write(&path, [&bytes[..], &[0; 5_000]].concat()).unwrap();
    let (mut file, found, bad) = read(&path);
    assert_eq!((found, bad.len()), (letters([1]), 0));
    file.append(&letters([2])).unwrap();
    assert_eq!(std::fs::read(&path).unwrap().len(), written([1, 2]).0.len());
}

#[test]
fn a_flipped_bit_costs_the_letter_that_it_is_in() {
    let (bytes, ends) = written([1, 2, 3]);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let found = decode(&flipped).unwrap();
        let hit = ends.iter().filter(|&&end| end <= bit / 8).count();
        let expected = letters((1..=3).filter(|&ordinal| ordinal != hit as u64));
        assert_eq!(listed(&found.letters), expected, "bit {bit}");
        if hit == 0 {
            assert_eq!((found.one_header, found.bad.len()), (true, 0), "bit {bit}");
        } else {
            assert_eq!(found.bad, flipped[ends[hit - 1]..ends[hit]], "bit {bit}");
        }
    }
}

#[test]
fn a_file_without_a_key_is_damaged() {
    let (bytes, _) = written([1, 2, 3]);
    let folder = Folder::new("letters-damaged");
    let path = folder.join("a.letters");
    let mut flipped = bytes.clone();
    flipped[20] ^= 1;
    flipped[52] ^= 1;
    for damaged in [vec![], bytes[..HEADER - 1].to_vec(), flipped, vec![0; 100]] {
        std::fs::write(&path, &damaged).unwrap();
        let found = LetterFile::open(&OsDisk, &path).unwrap();
        assert!(matches!(&found, Found::Damaged(all) if *all == damaged), "{found:?}");
    }
    std::fs::write(&path, &bytes[..HEADER]).unwrap();
    let (file, found, _) = read(&path);
    assert_eq!((found, file.needs_rewrite()), (vec![], true), "one header gives the key");
}

#[test]
fn damage_is_handed_over_once_and_healed_by_rewriting() {
    let (mut bytes, ends) = written([1, 2, 3]);
    bytes[ends[1] + LETTER_HEADER] ^= 1;
    let folder = Folder::new("letters-healed");
    let path = folder.join("a.letters");
    std::fs::write(&path, &bytes).unwrap();
    let (mut file, found, bad) = read(&path);
    assert_eq!((&bad[..], file.needs_rewrite()), (&bytes[ends[1]..ends[2]], true));
    file.rewrite(&OsDisk, &path, &found, false).unwrap();
    let (file, found, bad) = read(&path);
    assert_eq!((found, bad.len(), file.needs_rewrite()), (letters([1, 3]), 0, false));
}

#[test]
fn another_version_is_told_from_damage() {
    let mut header = [0; HEADER];
    seal(&mut header, &MAGIC, 4, |_| {});
    let folder = Folder::new("letters-version");
    let path = folder.join("a.letters");
    for bytes in [[header, header].concat(), [[0; HEADER], header].concat(), [header, [0; HEADER]].concat()] {
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(LetterFile::open(&OsDisk, &path).unwrap(), Found::OtherVersion(4)));
    }
}

#[test]
fn a_letter_in_a_span_is_not_a_letter() {
    let (bytes, ends) = written([1, 2]);
    let folder = Folder::new("letters-forged");
    let path = folder.join("a.letters");
    std::fs::write(&path, &bytes).unwrap();
    let (mut file, _, _) = read(&path);
    // A copy of a letter of this very file, in the span of one that is damaged later.
    let forged = Bytes::copy_from_slice(&bytes[ends[1]..ends[2]]);
    file.append(&[DeadLetter { bytes: forged, ..letter(3) }]).unwrap();
    file.append(&letters([4])).unwrap();
    let mut all = std::fs::read(&path).unwrap();
    all[ends[2] + LETTER_HEADER] ^= 1;
    assert_eq!(ordinals(&decode(&all).unwrap().letters), [1, 2, 4]);
}

#[test]
fn a_letter_that_says_what_cannot_be_is_damaged() {
    let (bytes, ends) = written([1]);
    let key: Key = bytes[12..28].try_into().unwrap();
    let mut sealed = Vec::new();
    encode(&key, DATA_START, &letter(1), &mut sealed);
    assert_eq!(sealed, bytes[ends[0]..]);
    for (at, value) in [(4, 0), (4, 99), (7, 2), (15, 0x40), (19, 1)] {
        let mut spoilt = bytes.clone();
        spoilt[ends[0] + at] = value;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&key);
        hasher.update(&DATA_START.to_le_bytes());
        hasher.update(&spoilt[ends[0]..ends[0] + 24]);
        spoilt[ends[0] + 24..ends[0] + 28].copy_from_slice(&hasher.finalize().to_le_bytes());
        let found = decode(&spoilt).unwrap();
        assert_eq!((found.letters.len(), found.bad.len()), (0, bytes.len() - ends[0]), "{at}: {value}");
    }
}

#[test]
fn the_newest_letters_are_kept_and_rewriting_bounds_the_file() {
    let folder = Folder::new("letters-bound");
    let path = folder.join("a.letters");
    let (mut file, _) = LetterFile::create(&OsDisk, &path, &[], false).unwrap();
    let newest = DEAD_LETTERS_MAX as u64;
    let mut appended = 0;
    while !file.needs_rewrite() {
        file.append(&letters(appended..appended + 500)).unwrap();
        appended += 500;
        assert!(appended <= 10_000, "it would never be rewritten");
    }
    let (mut file, found, _) = read(&path);
    assert_eq!(found, letters(appended - newest..appended));
    file.rewrite(&OsDisk, &path, &found, false).unwrap();
    assert!(!file.needs_rewrite());
    assert_eq!(read(&path).1, letters(appended - newest..appended));
    // Of more letters than are kept, only those that are kept are written.
    let size = file.append(&letters(20_000..25_000)).unwrap();
    assert!(size < 100 * newest, "{size} bytes");
    assert_eq!(read(&path).1, letters(25_000 - newest..25_000));
}

#[test]
fn the_bytes_of_the_spans_are_bounded_too() {
    let folder = Folder::new("letters-bytes");
    let path = folder.join("a.letters");
    let big = |ordinal, bytes| DeadLetter { bytes: Bytes::from(vec![0; bytes]), ..letter(ordinal) };
    let (mut file, _) = LetterFile::create(&OsDisk, &path, &[], false).unwrap();
    let mut ordinal = 0;
    while !file.needs_rewrite() {
        file.append(&[big(ordinal, 1 << 20), big(ordinal + 1, 1 << 20)]).unwrap();
        ordinal += 2;
    }
    let (mut file, found, _) = read(&path);
    assert_eq!(
        found.iter().map(|letter| letter.ordinal).collect::<Vec<_>>(),
        [14, 15, 16, 17].map(|n| n + ordinal - 18)
    );
    file.rewrite(&OsDisk, &path, &found, false).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 5 << 20);
    file.append(&[big(100, DEAD_LETTER_BYTES_MAX + 1)]).unwrap();
    let (_, found, _) = read(&path);
    let last = found.last().unwrap();
    assert_eq!((found.len(), last.ordinal, last.bytes.len()), (5, 100, 0), "it is kept without its span");
}

#[test]
fn a_file_that_cannot_be_rewritten_stays_and_can_be_appended_to() {
    let folder = Folder::new("letters-stay");
    let path = folder.join("a.letters");
    let (mut file, _) = LetterFile::create(&OsDisk, &path, &letters([1, 2]), false).unwrap();
    std::fs::create_dir(folder.join("a.letters.new")).unwrap();
    assert!(file.rewrite(&OsDisk, &path, &letters([2]), false).is_err());
    file.append(&letters([3])).unwrap();
    assert_eq!(read(&path).1, letters([1, 2, 3]));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        at in 0usize..100,
    ) {
        let _any = decode(&bytes);
        let (mut real, _) = written([1, 2]);
        let at = at.min(real.len());
        real.splice(at.., bytes);
        let _any = decode(&real);
    }
}
