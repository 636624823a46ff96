//! Whether an answer may be compressed, by the request's Accept-Encoding (RFC 9110 §12.5.3), and its compression.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::header::ACCEPT_ENCODING;

/// A weight in thousandths.
type Quality = u16;

const WHOLE: Quality = 1000;

/// Whether the client takes gzip, and would not rather have the text as it is. Without the header it gets the text.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for item in lists.flat_map(|list| list.split(',')) {
        let (coding, parameters) = item.split_once(';').map_or((item, None), |(coding, rest)| (coding, Some(rest)));
        // One with a weight that is none is as if it were not there.
        let Some(quality) = parameters.map_or(Some(WHOLE), weight) else { continue };
        let place = match coding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => &mut gzip,
            "identity" => &mut identity,
            "*" => &mut any,
            _ => continue,
        };
        *place = Some(quality);
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && identity.is_none_or(|identity| gzip >= identity)
}

/// `q=` and a number from 0 to 1 with at most three digits behind the point.
fn weight(parameter: &str) -> Option<Quality> {
    let (name, value) = parameter.split_once('=')?;
    let value = value.trim();
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    let is_number = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !name.trim().eq_ignore_ascii_case("q") || !is_number {
        return None;
    }
    let thousandths: Quality = format!("{part:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(WHOLE),
        _ => None,
    }
}

/// The fastest level: the text says the same names again and again, so more effort finds little more.
pub(super) fn compress(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 16), Compression::fast());
    encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).expect("memory takes everything")
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn is_wanted_by(lists: &[&'static str]) -> bool {
        let lists = lists.iter().map(|list| (ACCEPT_ENCODING, HeaderValue::from_static(list)));
        is_wanted(&lists.collect())
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        for list in ["gzip", "GZip ", "deflate, gzip;q=1.0, *;q=0.5", "*", "br;q=1, x-gzip; Q=0.001", "gzip , , br"] {
            assert!(is_wanted_by(&[list]), "{list}");
        }
        assert!(is_wanted_by(&["br", "gzip;q=0.5"]), "two headers are one list");
        assert!(is_wanted_by(&["identity;q=0.5, gzip;q=0.5"]));
        for list in ["", "br", "gzip;q=0", "gzip;q=0.000, *", "*;q=0", "identity", "identity, gzip;q=0.9"] {
            assert!(!is_wanted_by(&[list]), "{list}");
        }
        assert!(!is_wanted_by(&[]));
    }

    #[test]
    fn a_weight_that_is_none_makes_the_text_come_as_it_is() {
        for list in ["gzip;q=", "gzip;q=2", "gzip;q=1.001", "gzip;q=0.1234", "gzip;q=-1", "gzip;q=NaN", "gzip;level=9"]
        {
            assert!(!is_wanted_by(&[list]), "{list}");
        }
    }
}
