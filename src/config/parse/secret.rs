//! A secret as written: in place, or where to find it.

use crate::config::Secret;
use crate::config::raw::Section;
use crate::config::value::secret_text;

/// `"text"`, `{ env = "NAME" }` or `{ file = "path" }`.
pub(super) fn read(section: &mut Section<'_>, key: &'static str) -> Option<Secret> {
    if !section.is_table(key) {
        return section.take(key, secret_text).map(Secret::new);
    }
    let mut place = section.section(key)?;
    let env = place.env_text("env");
    let file = place.file_text("file");
    if place.has("env") == place.has("file") {
        place.blame_all("needs one of env = \"NAME\" and file = \"path\"");
    }
    place.finish();
    env.or(file).map(Secret::new)
}
