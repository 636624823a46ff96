//! The client that a statement was called by, as records keep it.

use std::sync::Arc;

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct StatementCaller {
    pub role: Arc<str>,
    pub database: Arc<str>,
    pub application_name: Arc<str>,
    pub addr: Arc<str>,
}
