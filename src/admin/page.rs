//! The status page itself: one document with nothing from elsewhere. Its policy allows just its own style and script.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use ring::digest::{SHA256, digest};

const DOCUMENT: &str = include_str!("page/index.html");
const STYLESHEET: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

/// The document and its `Content-Security-Policy`.
#[derive(Debug)]
pub(super) struct StatusPage {
    pub(super) html: Bytes,
    pub(super) policy: HeaderValue,
}

impl StatusPage {
    pub(super) fn new() -> Self {
        let html = DOCUMENT.replace("/* style.css */", STYLESHEET).replace("/* script.js */", SCRIPT);
        let policy = format!(
            "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source(STYLESHEET),
            source(SCRIPT)
        );
        let policy = HeaderValue::try_from(policy).expect("ASCII");
        Self { html: Bytes::from(html), policy }
    }
}

/// The name of an inline text in a policy (CSP3: "hash-source").
fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_its_parts_are_those_its_policy_names() {
        let page = StatusPage::new();
        let html = std::str::from_utf8(&page.html).expect("text");
        let policy = page.policy.to_str().expect("ASCII");
        for tag in ["style", "script"] {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            assert_eq!(html.matches(&open).count(), 1, "{tag}");
            let (_, rest) = html.split_once(&open).expect("it begins");
            let (text, _) = rest.split_once(&close).expect("it ends");
            assert!(text.len() > 1000 && policy.contains(&source(text)), "{tag}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = StatusPage::new();
        let html = std::str::from_utf8(&page.html).expect("text");
        let html = html.replace("http://www.w3.org/2000/svg", "");
        for no in ["http:", "https:", "//cdn", "@import", "url(", "<iframe", "innerHTML", " style=\"", " onclick="] {
            assert!(!html.contains(no), "{no}");
        }
    }
}
