//! Message type bytes, each by the name that the manual gives its message ("Message Formats").
//!
//! A byte means one message from a frontend and another from a backend, so there are two lists.

/// Types of the messages that a client sends.
pub(crate) mod frontend {
    /// Bind.
    pub(crate) const BIND: u8 = b'B';
    /// Close.
    pub(crate) const CLOSE: u8 = b'C';
    /// CopyData.
    pub(crate) const COPY_DATA: u8 = b'd';
    /// CopyDone.
    pub(crate) const COPY_DONE: u8 = b'c';
    /// CopyFail.
    pub(crate) const COPY_FAIL: u8 = b'f';
    /// Describe.
    pub(crate) const DESCRIBE: u8 = b'D';
    /// Execute.
    pub(crate) const EXECUTE: u8 = b'E';
    /// Flush.
    pub(crate) const FLUSH: u8 = b'H';
    /// FunctionCall.
    pub(crate) const FUNCTION_CALL: u8 = b'F';
    /// Parse.
    pub(crate) const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse and SASLResponse.
    pub(crate) const PASSWORD: u8 = b'p';
    /// Query.
    pub(crate) const QUERY: u8 = b'Q';
    /// Sync.
    pub(crate) const SYNC: u8 = b'S';
    /// Terminate.
    pub(crate) const TERMINATE: u8 = b'X';
}

/// Types of the messages that a server sends.
pub(crate) mod backend {
    /// Authentication requests of every kind.
    pub(crate) const AUTHENTICATION: u8 = b'R';
    /// BackendKeyData.
    pub(crate) const BACKEND_KEY_DATA: u8 = b'K';
    /// BindComplete.
    pub(crate) const BIND_COMPLETE: u8 = b'2';
    /// CloseComplete.
    pub(crate) const CLOSE_COMPLETE: u8 = b'3';
    /// CommandComplete.
    pub(crate) const COMMAND_COMPLETE: u8 = b'C';
    /// CopyBothResponse.
    pub(crate) const COPY_BOTH_RESPONSE: u8 = b'W';
    /// CopyData.
    pub(crate) const COPY_DATA: u8 = b'd';
    /// CopyDone.
    pub(crate) const COPY_DONE: u8 = b'c';
    /// CopyInResponse.
    pub(crate) const COPY_IN_RESPONSE: u8 = b'G';
    /// CopyOutResponse.
    pub(crate) const COPY_OUT_RESPONSE: u8 = b'H';
    /// DataRow.
    pub(crate) const DATA_ROW: u8 = b'D';
    /// EmptyQueryResponse.
    pub(crate) const EMPTY_QUERY_RESPONSE: u8 = b'I';
    /// ErrorResponse.
    pub(crate) const ERROR_RESPONSE: u8 = b'E';
    /// FunctionCallResponse.
    pub(crate) const FUNCTION_CALL_RESPONSE: u8 = b'V';
    /// NegotiateProtocolVersion.
    pub(crate) const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    /// NoData.
    pub(crate) const NO_DATA: u8 = b'n';
    /// NoticeResponse.
    pub(crate) const NOTICE_RESPONSE: u8 = b'N';
    /// NotificationResponse.
    pub(crate) const NOTIFICATION_RESPONSE: u8 = b'A';
    /// ParameterDescription.
    pub(crate) const PARAMETER_DESCRIPTION: u8 = b't';
    /// ParameterStatus.
    pub(crate) const PARAMETER_STATUS: u8 = b'S';
    /// ParseComplete.
    pub(crate) const PARSE_COMPLETE: u8 = b'1';
    /// PortalSuspended.
    pub(crate) const PORTAL_SUSPENDED: u8 = b's';
    /// ReadyForQuery.
    pub(crate) const READY_FOR_QUERY: u8 = b'Z';
    /// RowDescription.
    pub(crate) const ROW_DESCRIPTION: u8 = b'T';
}

/// Fields of ErrorResponse and NoticeResponse ("Error and Notice Message Fields").
pub(crate) mod field {
    /// Severity, in the language of the server.
    pub(crate) const SEVERITY: u8 = b'S';
    /// Severity, never translated; from PostgreSQL 9.6 on.
    pub(crate) const SEVERITY_PLAIN: u8 = b'V';
    /// SQLSTATE.
    pub(crate) const CODE: u8 = b'C';
    /// Primary message.
    pub(crate) const MESSAGE: u8 = b'M';
    /// Detail.
    pub(crate) const DETAIL: u8 = b'D';
    /// Hint.
    pub(crate) const HINT: u8 = b'H';
    /// Context.
    pub(crate) const CONTEXT: u8 = b'W';
    /// Name of the column.
    pub(crate) const COLUMN: u8 = b'c';
    /// Function of the server's source that reported it.
    pub(crate) const ROUTINE: u8 = b'R';
}

/// Describe or Close of a prepared statement.
pub(crate) const STATEMENT: u8 = b'S';
/// Describe or Close of a portal.
pub(crate) const PORTAL: u8 = b'P';
