//! The layout of a recording: blocks of a fixed size that are written one after the other, and over the oldest at the
//! end. Pure: bytes in, bytes out.
//!
//! A block begins with its length, a checksum and a number that grows; what does not agree with itself is left out, so
//! a file that was torn, cut or written over in part loses the blocks concerned and no other. The first two blocks hold
//! the names in turns: one of them is whole at any time.

use std::collections::BTreeMap;

use super::entry::{ENTRY, RecordedTransaction};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 64 * 1024;

/// Blocks of names in front of the ring.
pub(crate) const NAME_BLOCKS: u64 = 2;

/// Magic, number, checksum, kind, length.
const HEADER: usize = 32;

/// Entries of a block.
pub(crate) const ENTRIES: usize = (BLOCK - HEADER) / ENTRY;

/// Changes with the layout.
const MAGIC: &[u8; 8] = b"pgweir\x00\x01";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    Names = 1,
    Entries = 2,
}

/// The names that entries have numbers of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RecordedNames {
    /// Database and role, by number.
    pub pools: Vec<(String, String)>,
    /// By number, from 1.
    pub lanes: Vec<String>,
}

/// A recording as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recording {
    pub names: RecordedNames,
    /// In order of arrival.
    pub transactions: Vec<RecordedTransaction>,
    /// Blocks that were torn.
    pub torn: usize,
}

/// Where the block with this number of the ring goes, in a file of so many blocks.
pub(crate) fn place(number: u64, blocks: u64) -> u64 {
    (NAME_BLOCKS + number % (blocks - NAME_BLOCKS)) * BLOCK as u64
}

/// Where the block of names with this number goes: the other one is whole meanwhile.
pub(crate) fn names_place(number: u64) -> u64 {
    number % NAME_BLOCKS * BLOCK as u64
}

/// A block of entries.
pub(crate) fn entries_block(number: u64, entries: &[RecordedTransaction]) -> Vec<u8> {
    let body = entries.iter().take(ENTRIES).flat_map(RecordedTransaction::bytes).collect();
    block(BlockKind::Entries, number, body)
}

/// A block of names; `None`: they are too many.
pub(crate) fn names_block(number: u64, names: &RecordedNames) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut text = |text: &str| {
        body.extend_from_slice(&(text.len() as u16).to_le_bytes());
        body.extend_from_slice(text.as_bytes());
    };
    for (database, role) in &names.pools {
        text(database);
        text(role);
    }
    text("");
    names.lanes.iter().for_each(|lane| text(lane));
    (body.len() <= BLOCK - HEADER).then(|| block(BlockKind::Names, number, body))
}

fn block(kind: BlockKind, number: u64, body: Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&checksum(kind, number, &body).to_le_bytes());
    bytes.extend_from_slice(&(kind as u32).to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// FNV-1a over all that matters.
fn checksum(kind: BlockKind, number: u64, body: &[u8]) -> u64 {
    let head = [&number.to_le_bytes()[..], &[kind as u8]].concat();
    head.iter()
        .chain(body)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Kind, number and body of the block at the front of these bytes; `None`: it is none, or torn.
fn read_block(bytes: &[u8]) -> Option<(BlockKind, u64, &[u8])> {
    let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    if bytes.get(..8)? != MAGIC {
        return None;
    }
    let kind = match u32_at(24)? {
        1 => BlockKind::Names,
        2 => BlockKind::Entries,
        _ => return None,
    };
    let (number, length) = (u64_at(8)?, u32_at(28)? as usize);
    let body = bytes.get(HEADER..HEADER.checked_add(length)?)?;
    (u64_at(16)? == checksum(kind, number, body)).then_some((kind, number, body))
}

fn read_names(mut body: &[u8]) -> Option<RecordedNames> {
    let mut text = || {
        let length = usize::from(u16::from_le_bytes(*body.first_chunk()?));
        let text = std::str::from_utf8(body.get(2..2 + length)?).ok()?;
        body = &body[2 + length..];
        Some(text.to_owned())
    };
    let mut names = RecordedNames::default();
    loop {
        let database = text()?;
        if database.is_empty() {
            break;
        }
        names.pools.push((database, text()?));
    }
    while let Some(lane) = text() {
        names.lanes.push(lane);
    }
    Some(names)
}

/// Where a recording goes on: the number of its next block, and of its latest names, and these. `None`: it is none.
pub(crate) fn position(file: &[u8]) -> Option<(u64, u64, RecordedNames)> {
    let (mut next, mut names) = (0, None);
    for (kind, number, body) in file.chunks(BLOCK).filter_map(read_block) {
        match kind {
            BlockKind::Entries => next = next.max(number + 1),
            BlockKind::Names if names.as_ref().is_none_or(|(latest, _)| number > *latest) => {
                names = Some((number, read_names(body)?));
            }
            BlockKind::Names => {}
        }
    }
    names.map(|(number, names)| (next, number, names))
}

/// Everything in a file that is whole; `None`: there are no names, so it is no recording.
pub(crate) fn read(file: &[u8]) -> Option<Recording> {
    let mut recording = Recording::default();
    let mut latest = None;
    let mut ring = BTreeMap::new();
    for bytes in file.chunks(BLOCK) {
        match read_block(bytes) {
            Some((BlockKind::Names, number, body)) if latest.is_none_or(|latest| number >= latest) => {
                recording.names = read_names(body)?;
                latest = Some(number);
            }
            Some((BlockKind::Names, ..)) => {}
            Some((BlockKind::Entries, number, body)) => drop(ring.insert(number, body)),
            // What was never written is zeros.
            None => recording.torn += usize::from(bytes.iter().take(HEADER).any(|byte| *byte != 0)),
        }
    }
    latest?;
    for body in ring.into_values() {
        let entries = body.chunks_exact(ENTRY).filter_map(|bytes| RecordedTransaction::read(bytes.first_chunk()?));
        recording.transactions.extend(entries);
    }
    recording.transactions.sort_by_key(|transaction| transaction.arrival);
    Some(recording)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recorder::entry::RecordedOutcome;

    const BLOCKS: u64 = 6;

    fn names() -> RecordedNames {
        RecordedNames {
            pools: vec![("app".into(), "web".into()), ("app".into(), "jobs".into())],
            lanes: vec!["x".into()],
        }
    }

    fn transaction(arrival: u64) -> RecordedTransaction {
        let outcome = RecordedOutcome::ALL[arrival as usize % 4];
        RecordedTransaction { arrival, wait: 3, served: 900, pool: 1, lane: 1, outcome, digest: arrival as u32 }
    }

    /// A file in which so many blocks of so many entries were written, one after the other.
    fn file(written: u64, each: u64) -> Vec<u8> {
        let mut file = vec![0; BLOCKS as usize * BLOCK];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &names_block(4, &names()).expect("they fit"));
        put(BLOCK, &names_block(3, &RecordedNames::default()).expect("they fit"));
        for number in 0..written {
            let entries: Vec<_> = (0..each).map(|n| transaction(number * each + n)).collect();
            put(place(number, BLOCKS) as usize, &entries_block(number, &entries));
        }
        file
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let most = RecordedTransaction { arrival: (1 << 48) - 1, wait: u32::MAX, lane: 255, ..transaction(7) };
        for entry in [transaction(0), most] {
            assert_eq!(RecordedTransaction::read(&entry.bytes()), Some(entry));
        }
    }

    #[test]
    fn a_ring_keeps_the_latest_blocks_and_the_latest_names() {
        let recording = read(&file(9, 5)).expect("it has names");
        assert_eq!((recording.names, recording.torn), (names(), 0));
        let arrivals: Vec<_> = recording.transactions.iter().map(|of| of.arrival).collect();
        assert_eq!(arrivals, (25..45).collect::<Vec<_>>());
        assert_eq!(read(b"no recording"), None);
    }

    proptest! {
        /// Whatever is cut off or overwritten: what comes back was written, in order and once, and only blocks that
        /// were hit are missing.
        #[test]
        fn what_is_torn_costs_its_own_blocks_only(
            written in 0u64..12, each in 1u64..40, cut in 0usize..=BLOCKS as usize * BLOCK,
            hits in prop::collection::vec((0..BLOCKS as usize * BLOCK, any::<u8>()), 0..6)
        ) {
            let whole = file(written, each);
            let mut torn = whole.clone();
            hits.iter().for_each(|(at, byte)| torn[*at] ^= byte);
            torn.truncate(cut);
            let kept: Vec<u64> = whole.chunks(BLOCK).zip(torn.chunks(BLOCK)).enumerate()
                .filter(|(_, (before, after))| before == after)
                .map(|(at, _)| at as u64)
                .collect();
            let Some(recording) = read(&torn) else {
                prop_assert!(!kept.contains(&0) || !kept.contains(&1));
                return Ok(());
            };
            let first = written.saturating_sub(BLOCKS - NAME_BLOCKS) * each;
            let arrivals: Vec<_> = recording.transactions.iter().map(|of| of.arrival).collect();
            prop_assert!(arrivals.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(recording.transactions.iter().all(|of| *of == transaction(of.arrival) && of.arrival >= first));
            for number in written.saturating_sub(BLOCKS - NAME_BLOCKS)..written {
                let is_kept = kept.contains(&(place(number, BLOCKS) / BLOCK as u64));
                prop_assert!(!is_kept || arrivals.contains(&(number * each)), "block {number} is lost");
            }
        }

        /// No bytes make it panic.
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400), length in any::<u16>()) {
            let _ = read(&bytes);
            let mut named = names_block(1, &names()).expect("they fit");
            named.truncate(usize::from(length) % (named.len() + 1));
            named.extend(&bytes);
            let _ = read(&named);
        }
    }
}
