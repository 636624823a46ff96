//! Documents that are printed from the code, and the test that each of them is what the code says. Tests only.

use std::fs;
use std::path::Path;

/// Compares a file of the repository with what the code prints. With `UPDATE_EXPECTED=1` it is written anew; `filter`
/// names the tests to run for that.
#[track_caller]
pub(crate) fn assert_printed(file: &str, printed: &str, filter: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, printed).expect("its directory is there");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == printed, "{file} is not what the code says; run UPDATE_EXPECTED=1 cargo test --lib {filter}");
}
