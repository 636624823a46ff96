//! A batch of notifications as it is sent to the server: as few transactions as possible, each one Bind.

use std::collections::HashSet;

use crate::notify::notification::Notification;
use crate::wire::build::{self, TEXT_OID};

/// The sender's prepared statement.
const STATEMENT: &[u8] = b"pgweir_notify";

/// Rows come in the order of the arrays, and are sent in that order: a volatile column is computed after ORDER BY.
const TEXT: &[u8] = b"SELECT pg_catalog.pg_notify(n.channel, n.payload) \
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) \
    WITH ORDINALITY AS n (channel, payload, place) ORDER BY n.place";

/// Parse and Sync.
pub(super) fn prepare() -> Vec<u8> {
    let mut out = Vec::new();
    build::parse(&mut out, STATEMENT, &[TEXT, b"\0\0\0"].concat());
    out.extend_from_slice(build::SYNC);
    out
}

/// Appends one transaction that sends all of these.
pub(super) fn transaction(out: &mut Vec<u8>, notifications: &[&Notification]) {
    build::frame(out, b'B', |out| {
        build::cstring(out, b"");
        build::cstring(out, STATEMENT);
        // All parameters are binary, and there are two.
        out.extend_from_slice(b"\0\x01\0\x01\0\x02");
        text_array(out, notifications.iter().map(|notification| &notification.channel[..]));
        text_array(out, notifications.iter().map(|notification| &notification.payload[..]));
        out.extend_from_slice(b"\0\0");
    });
    build::frame(out, b'E', |out| out.extend_from_slice(b"\0\0\0\0\0"));
    out.extend_from_slice(build::SYNC);
}

/// A parameter with its length, in the format that `array_recv` reads.
fn text_array<'a>(out: &mut Vec<u8>, texts: impl ExactSizeIterator<Item = &'a [u8]>) {
    let int = |length: usize| i32::try_from(length).expect("a batch is far below 2 GiB").to_be_bytes();
    let mut array = Vec::new();
    // One dimension, no NULL, of text, so long, counted from 1.
    for word in [1i32.to_be_bytes(), [0; 4], TEXT_OID.to_be_bytes(), int(texts.len()), 1i32.to_be_bytes()] {
        array.extend_from_slice(&word);
    }
    for text in texts {
        array.extend_from_slice(&int(text.len()));
        array.extend_from_slice(text);
    }
    out.extend_from_slice(&int(array.len()));
    out.extend_from_slice(&array);
}

/// Cuts a batch into transactions; returns their lengths. Within one transaction Postgres sends equal notifications
/// once, but these come from different transactions, so a repeated notification begins a new one.
pub(super) fn transactions<'a>(notifications: impl IntoIterator<Item = &'a Notification>) -> Vec<usize> {
    let (mut lengths, mut open) = (Vec::new(), HashSet::new());
    for notification in notifications {
        if !open.insert(notification) {
            lengths.push(open.len());
            open.clear();
            open.insert(notification);
        }
    }
    lengths.extend(Some(open.len()).filter(|open| *open > 0));
    lengths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn notifications(texts: &str) -> Vec<Notification> {
        texts.split(' ').map(|text| Notification::new("c", text.to_owned()).unwrap()).collect()
    }

    #[test]
    fn different_ones_share_a_transaction_and_a_repeated_one_begins_another() {
        assert_eq!(transactions(&notifications("a b c")), [3]);
        assert_eq!(transactions(&notifications("a a a")), [1, 1, 1]);
        assert_eq!(transactions(&notifications("a b b a c b")), [2, 3, 1]);
        assert_eq!(transactions(&[]), [0usize; 0]);
    }

    #[test]
    fn the_same_payload_on_another_channel_is_another_notification() {
        let [a, b] = ["a", "b"].map(|channel| Notification::new(channel, "p").unwrap());
        assert_eq!(transactions([&a, &b]), [2]);
    }

    #[test]
    fn an_array_is_what_the_server_reads() {
        let mut out = Vec::new();
        text_array(&mut out, [&b"ab"[..], b""].into_iter());
        let expected =
            [&b"\0\0\0\x1e"[..], b"\0\0\0\x01\0\0\0\0\0\0\0\x19\0\0\0\x02\0\0\0\x01", b"\0\0\0\x02ab", b"\0\0\0\0"];
        assert_eq!(out, expected.concat());
    }

    proptest! {
        /// Nothing is lost, and nothing comes twice within one transaction.
        #[test]
        fn transactions_hold_everything_once(payloads in prop::collection::vec("[ab]{0,2}", 0..60)) {
            let notifications: Vec<_> = payloads.into_iter().map(|text| Notification::new("c", text).unwrap()).collect();
            let mut rest = &notifications[..];
            for length in transactions(&notifications) {
                let (open, later) = rest.split_at(length);
                prop_assert_eq!(open.iter().collect::<HashSet<_>>().len(), length);
                prop_assert!(later.first().is_none_or(|next| open.contains(next)), "no shorter than it must be");
                rest = later;
            }
            prop_assert!(rest.is_empty());
        }
    }
}
