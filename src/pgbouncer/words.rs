//! Connection strings of `[databases]`, `[users]` and `[peers]`, and the users of an `auth_file`: texts within values.

use super::ini::unquote;

/// The pairs of `host=h password='it''s'`; `None` where PgBouncer finds none either.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let key = key.trim_end();
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('\'') {
            Some(quoted) => unquote(quoted, '\'')?,
            None => {
                let (value, next) = after.split_at(after.find(char::is_whitespace).unwrap_or(after.len()));
                (value.to_owned(), next)
            }
        };
        if key.is_empty() || key.contains(char::is_whitespace) || value.is_empty() {
            return None;
        }
        pairs.push((key.to_owned(), value));
        rest = next.trim_start();
    }
    Some(pairs)
}

/// User and secret of each line `"user" "secret" …`, and the number of the line where it stops making sense, if it
/// does.
pub(super) fn users(text: &str) -> (Vec<(String, String)>, Option<usize>) {
    let mut users = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        match user(line) {
            Some(user) => users.push(user),
            None => return (users, Some(number)),
        }
    }
    (users, None)
}

fn user(line: &str) -> Option<(String, String)> {
    let (name, rest) = unquote(line.strip_prefix('"')?, '"')?;
    let (_, secret) = rest.split_once('"')?;
    let (secret, _) = unquote(secret, '"')?;
    Some((name, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn pairs_are_read_as_pgbouncer_reads_them() {
        assert_eq!(pairs(""), Some(Vec::new()));
        assert_eq!(pairs("host=h  port = 5433"), Some(of(&[("host", "h"), ("port", "5433")])));
        assert_eq!(pairs("password='it''s = x' user=u"), Some(of(&[("password", "it's = x"), ("user", "u")])));
        for broken in ["host", "host=", "=h", "a b=c", "password='x"] {
            assert_eq!(pairs(broken), None, "{broken}");
        }
    }

    #[test]
    fn users_are_read_as_pgbouncer_reads_them() {
        let text = "; comment\n\n\"web\" \"s3cret\" \"\"\n\"a \"\"b\"\"\" \"p\"\"w\"\n\"empty\" \"\"\n";
        let expected = of(&[("web", "s3cret"), ("a \"b\"", "p\"w"), ("empty", "")]);
        assert_eq!(users(text), (expected, None));
        assert_eq!(users("\"a\" \"b\"\nc d\n\"e\" \"f\"\n"), (of(&[("a", "b")]), Some(2)));
        assert_eq!(users("\"a\""), (Vec::new(), Some(1)));
    }
}
