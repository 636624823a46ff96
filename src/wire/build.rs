//! The messages pgweir writes itself.
//!
//! Messages on the path of a query are appended by hand; errors, parameters and rows of the console go through
//! `pgwire`. Manual: "Message Formats".

use std::borrow::Cow;

use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use pgwire::messages::startup::{BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey};

use super::expected::TransactionStatus;
use super::frame::{HEADER_LEN, header};
use super::tag::{self, backend, field, frontend};

/// ParseComplete.
pub(crate) const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
/// BindComplete.
pub(crate) const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
/// CloseComplete.
pub(crate) const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
/// NoData.
pub(crate) const NO_DATA: &[u8] = b"n\0\0\0\x04";
/// ParameterDescription of a statement without parameters.
pub(crate) const NO_PARAMETERS: &[u8] = b"t\0\0\0\x06\0\0";
/// EmptyQueryResponse.
pub(crate) const EMPTY_QUERY: &[u8] = b"I\0\0\0\x04";
/// PortalSuspended.
pub(crate) const PORTAL_SUSPENDED: &[u8] = b"s\0\0\0\x04";
/// Sync.
pub(crate) const SYNC: &[u8] = b"S\0\0\0\x04";
/// Flush.
pub(crate) const FLUSH: &[u8] = b"H\0\0\0\x04";
/// Terminate.
pub(crate) const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// Appends a frame whose body `fill` writes.
pub(crate) fn frame(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[tag, 0, 0, 0, 0]);
    fill(out);
    let length = u32::try_from(out.len() - start - 1).expect("we build no message near 4 GiB");
    out[start + 1..start + HEADER_LEN].copy_from_slice(&length.to_be_bytes());
}

/// Appends bytes as a string of the protocol.
pub(crate) fn cstring(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// ReadyForQuery.
pub(crate) fn ready_for_query(out: &mut Vec<u8>, status: TransactionStatus) {
    out.extend_from_slice(&[backend::READY_FOR_QUERY, 0, 0, 0, 5, status.byte()]);
}

/// CommandComplete.
pub(crate) fn command_complete(out: &mut Vec<u8>, tag: &[u8]) {
    frame(out, backend::COMMAND_COMPLETE, |out| cstring(out, tag));
}

/// Query.
pub(crate) fn query(out: &mut Vec<u8>, text: &[u8]) {
    frame(out, frontend::QUERY, |out| cstring(out, text));
}

/// CopyFail with this message.
pub(crate) fn copy_fail(out: &mut Vec<u8>, message: &[u8]) {
    frame(out, frontend::COPY_FAIL, |out| cstring(out, message));
}

/// Parse; `rest` is the body behind the name: text and parameter types.
pub(crate) fn parse(out: &mut Vec<u8>, name: &[u8], rest: &[u8]) {
    frame(out, frontend::PARSE, |out| {
        cstring(out, name);
        out.extend_from_slice(rest);
    });
}

/// Bind of a statement without parameters.
pub(crate) fn bind(out: &mut Vec<u8>, portal: &[u8], statement: &[u8]) {
    frame(out, frontend::BIND, |out| {
        cstring(out, portal);
        cstring(out, statement);
        out.extend_from_slice(&[0; 6]);
    });
}

/// Execute, for all rows.
pub(crate) fn execute(out: &mut Vec<u8>, portal: &[u8]) {
    frame(out, frontend::EXECUTE, |out| {
        cstring(out, portal);
        out.extend_from_slice(&[0; 4]);
    });
}

/// Describe of a prepared statement.
pub(crate) fn describe_statement(out: &mut Vec<u8>, name: &[u8]) {
    frame(out, frontend::DESCRIBE, |out| {
        out.push(tag::STATEMENT);
        cstring(out, name);
    });
}

/// Close of a prepared statement.
pub(crate) fn close_statement(out: &mut Vec<u8>, name: &[u8]) {
    frame(out, frontend::CLOSE, |out| {
        out.push(tag::STATEMENT);
        cstring(out, name);
    });
}

/// Close of a portal.
pub(crate) fn close_portal(out: &mut Vec<u8>, name: &[u8]) {
    frame(out, frontend::CLOSE, |out| {
        out.push(tag::PORTAL);
        cstring(out, name);
    });
}

/// ParameterStatus.
pub(crate) fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    put(out, &ParameterStatus::new(name.to_owned(), value.to_owned()));
}

/// BackendKeyData with a key of any length.
pub(crate) fn backend_key_data(out: &mut Vec<u8>, pid: i32, secret: &[u8]) {
    put(out, &BackendKeyData::new(pid, SecretKey::Bytes(secret.to_vec().into())));
}

/// NegotiateProtocolVersion: the newest minor version we speak and the options we do not.
pub(crate) fn negotiate_protocol_version(out: &mut Vec<u8>, newest: i32, unsupported: &[String]) {
    put(out, &NegotiateProtocolVersion::new(newest, unsupported.to_vec()));
}

/// Fields of an ErrorResponse or NoticeResponse (manual: "Error and Notice Message Fields").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// `ERROR`, `FATAL`, `WARNING` …
    pub severity: &'static str,
    /// SQLSTATE.
    pub code: Cow<'static, str>,
    pub message: String,
    /// The facts, if any.
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Postgres's function that raises this error, where we raise it in its place: drivers tell by it what to do.
    pub routine: Option<&'static str>,
}

impl Report {
    fn fields(&self) -> Vec<(u8, String)> {
        let mut fields = vec![
            (field::SEVERITY, self.severity.to_owned()),
            (field::SEVERITY_PLAIN, self.severity.to_owned()),
            (field::CODE, self.code.to_string()),
            (field::MESSAGE, self.message.clone()),
        ];
        fields.extend(self.detail.clone().map(|text| (field::DETAIL, text)));
        fields.extend(self.hint.clone().map(|text| (field::HINT, text)));
        fields.push((field::CONTEXT, "pgweir".to_owned()));
        fields.extend(self.routine.map(|name| (field::ROUTINE, name.to_owned())));
        fields
    }
}

/// ErrorResponse; its CONTEXT is `pgweir`, so that nobody looks for the error in Postgres.
pub(crate) fn error_response(out: &mut Vec<u8>, report: &Report) {
    put(out, &ErrorResponse::new(report.fields()));
}

/// NoticeResponse.
pub(crate) fn notice_response(out: &mut Vec<u8>, report: &Report) {
    put(out, &NoticeResponse::new(report.fields()));
}

/// Object ids of types (`pg_type.dat`).
pub(crate) const TEXT_OID: u32 = 25;
/// `int4`.
pub(crate) const INT4_OID: u32 = 23;
/// `int8`.
pub(crate) const INT8_OID: u32 = 20;

/// RowDescription; name, type, its size and format of each column.
pub(crate) fn row_description<'a>(out: &mut Vec<u8>, columns: impl IntoIterator<Item = (&'a str, u32, i16, i16)>) {
    let field = |(name, oid, size, format): (&str, _, _, _)| {
        FieldDescription::new(name.to_owned(), 0, 0, oid, size, -1, format)
    };
    put(out, &RowDescription::new(columns.into_iter().map(field).collect()));
}

/// DataRow; `None` is NULL.
pub(crate) fn data_row(out: &mut Vec<u8>, values: impl IntoIterator<Item = Option<Vec<u8>>>) {
    let (mut data, mut count) = (BytesMut::new(), 0);
    for value in values {
        count += 1;
        match value {
            Some(value) => {
                let length = i32::try_from(value.len()).expect("console values are short");
                data.extend_from_slice(&length.to_be_bytes());
                data.extend_from_slice(&value);
            }
            None => data.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }
    put(out, &DataRow::new(data, count));
}

fn put(out: &mut Vec<u8>, message: &impl Message) {
    let mut buffer = BytesMut::new();
    message.encode(&mut buffer).expect("messages we build are within their limits");
    out.extend_from_slice(&buffer);
}

/// An error or notice of Postgres that is passed on in our name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerError {
    /// SQLSTATE.
    pub code: String,
    pub message: String,
}

/// The refusal of a login, in the words of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLogin {
    /// SQLSTATE.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl RefusedLogin {
    /// Reads the body of an ErrorResponse; `None` without a SQLSTATE.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let fields = error_fields(body);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let optional = |bytes: &[u8]| (!bytes.is_empty()).then(|| text(bytes));
        Some(Self {
            code: optional(fields.code)?,
            message: text(fields.message),
            detail: optional(fields.detail),
            hint: optional(fields.hint),
        })
    }
}

/// The fields of an ErrorResponse or NoticeResponse body that decide anything. They are borrowed: text may not be
/// UTF-8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ErrorFields<'a> {
    /// `V`, or `S` from servers before 9.6.
    pub severity: &'a [u8],
    /// `C`.
    pub code: &'a [u8],
    /// `M`.
    pub message: &'a [u8],
    /// `D`.
    pub detail: &'a [u8],
    /// `H`.
    pub hint: &'a [u8],
    /// `c`.
    pub column: &'a [u8],
    /// `R`: the function of Postgres that raised it.
    pub routine: &'a [u8],
    /// There is a HINT.
    pub has_hint: bool,
}

/// Reads the body of an ErrorResponse or NoticeResponse; missing or malformed fields stay empty.
pub(crate) fn error_fields(body: &[u8]) -> ErrorFields<'_> {
    let mut fields = ErrorFields::default();
    let mut rest = body;
    while let Some((&kind, tail)) = rest.split_first() {
        let Some(end) = memchr::memchr(0, tail).filter(|_| kind != 0) else {
            break;
        };
        let value = &tail[..end];
        match kind {
            field::SEVERITY_PLAIN => fields.severity = value,
            field::SEVERITY if fields.severity.is_empty() => fields.severity = value,
            field::CODE => fields.code = value,
            field::MESSAGE => fields.message = value,
            field::COLUMN => fields.column = value,
            field::ROUTINE => fields.routine = value,
            field::DETAIL => fields.detail = value,
            field::HINT => (fields.hint, fields.has_hint) = (value, true),
            _ => {}
        }
        rest = &tail[end + 1..];
    }
    fields
}

/// Appends an ErrorResponse of the server with a HINT of ours, the server's other fields as they are.
pub(crate) fn hinted(out: &mut Vec<u8>, error: &[u8], hint: &str) {
    frame(out, backend::ERROR_RESPONSE, |out| {
        let body = error.get(HEADER_LEN..).unwrap_or_default();
        out.extend_from_slice(body.strip_suffix(b"\0").unwrap_or(body));
        out.push(field::HINT);
        cstring(out, hint.as_bytes());
        out.push(0);
    });
}

/// The server's error with another message; `None` if the error is not here whole.
pub(crate) fn with_message(error: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    if !is_whole(error) {
        return None;
    }
    let mut out = Vec::with_capacity(error.len() + message.len());
    frame(&mut out, backend::ERROR_RESPONSE, |out| {
        let mut rest = &error[HEADER_LEN..];
        while let Some((&kind, tail)) = rest.split_first().filter(|(kind, _)| **kind != 0)
            && let Some((value, behind)) = split_cstring(tail)
        {
            out.push(kind);
            cstring(out, if kind == field::MESSAGE { message } else { value });
            rest = behind;
        }
        out.push(0);
    });
    Some(out)
}

fn is_whole(frame: &[u8]) -> bool {
    header(frame).is_ok_and(|header| header.is_some_and(|header| HEADER_LEN + header.body == frame.len()))
}

/// A frame of the server's error: the same, or one with its main fields if it is not here whole.
pub(crate) fn whole_error(bytes: &[u8]) -> Box<[u8]> {
    if is_whole(bytes) {
        return bytes.into();
    }
    let fields = error_fields(bytes.get(HEADER_LEN..).unwrap_or_default());
    let mut out = Vec::new();
    frame(&mut out, backend::ERROR_RESPONSE, |out| {
        for (name, value) in [
            (field::SEVERITY, fields.severity),
            (field::SEVERITY_PLAIN, fields.severity),
            (field::CODE, fields.code),
            (field::MESSAGE, fields.message),
        ] {
            out.push(name);
            cstring(out, value);
        }
        out.push(0);
    });
    out.into()
}

/// Splits a string of the protocol off the front; `None` when it has no end.
#[inline]
pub(crate) fn split_cstring(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_its_code_hint_and_context() {
        let mut out = Vec::new();
        error_response(
            &mut out,
            &Report {
                severity: "ERROR",
                code: "53300".into(),
                message: "the line is full".into(),
                detail: None,
                hint: Some("Raise pool.waiters_max.".into()),
                routine: None,
            },
        );
        let fields = error_fields(&out[5..]);
        assert_eq!((fields.severity, fields.code), (&b"ERROR"[..], &b"53300"[..]));
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(text.contains("HRaise pool.waiters_max.\0Wpgweir\0"), "{text:?}");
    }

    // A server's error may lack its SQLSTATE, and its end.
    #[test]
    fn errors_without_fields_or_ends_are_read_as_empty() {
        assert_eq!(error_fields(b""), ErrorFields::default());
        assert_eq!(error_fields(b"\0"), ErrorFields::default());
        assert_eq!(error_fields(b"C57P01"), ErrorFields::default());
    }

    #[test]
    fn a_hint_joins_the_fields_of_the_server() {
        let (mut error, mut out) = (Vec::new(), Vec::new());
        frame(&mut error, b'E', |out| out.extend_from_slice(b"C57014\0RProcessInterrupts\0\0"));
        assert!(!error_fields(&error[5..]).has_hint);
        hinted(&mut out, &error, "because");
        assert_eq!(&out[5..], b"C57014\0RProcessInterrupts\0Hbecause\0\0");
        assert_eq!(out[..5], [b'E', 0, 0, 0, out.len() as u8 - 1]);
        assert!(error_fields(&out[5..]).has_hint);
    }

    #[test]
    fn built_lengths_count_themselves() {
        let mut out = Vec::new();
        query(&mut out, b"SELECT 1");
        assert_eq!(out, b"Q\0\0\0\x0dSELECT 1\0");
        out.clear();
        ready_for_query(&mut out, TransactionStatus::Failed);
        assert_eq!(out, b"Z\0\0\0\x05E");
    }
}
