//! Texts in encodings whose characters may end in bytes that look like ASCII, made readable for the lexer.
//!
//! A masked text has the same characters, but every byte of one outside ASCII is at least 0x80. Whatever the lexer cuts
//! from it or puts into it between characters can be unmasked again. Lengths: `pg_sjis_mblen` and its like of
//! `pg_wchar.c`.

use bytes::Bytes;

use super::effect::{Argument, Context, Effect, Scope, Setting, StatementEffects, Value};
use super::encoding::EncodingFamily;

/// Stands in front of a byte that was below 0x80. No character has it.
const ESCAPE: u8 = 0xff;

/// The text masked; `None`: it has no valid end, so that Postgres refuses it.
pub(super) fn mask(text: &[u8], family: EncodingFamily) -> Option<Vec<u8>> {
    let mut masked = Vec::with_capacity(text.len() + text.len() / 4);
    let mut rest = text;
    while let Some(&first) = rest.first() {
        let (character, behind) = rest.split_at_checked(length(first, rest.get(1).copied(), family))?;
        for &byte in character {
            match byte {
                ESCAPE => return None,
                // No character ends in a delete, which would look like the mark of another.
                0x7f if character.len() > 1 => return None,
                0..0x80 if character.len() > 1 => masked.extend([ESCAPE, byte | 0x80]),
                byte => masked.push(byte),
            }
        }
        rest = behind;
    }
    Some(masked)
}

/// The bytes that a part of a masked text stands for.
pub(super) fn unmask(masked: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(masked.len());
    let mut bytes = masked.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            ESCAPE => text.extend(bytes.next().map(|byte| byte & 0x7f)),
            byte => text.push(byte),
        }
    }
    text
}

/// Where the byte at `at` of a masked text stands in the text.
pub(super) fn place(masked: &[u8], at: usize) -> usize {
    at - memchr::memchr_iter(ESCAPE, &masked[..at]).count()
}

/// Bytes of the character that begins with these.
fn length(first: u8, second: Option<u8>, family: EncodingFamily) -> usize {
    match (family, first) {
        (EncodingFamily::AsciiSafe, _) | (_, 0..0x80) | (EncodingFamily::Sjis, 0xa1..=0xdf) => 1,
        (EncodingFamily::Johab, 0x8f) => 3,
        (EncodingFamily::Gb18030, _) if second.is_some_and(|second| second.is_ascii_digit()) => 4,
        _ => 2,
    }
}

/// A text as the lexer may read it.
pub(super) enum Readable<'a> {
    AsIs(&'a [u8]),
    Masked(Vec<u8>),
    /// Postgres refuses it, or it has bytes that no character has.
    Unreadable,
}

impl<'a> Readable<'a> {
    #[inline]
    pub(super) fn of(text: &'a [u8], context: Context) -> Self {
        if context.encoding == EncodingFamily::AsciiSafe || text.is_ascii() {
            return Self::AsIs(text);
        }
        mask(text, context.encoding).map_or(Self::Unreadable, Self::Masked)
    }

    /// The text that may be read.
    pub(super) fn text(&self) -> Option<&[u8]> {
        match self {
            Self::AsIs(text) => Some(text),
            Self::Masked(text) => Some(text),
            Self::Unreadable => None,
        }
    }
}

/// The text that `rewrite` makes of one that the lexer may read, and the rest that it answers.
pub(super) fn rewritten<T>(
    text: &[u8],
    context: Context,
    rewrite: impl FnOnce(&[u8], Context) -> Option<(Vec<u8>, T)>,
) -> Option<(Vec<u8>, T)> {
    match Readable::of(text, context) {
        Readable::AsIs(text) => rewrite(text, context.readable()),
        Readable::Masked(text) => rewrite(&text, context.readable()).map(|(text, rest)| (unmask(&text), rest)),
        Readable::Unreadable => None,
    }
}

impl StatementEffects {
    /// The effects of the text that a masked one stands for.
    pub(super) fn unmask(&mut self) {
        for (_, effect) in &mut self.effects {
            effect.unmask();
        }
    }
}

impl Effect {
    fn unmask(&mut self) {
        match self {
            Self::Savepoint(name)
            | Self::Release(name)
            | Self::RollbackTo(name)
            | Self::Prepare(name)
            | Self::Execute(name)
            | Self::Deallocate(name)
            | Self::Listen(name)
            | Self::Unlisten(name) => unmask_bytes(name),
            Self::Notify { channel, payload, .. } => {
                channel.unmask();
                payload.unmask();
            }
            Self::SetBound { name, value, .. } => {
                name.unmask();
                value.iter_mut().for_each(Argument::unmask);
            }
            // A name is text here, which bytes in such an encoding are not.
            Self::Set { scope, setting: Setting { name, .. } } | Self::SetUnknown { scope, name }
                if !name.is_ascii() =>
            {
                *self = Self::SetAny { scope: *scope };
            }
            Self::Reset(name) if !name.is_ascii() => *self = Self::SetAny { scope: Scope::Session },
            Self::Set { setting: Setting { value: Value::Text(bytes) | Value::Raw(bytes), .. }, .. } => {
                unmask_bytes(bytes);
            }
            _ => {}
        }
    }
}

impl Argument {
    fn unmask(&mut self) {
        if let Self::Text(text) = self {
            unmask_bytes(text);
        }
    }
}

fn unmask_bytes(bytes: &mut Bytes) {
    if !bytes.is_ascii() {
        *bytes = unmask(bytes).into();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{
        StateFlags, Substitute, classify, rename_statements, replace_values, stand_ins, statement_names,
    };
    use super::*;

    fn context(encoding: EncodingFamily) -> Context {
        Context { encoding, ..Context::default() }
    }

    /// `日本表` in Shift JIS, whose last byte is a backslash.
    const SJIS: &[u8] = b"\x93\xfa\x96\x7b\x95\x5c";

    fn sjis(text: &[&[u8]]) -> StatementEffects {
        classify(&text.concat(), context(EncodingFamily::Sjis))
    }

    #[test]
    fn characters_are_cut_by_the_rules_of_their_encoding() {
        use EncodingFamily::{Gb18030, Johab, Sjis, TwoBytes};
        for (family, text, masked) in [
            (Sjis, &b"a\x95\x5c\xb1\\"[..], &b"a\x95\xff\xdc\xb1\\"[..]),
            (TwoBytes, b"\xbf\x5c\x81\x7c'", b"\xbf\xff\xdc\x81\xff\xfc'"),
            (Gb18030, b"\x81\x30\x81\x35\x81\x5c", b"\x81\xff\xb0\x81\xff\xb5\x81\xff\xdc"),
            (Johab, b"\x88\x31\x8f\x41\x42a", b"\x88\xff\xb1\x8f\xff\xc1\xff\xc2a"),
        ] {
            assert_eq!(mask(text, family).as_deref(), Some(masked), "{family:?}");
            assert_eq!(unmask(masked), text);
        }
        assert_eq!(mask(b"'\x95", Sjis), None);
        assert_eq!(mask(b"\xff\x41", TwoBytes), None);
    }

    #[test]
    fn a_set_beside_a_text_outside_ascii_is_followed() {
        let class = sjis(&[b"SET search_path = ta; SET a.b = '", SJIS, b"'; SELECT E'", SJIS, b"'; SET c = 'x'"]);
        assert_eq!((class.statements, class.may_begin), (4, StateFlags::NONE));
        let set = |name: &str, value: Value| Effect::Set {
            scope: Scope::Session,
            setting: Setting { name: name.to_owned(), value },
        };
        let raw = |value: &[u8]| Value::Raw(Bytes::copy_from_slice(value));
        assert_eq!(
            class.effects[..],
            [
                (0, set("search_path", raw(b"ta"))),
                (1, set("a.b", raw(&[b"'", SJIS, b"'"].concat()))),
                (3, set("c", raw(b"'x'"))),
            ]
        );
    }

    #[test]
    fn names_and_arguments_are_those_of_the_client() {
        let name = Bytes::from_static(SJIS);
        let effects = |text: &[&[u8]]| sjis(text).effects.into_iter().map(|(_, effect)| effect).collect::<Vec<_>>();
        assert_eq!(effects(&[b"SAVEPOINT ", SJIS]), [Effect::Savepoint(name.clone())]);
        assert_eq!(effects(&[b"DEALLOCATE \"", SJIS, b"\""]), [Effect::Deallocate(name.clone())]);
        let value = Some(Argument::Text(name));
        let (bound, is_local) = (Argument::Parameter(1), super::super::effect::IsLocal::Known(Scope::Session));
        assert_eq!(
            effects(&[b"SELECT set_config($1, '", SJIS, b"', false)"]),
            [Effect::SetBound { name: bound, value, is_local }]
        );
        assert_eq!(effects(&[b"SET ", SJIS, b" = 1"]).len(), 0);
    }

    #[test]
    fn a_rewritten_text_keeps_its_characters() {
        let context = context(EncodingFamily::Sjis);
        let text = [b"SELECT '", SJIS, b"'; SET statement_timeout = 0; EXECUTE p('", SJIS, b"')"].concat();
        let replaced = replace_values(&text, context, |_, _| Some(Substitute::Milliseconds(5))).unwrap();
        assert_eq!(
            replaced.text,
            [b"SELECT '", SJIS, b"'; SET statement_timeout = '5'; EXECUTE p('", SJIS, b"')"].concat()
        );
        let renamed = rename_statements(&text, context, |_, _| Some(b"q".to_vec())).unwrap();
        assert!(renamed.ends_with(&[b"EXECUTE \"q\"('", SJIS, b"')"].concat()));
        let [found] = &statement_names(&text, context)[..] else { panic!("one name") };
        assert_eq!(&text[found.span.clone()], b"p");
        let text = [b"SELECT '", SJIS, b"'; LISTEN a"].concat();
        let (instead, class) = stand_ins(&text, context, |_| true).unwrap();
        assert_eq!(instead, [b"SELECT '", SJIS, b"'; UNLISTEN pgweir_noop"].concat());
        assert_eq!(class.effects[..], [(1, Effect::Listen(Bytes::from_static(b"a")))]);
    }

    #[test]
    fn half_a_character_is_uncertain() {
        assert_eq!(sjis(&[b"SELECT '\x95"]).may_begin, StateFlags::UNCERTAIN);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text: Vec<u8>, family in proptest::sample::select(vec![
            EncodingFamily::Sjis, EncodingFamily::TwoBytes, EncodingFamily::Johab, EncodingFamily::Gb18030,
        ])) {
            let Some(masked) = mask(&text, family) else { return Ok(()) };
            prop_assert_eq!(unmask(&masked), &text[..]);
            prop_assert_eq!(place(&masked, masked.len()), text.len());
            let ascii = |text: &[u8]| text.iter().filter(|byte| byte.is_ascii()).count();
            prop_assert!(ascii(&masked) <= ascii(&text));
        }
    }
}
