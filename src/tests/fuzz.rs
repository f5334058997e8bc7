//! The targets of fuzz/ on any toolchain: each with its corpus, and with random changes of it.
//!
//! `FUZZ_RUNS=<number> cargo test fuzz` makes more changes. What fails is printed as a Rust literal; as a file of
//! fuzz/corpus/<target> it is tried in each test from then on.

use std::fs;
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::Path;

use fastrand::Rng;

use crate::fuzz::TARGETS;

const RUNS: usize = 500;

/// A longer input is cut: slow, and no more likely to fail.
const MAX_BYTES: usize = 4 << 10;

/// What random bytes do not find.
const WORDS: [&[u8]; 31] = [
    b"",
    b"\n",
    b"\r",
    b"\x1b[",
    b"\x1b]8;;",
    b"\x07",
    b"\xc2\x9b",
    b"\xe2\x80\xae",
    b"\xff",
    b"%2e",
    b"%25",
    b"..",
    b"../",
    b"\\",
    b"\"",
    b"'",
    b": ",
    b"- ",
    b"&a ",
    b"*a",
    b"<<: *a",
    b"| \n",
    b"!!int ",
    b"{",
    b"[",
    b"$..*",
    b"[?@.a]",
    b"s3cr3t-Token",
    b"Authorization: Bearer x",
    b"-----BEGIN PRIVATE KEY-----",
    b"99999999999999999999",
];

/// What the other tests have is not there twice.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let corpus = format!("fuzz/corpus/{target}");
    let mut directories = vec![corpus.as_str()];
    match target {
        "config" => directories.extend(["src/tests/configs/valid", "src/tests/configs/invalid"]),
        "event" => directories.extend(["src/tests/events", "test-events"]),
        _ => {}
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = directories
        .iter()
        .flat_map(|directory| fs::read_dir(root.join(directory)).unwrap());
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn changed(seeds: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = seeds[rng.usize(..seeds.len())].clone();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=bytes.len());
        let end = at + rng.usize(..=(bytes.len() - at).min(64));
        match rng.u8(..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].repeat(rng.usize(1..4));
                bytes.splice(at..at, part);
            }
            3 => {
                let other = &seeds[rng.usize(..seeds.len())];
                let from = rng.usize(..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            4 => drop(bytes.splice(at..end, [rng.u8(..)])),
            5 => {
                let word = word_at(&bytes, at);
                drop(bytes.splice(word, WORDS[rng.usize(..WORDS.len())].iter().copied()));
            }
            6 => drop(bytes.drain(within_brackets(&bytes, at))),
            _ => drop(bytes.splice(at..at, WORDS[rng.usize(..WORDS.len())].iter().copied())),
        }
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

/// The letters and digits around a place: what stands for them has a meaning, too.
fn word_at(bytes: &[u8], at: usize) -> Range<usize> {
    let ends = |byte: &u8| !byte.is_ascii_alphanumeric();
    let start = bytes[..at].iter().rposition(ends);
    let end = bytes[at..].iter().position(ends);
    start.map_or(0, |before| before + 1)..end.map_or(bytes.len(), |length| at + length)
}

/// All that is in the next list or map.
fn within_brackets(bytes: &[u8], at: usize) -> Range<usize> {
    let opens = |byte: &u8| b"[{".contains(byte);
    let Some(open) = bytes[at..].iter().position(opens) else {
        return at..at;
    };
    let (start, mut depth) = (at + open + 1, 1);
    let closes = |byte: &u8| {
        depth += i32::from(opens(byte)) - i32::from(b"]}".contains(byte));
        depth == 0
    };
    let length = bytes[start..].iter().position(closes);
    start..length.map_or(start, |length| start + length)
}

fn holds_for_changes_of_its_corpus(target: &str) {
    let runs = std::env::var("FUZZ_RUNS").map_or(RUNS, |text| text.parse().unwrap());
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let (seeds, mut rng) = (seeds(target), Rng::with_seed(1));
    let changed = (0..runs).map(|_| changed(&seeds, &mut rng));
    for input in seeds.iter().cloned().chain(changed) {
        let holds = catch_unwind(|| check(&input)).is_ok();
        assert!(holds, "{target}: b\"{}\"", input.escape_ascii());
    }
}

macro_rules! fuzz_tests {
    ($($target:ident),*) => {
        const TESTED: &[&str] = &[$(stringify!($target)),*];

        $(
            #[test]
            fn $target() {
                holds_for_changes_of_its_corpus(stringify!($target));
            }
        )*
    };
}

fuzz_tests!(config, event, json_path, log, masks, record, resource);

#[test]
fn every_target_is_tested_and_can_be_fuzzed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for ((target, _), tested) in TARGETS.iter().zip(TESTED) {
        assert_eq!(target, tested);
        assert!(
            manifest.contains(&format!("name = \"{target}\"\n")),
            "{target}"
        );
        assert!(
            root.join(format!("fuzz_targets/{target}.rs")).is_file(),
            "{target}"
        );
    }
}
