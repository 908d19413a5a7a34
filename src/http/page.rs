//! The shell of every page, served or in a file of its own, and what goes out with one that is
//! served. Knows nothing of what stands on it.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Where a page has its style and script.
#[derive(Debug, Clone, Copy)]
pub enum PageKind<'a> {
    /// In a file that loads nothing: the style stands in it, and `policy` forbids the rest.
    File { style: &'a str, policy: &'a str },
    /// Served, with both beside it.
    Served { style: &'a str, script: Option<&'a str> },
}

/// A whole page. `body`: the element of that name.
#[must_use]
pub fn document(title: &str, kind: PageKind, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if let PageKind::Served { .. } = kind { meta name="robots" content="noindex"; }
                meta name="color-scheme" content="light dark";
                @if let PageKind::File { policy, .. } = kind {
                    meta http-equiv="Content-Security-Policy" content=(policy);
                }
                title { (title) }
                @match kind {
                    PageKind::File { style, .. } => { style { (PreEscaped(style)) } }
                    PageKind::Served { style, script } => {
                        link rel="stylesheet" href=(style);
                        @if let Some(script) = script { script src=(script) defer {} }
                    }
                }
            }
            (body)
        }
    }
}

/// The page that a link leads to: it goes on by itself, as a strict cookie is not sent along when
/// another page led here and this one only redirects.
#[must_use]
pub fn go_on(place: &str, style: &str) -> Markup {
    let body = html! { body.plain { main { p { a href=(place) { "Go on" } } } } };
    document("preflow", PageKind::Served { style, script: None }, &body)
}

/// Puts on what every answer carries. `policy`: what the page may load, and from where.
pub fn dress(headers: &mut HeaderMap, policy: &'static str) {
    let all: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
