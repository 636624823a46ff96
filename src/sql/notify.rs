//! Exact reading of the calls that name channels: `pg_notify` and `pg_listening_channels`, where they are whole
//! statements.

use std::ops::Range;

use bytes::Bytes;

use super::effect::{Argument, Context, Effect, Form};
use super::keyword::*;
use super::lex::{Token, TokenKind};
use super::quote;
use super::read::Reader;

/// The text of a literal, if it does not depend on the encoding of the database as escapes outside ASCII do.
pub(super) fn text_of(text: &[u8], literal: Token) -> Option<Bytes> {
    let escapes = literal.kind == TokenKind::Escaped && literal.of(text).contains(&b'\\');
    quote::literal(text, literal).filter(|value| value.is_ascii() || !escapes)
}

/// The effect of a `SELECT` of one call: `pg_notify` or `pg_listening_channels`.
pub(super) fn read_select(text: &[u8], context: Context) -> Option<Effect> {
    Some(match Call::read(text, context)?.function {
        Function::Notify { channel, payload } => {
            Effect::Notify { form: Form::Call, channel: channel.argument, payload: payload.argument }
        }
        Function::ListeningChannels => Effect::ListeningChannels,
    })
}

/// A whole SELECT of one call and nothing else.
pub(super) struct Call {
    pub(super) function: Function,
    /// The name of its column as it is written, with AS if that is.
    pub(super) label: Option<Range<usize>>,
}

pub(super) enum Function {
    Notify { channel: Operand, payload: Operand },
    ListeningChannels,
}

/// An argument and what it is cast to.
pub(super) struct Operand {
    pub(super) argument: Argument,
    pub(super) cast: Type,
}

/// A parameter without a cast becomes what `pg_notify` takes: text.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Type {
    Text,
    Varchar,
}

impl Call {
    pub(super) fn read(text: &[u8], context: Context) -> Option<Self> {
        let mut reader = Reader::new(text, context);
        reader.advance();
        let is_from = reader.symbol(b'*');
        if is_from && !reader.word(FROM) {
            return None;
        }
        let name = function_name(&mut reader)?;
        taken(reader.symbol(b'('))?;
        let function = match &name[..] {
            b"pg_notify" if !is_from => {
                let channel = Operand::read(&mut reader)?;
                taken(reader.symbol(b','))?;
                Function::Notify { channel, payload: Operand::read(&mut reader)? }
            }
            b"pg_listening_channels" => Function::ListeningChannels,
            _ => return None,
        };
        taken(reader.symbol(b')'))?;
        let mut label = None;
        if !reader.is_at_end() {
            let start = reader.token().start;
            reader.word(AS);
            label = Some(start..reader.token().end);
            reader.name()?;
            taken(reader.is_at_end() && !is_from)?;
        }
        Some(Self { function, label })
    }
}

impl Operand {
    /// A literal, NULL or a parameter, perhaps cast.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        if reader.word(CAST) {
            taken(reader.symbol(b'('))?;
            let argument = Argument::read(reader)?;
            taken(reader.word(AS))?;
            let cast = Type::read(reader)?;
            taken(reader.symbol(b')'))?;
            return Some(Self { argument, cast });
        }
        let argument = Argument::read(reader)?;
        let cast = if reader.typecast() { Type::read(reader)? } else { Type::Text };
        Some(Self { argument, cast })
    }
}

impl Argument {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        if reader.word(NULL) {
            return Some(Self::Null);
        }
        if let Some(number) = reader.parameter() {
            return Some(Self::Parameter(number));
        }
        let literal = text_of(reader.text(), reader.token())?;
        reader.advance();
        Some(Self::Text(literal))
    }
}

impl Type {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        match () {
            () if reader.word(TEXT) => Some(Self::Text),
            () if reader.word(VARCHAR) => Some(Self::Varchar),
            () => None,
        }
    }
}

/// `name` or `pg_catalog.name`.
fn function_name(reader: &mut Reader<'_>) -> Option<Bytes> {
    let name = reader.name()?;
    if !reader.symbol(b'.') {
        return Some(name);
    }
    taken(&name[..] == b"pg_catalog")?;
    reader.name()
}

fn taken(expected: bool) -> Option<()> {
    expected.then_some(())
}
