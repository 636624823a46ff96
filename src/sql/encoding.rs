//! Names of encodings, and which of them the lexer may take for ASCII with something added.

/// Encodings in which the second byte of a character may look like ASCII: those of `pg_enc` that only clients have,
/// folded and with their aliases (`pg_encname_tbl`).
const UNSAFE: [&str; 13] = [
    "sjis",
    "mskanji",
    "shiftjis",
    "win932",
    "windows932",
    "shiftjis2004",
    "big5",
    "win950",
    "gbk",
    "win936",
    "uhc",
    "gb18030",
    "johab",
];

/// A name as `clean_encoding_name` compares it, with one name for UTF8.
pub(crate) fn folded_encoding(name: &str) -> String {
    let folded: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    if folded == "unicode" { "utf8".to_owned() } else { folded }
}

/// Every byte below 0x80 is the ASCII character in this encoding.
pub(crate) fn is_ascii_safe(name: &str) -> bool {
    !UNSAFE.contains(&folded_encoding(name).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_the_same_however_it_is_spelled() {
        for name in ["UTF8", "utf-8", "'utf-8'", "Unicode"] {
            assert_eq!(folded_encoding(name), "utf8");
        }
        for name in ["SJIS", "SHIFT_JIS_2004", "Shift_JIS", "BIG5", "GBK", "UHC", "gb18030", "JOHAB"] {
            assert!(!is_ascii_safe(name), "{name}");
        }
        assert!(is_ascii_safe("EUC_JP") && is_ascii_safe("UTF8"));
    }
}
