//! A batch of notifications as it is sent to the server: as few transactions as possible, each one Query of NOTIFY
//! statements.
//!
//! Any role may NOTIFY: EXECUTE on `pg_notify` can be revoked, and the sender logs in as some listener's role.

use std::collections::HashSet;

use crate::notify::notification::Notification;
use crate::sql::{quote_identifier, quote_literal};
use crate::wire::build;

/// Appends one transaction that sends all of these. Texts are in the encoding of the server, and so is the connection:
/// no character of such an encoding has a byte that could be taken for a quote.
pub(super) fn transaction(out: &mut Vec<u8>, notifications: &[&Notification]) {
    let mut text = Vec::new();
    // The text of a Query ends at a NUL. No server has taken a value with one, so there is nobody to send it for.
    let has_nul = |notification: &Notification| {
        [&notification.channel, &notification.payload].iter().any(|text| text.contains(&0))
    };
    for Notification { channel, payload } in notifications.iter().filter(|notification| !has_nul(notification)) {
        text.extend_from_slice(b"NOTIFY ");
        text.extend_from_slice(&quote_identifier(channel));
        text.extend_from_slice(b", ");
        text.extend_from_slice(&quote_literal(payload));
        text.push(b';');
    }
    build::query(out, &text);
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
    fn a_transaction_is_one_query_in_which_every_text_is_quoted() {
        let mut out = Vec::new();
        let odd = Notification::new("a\"; b", r"it's \").unwrap();
        transaction(&mut out, &[&Notification::new("c", "").unwrap(), &odd]);
        assert_eq!(&out[5..], b"NOTIFY \"c\", '';NOTIFY \"a\"\"; b\", E'it''s \\\\';\0");
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
