//! What comes before any object is looked at: a request's line, selectors, certificates, frames.

use api::input;
use http::{Method, Uri};
use objects::Status;
use objects::{FieldSelector, LabelSelector};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

/// `METHOD URI`.
pub fn paths(bytes: &[u8]) {
    let Some((method, uri)) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.split_once(' '))
    else {
        return;
    };
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), uri.parse::<Uri>()) else {
        return; // hyper answers 400 before anybody else sees it.
    };
    match input::request_line(&method, &uri) {
        Ok(Some(names)) => assert!(
            names.iter().all(|name| !name.contains('/')),
            "{names:?} are no names"
        ),
        Ok(None) => (),
        Err(status) => assert_clients_fault(&status),
    }
}

/// A label selector and, after a line's end, a field selector.
pub fn selectors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (labels, fields) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(selector) = LabelSelector::parse(labels) {
        let some = BTreeMap::from([
            ("app".to_owned(), "web".to_owned()),
            ("tier".to_owned(), String::new()),
        ]);
        let again = LabelSelector::parse(&selector.to_string());
        let again = again.unwrap_or_else(|error| {
            panic!(
                "{labels:?} is written as {:?}, which is none: {error}",
                selector.to_string()
            )
        });
        assert_eq!(selector.matches(&some), again.matches(&some), "{labels:?}");
        assert_eq!(
            selector.matches(&BTreeMap::new()),
            again.matches(&BTreeMap::new()),
            "{labels:?}"
        );
    }
    if let Ok(selector) = FieldSelector::parse(fields) {
        selector.matches_with(|_| "x".to_owned());
        selector.required("metadata.name");
    }
}

/// A client's certificate as TLS hands it over.
pub fn certificates(bytes: &[u8]) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let certificate = CertificateDer::from(bytes);
    let peer = api::Peer::new(address, Some(&[certificate]));
    if let Some(caller) = peer.caller {
        assert!(
            caller
                .groups
                .iter()
                .any(|group| group == "system:authenticated")
        );
    }
}

/// A bearer token and, after a line's end, the key set of the issuer that it may be of.
pub fn tokens(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (token, key_set) = text.split_once('\n').unwrap_or((text, "{}"));
    let key_set = serde_json::from_str(key_set).unwrap_or_default();
    let (signed, unsigned) = (input::token(token, &key_set), input::claims(token));
    for (user, groups) in [&signed, &unsigned].into_iter().flatten() {
        // Nobody's issuer makes users and groups of the cluster itself.
        let names = groups
            .iter()
            .filter(|group| *group != "system:authenticated");
        let mut names = names.chain([user]);
        assert!(
            names.all(|name| name.starts_with("oidc:")),
            "{user:?} {groups:?}"
        );
    }
    if signed.is_ok() {
        assert_eq!(signed, unsigned);
    }
}

/// What a client sends after an upgrade to SPDY; the first byte says how large the pieces are in which it comes.
pub fn spdy(bytes: &[u8]) {
    let (piece, frames) = bytes.split_first().map_or((1, bytes), |(first, rest)| {
        (usize::from(*first).max(1), rest)
    });
    // A frame that breaks the rules ends the session; what it says before that must not depend on how it came.
    let whole = streams::input::spdy(&[frames]);
    let pieces: Vec<&[u8]> = frames.chunks(piece).collect();
    assert_eq!(streams::input::spdy(&pieces), whole);
}

/// Whoever sent it is at fault, and is told so.
pub fn assert_clients_fault(status: &Status) {
    assert!(
        (400..500).contains(&status.code),
        "the server takes the blame: {status:?}"
    );
}
