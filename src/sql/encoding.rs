//! Names of encodings, and which of them the lexer may take for ASCII with something added.

/// How long the characters of an encoding are, as far as the lexer has to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EncodingFamily {
    /// Every byte below 0x80 is the ASCII character, wherever it stands.
    #[default]
    AsciiSafe,
    /// SJIS and SHIFT_JIS_2004.
    Sjis,
    /// BIG5, GBK and UHC.
    TwoBytes,
    /// JOHAB.
    Johab,
    /// GB18030: two or four bytes.
    Gb18030,
}

/// A name as `clean_encoding_name` compares it, with one name for UTF8.
pub(crate) fn folded_encoding(name: &str) -> String {
    let folded: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    if folded == "unicode" { "utf8".to_owned() } else { folded }
}

/// The family of an encoding. In those of `pg_enc` that only clients have, the second byte of a character may look like
/// ASCII; their names are folded here, with their aliases (`pg_encname_tbl`).
pub(crate) fn encoding_family(name: &str) -> EncodingFamily {
    match folded_encoding(name).as_str() {
        "sjis" | "mskanji" | "shiftjis" | "win932" | "windows932" | "shiftjis2004" => EncodingFamily::Sjis,
        "big5" | "win950" | "windows950" | "gbk" | "win936" | "windows936" | "uhc" | "win949" | "windows949" => {
            EncodingFamily::TwoBytes
        }
        "gb18030" => EncodingFamily::Gb18030,
        "johab" => EncodingFamily::Johab,
        _ => EncodingFamily::AsciiSafe,
    }
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
            assert_ne!(encoding_family(name), EncodingFamily::AsciiSafe, "{name}");
        }
        for name in ["EUC_JP", "UTF8", "LATIN1"] {
            assert_eq!(encoding_family(name), EncodingFamily::AsciiSafe, "{name}");
        }
    }
}
