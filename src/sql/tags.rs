//! What a program says of itself in a comment before or behind its statement (SQLCommenter):
//! `/*route='%2Fcart',traceparent='00-…'*/`.
//!
//! Keys and values are percent-encoded, and values stand in quotes. A comment that is no such list has no tags.

use std::borrow::Cow;

/// Tags of one text that are read.
const TAGS_MAX: usize = 32;

/// Tags that are different in every request.
const TRACE: [&[u8]; 2] = [b"traceparent", b"tracestate"];

/// A key with its value, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag<'a> {
    pub key: Cow<'a, str>,
    pub value: Cow<'a, str>,
}

/// The tags of a text: of the comment that it begins with, and of the one that it ends with.
pub(crate) fn tags(text: &[u8]) -> Vec<Tag<'_>> {
    comments(text).into_iter().flatten().flat_map(|(start, end)| entries(&text[start..end])).take(TAGS_MAX).collect()
}

/// The text without the tags of tracing, which make every text another; `None`: it has none.
pub(crate) fn without_trace(text: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    let mut from = 0;
    let mut has_trace = false;
    for (start, end) in comments(text).into_iter().flatten() {
        let comment = &text[start..end];
        let is_trace = |part: &&[u8]| key_of(part).is_some_and(|key| TRACE.contains(&key));
        let parts = || comment.split(|byte| *byte == b',');
        // A comment that is not all tags is somebody's own.
        if parts().any(|part| key_of(part).is_none()) || !parts().any(|part| is_trace(&part)) {
            continue;
        }
        has_trace = true;
        let rest: Vec<&[u8]> = parts().filter(|part| !is_trace(part)).collect();
        if rest.is_empty() {
            kept.extend_from_slice(&text[from..start - 2]);
            from = end + 2;
        } else {
            kept.extend_from_slice(&text[from..start]);
            kept.extend_from_slice(&rest.join(&b","[..]));
            from = end;
        }
    }
    has_trace.then(|| {
        kept.extend_from_slice(&text[from..]);
        kept
    })
}

/// Where the insides of the first and the last comment are, if the text begins or ends with one.
fn comments(text: &[u8]) -> [Option<(usize, usize)>; 2] {
    let blank = text.len() - text.trim_ascii_start().len();
    let first = text[blank..].starts_with(b"/*").then(|| {
        let from = blank + 2;
        memchr::memmem::find(&text[from..], b"*/").map(|length| (from, from + length))
    });
    let first = first.flatten();
    let end = text.trim_ascii_end().strip_suffix(b";").unwrap_or(text).trim_ascii_end().len();
    let last = text[..end].ends_with(b"*/").then(|| memchr::memmem::rfind(&text[..end - 2], b"/*").map(|at| at + 2));
    let last = last.flatten().map(|from| (from, end - 2)).filter(|last| first.is_none_or(|first| first.1 < last.0));
    [first, last]
}

fn entries(comment: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    comment.split(|byte| *byte == b',').filter_map(|entry| {
        let key = decode(key_of(entry)?)?;
        let value = entry.trim_ascii().split(|byte| *byte == b'=').nth(1)?.strip_prefix(b"'")?.strip_suffix(b"'")?;
        Some(Tag { key, value: decode(value)? })
    })
}

/// The key of `key='value'`.
fn key_of(entry: &[u8]) -> Option<&[u8]> {
    let entry = entry.trim_ascii();
    let at = memchr::memchr(b'=', entry)?;
    let is_quoted = entry.len() > at + 2 && entry[at + 1] == b'\'' && entry.ends_with(b"'");
    (is_quoted && at > 0).then_some(&entry[..at])
}

/// Percent-encoding undone; `None`: it is not text.
fn decode(encoded: &[u8]) -> Option<Cow<'_, str>> {
    if !encoded.contains(&b'%') && !encoded.contains(&b'\\') {
        return std::str::from_utf8(encoded).ok().map(Cow::Borrowed);
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    loop {
        rest = match rest {
            [] => break,
            [b'%', high, low, rest @ ..] => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                decoded.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                rest
            }
            [b'\\', b'\'', rest @ ..] => {
                decoded.push(b'\'');
                rest
            }
            [byte, rest @ ..] => {
                decoded.push(*byte);
                rest
            }
        };
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        tags(text.as_bytes()).into_iter().map(|tag| (tag.key.into_owned(), tag.value.into_owned())).collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn tags_are_read_before_and_behind_the_statement() {
        assert_eq!(
            read("SELECT 1 /*action='%2Fcart*d',job='export'*/;"),
            [pair("action", "/cart*d"), pair("job", "export")]
        );
        assert_eq!(read("/* job='a' */ SELECT '/*x=''y''*/' /*route='b'*/"), [pair("job", "a"), pair("route", "b")]);
        assert_eq!(read("/*a='1'*/"), [pair("a", "1")]);
        assert_eq!(read("SELECT 1 /*name='DROP%20TABLE%20F\\'*'*/"), [pair("name", "DROP TABLE F'*")]);
    }

    #[test]
    fn other_comments_have_no_tags() {
        for text in
            ["SELECT 1", "SELECT 1 /* a */", "/* a, b=c */ SELECT 1", "SELECT 1 /*='a'*/", "/*", "*/", "/*/", ""]
        {
            assert_eq!(read(text), [], "{text}");
        }
    }

    #[test]
    fn traces_are_taken_out_and_the_rest_stays() {
        let without =
            |text: &str| without_trace(text.as_bytes()).map(|text| String::from_utf8(text).expect("it was text"));
        assert_eq!(without("SELECT 1 /*traceparent='00-1'*/").as_deref(), Some("SELECT 1 "));
        assert_eq!(
            without("SELECT 1 /*job='a',traceparent='00-1',tracestate='x%3D1'*/;").as_deref(),
            Some("SELECT 1 /*job='a'*/;")
        );
        assert_eq!(without("/*traceparent='1'*/SELECT 1").as_deref(), Some("SELECT 1"));
        assert_eq!(without("SELECT 1 /*job='a'*/"), None);
        assert_eq!(without("SELECT 'traceparent=''1'''"), None);
        assert_eq!(without("SELECT 1 /* traceparent='1', and prose */"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(text: Vec<u8>, parts in prop::collection::vec(
            prop::sample::select(vec!["/*", "*/", "a='b'", "traceparent='1'", ",", "'", "=", "%", "%2", ";", " "]), 0..9)
        ) {
            for text in [text, parts.concat().into_bytes()] {
                tags(&text);
                if let Some(without) = without_trace(&text) {
                    prop_assert!(without.len() < text.len());
                }
            }
        }
    }
}
