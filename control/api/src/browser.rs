//! What only browsers do: they show the dashboard, carry a token in a WebSocket's subprotocol, and use a certificate of their
//! user's for whatever page asks, also one of another site.
//!
//! The subprotocol is Kubernetes' (`base64url.bearer.authorization.k8s.io.TOKEN`); the headers that tell of the asking site are
//! those of the Fetch standard (`Sec-Fetch-Site`, `Sec-Fetch-Mode`) and `Origin` of RFC 6454.

use crate::answer::Answer;
use crate::cluster;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_SECURITY_POLICY, HOST, HeaderName, LOCATION, ORIGIN,
    REFERRER_POLICY, SEC_WEBSOCKET_PROTOCOL, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use objects::{Reason, Status};

const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// A file of the dashboard. The page holds nothing of the cluster, so that everybody may have it: it is where one signs in.
pub fn dashboard(uri: &Uri, path: &str, headers: &HeaderMap) -> Result<Answer, Status> {
    if path.is_empty() && !uri.path().ends_with('/') {
        return Ok(to_dashboard());
    }
    let file = ::dashboard::file(path).ok_or_else(cluster::not_found)?;
    let mut answer = Answer::document(headers, file.content_type, file.bytes);
    answer.set(
        CONTENT_SECURITY_POLICY,
        ::dashboard::CONTENT_SECURITY_POLICY,
    );
    answer.set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    answer.set(REFERRER_POLICY, "no-referrer");
    answer.set(OPENER_POLICY, "same-origin");
    Ok(answer)
}

/// Whether who asks for `/` is a browser, which gets the dashboard instead of the list of paths.
pub fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// The way to the dashboard, from `/` and `/dashboard`; relative, since a proxy may serve all of it below another path.
pub fn to_dashboard() -> Answer {
    let mut answer = Answer::text(StatusCode::FOUND, "dashboard/\n");
    answer.set(LOCATION, "dashboard/");
    answer
}

/// Makes a bearer token of a WebSocket's subprotocol what it is elsewhere, the header `Authorization`, and takes it out of the
/// list: what follows neither logs it nor passes it on to a node.
pub fn take_token(headers: &mut HeaderMap) {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let names: Vec<&str> = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let (tokens, others): (Vec<&str>, Vec<&str>) = names
        .into_iter()
        .partition(|name| name.starts_with(TOKEN_PROTOCOL));
    let Some(token) = tokens.first() else {
        return;
    };
    let token = URL_SAFE_NO_PAD
        .decode(token[TOKEN_PROTOCOL.len()..].trim_end_matches('='))
        .ok()
        .and_then(|token| HeaderValue::from_bytes(&[b"Bearer ", &token[..]].concat()).ok());
    let others = HeaderValue::from_str(&others.join(", ")).ok();
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    }
    if let Some(mut token) = token.filter(|_| !headers.contains_key(AUTHORIZATION)) {
        token.set_sensitive(true);
        headers.insert(AUTHORIZATION, token);
    }
}

/// 403 for what the page of another site makes a browser ask: the certificate says who sits before it, not that he wants this.
/// A link that is followed is no harm, since it only reads and the other page does not see the answer.
pub fn refuse_other_sites(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Status> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let follows_link = reads && text(&FETCH_MODE) == Some("navigate");
    let is_other_site = matches!(text(&FETCH_SITE), Some("cross-site" | "same-site"));
    let host = uri.authority().map(|authority| authority.as_str());
    let host = host.or_else(|| text(&HOST)).unwrap_or_default();
    let is_other_origin = text(&ORIGIN).is_some_and(|origin| {
        let authority = origin
            .split_once("://")
            .map_or(origin, |(_, authority)| authority);
        without_default_port(authority) != without_default_port(host)
    });
    if (is_other_site || is_other_origin) && !follows_link {
        return Err(Status::failure(
            403,
            Reason::Forbidden,
            "forbidden: a page of another site asked for this with your certificate; use this server's own page, or send a token",
        ));
    }
    Ok(())
}

fn without_default_port(authority: &str) -> &str {
    authority.strip_suffix(":443").unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use http::request::Parts;

    fn asked(method: &str, uri: &str, lines: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn refused(parts: &Parts) -> Result<(), Status> {
        refuse_other_sites(&parts.method, &parts.uri, &parts.headers)
    }

    #[test]
    fn a_subprotocol_carries_the_token() {
        let offered =
            "base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io, v4.channel.k8s.io";
        let mut headers = asked("GET", "/", &[("sec-websocket-protocol", offered)]).headers;
        take_token(&mut headers);
        assert_eq!(headers[AUTHORIZATION], "Bearer secret");
        assert_eq!(
            headers[SEC_WEBSOCKET_PROTOCOL],
            "v5.channel.k8s.io, v4.channel.k8s.io"
        );

        let alone = "base64url.bearer.authorization.k8s.io.!!";
        let mut headers = asked("GET", "/", &[("sec-websocket-protocol", alone)]).headers;
        take_token(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn only_the_own_page_may_ask_with_a_certificate() {
        let own = ("host", "10.0.0.1:6443");
        for (method, lines) in [
            ("POST", vec![]), // kubectl
            (
                "POST",
                vec![
                    ("sec-fetch-site", "same-origin"),
                    ("origin", "https://10.0.0.1:6443"),
                ],
            ),
            (
                "GET",
                vec![("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
            ),
            (
                "GET",
                vec![
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                ],
            ),
        ] {
            let parts = asked(method, "/api", &[&[own], &lines[..]].concat());
            assert!(refused(&parts).is_ok(), "{lines:?}");
        }
        for (method, lines) in [
            ("POST", vec![("origin", "https://evil.example")]),
            ("POST", vec![("origin", "null")]),
            (
                "GET",
                vec![
                    ("origin", "https://10.0.0.1:8443"),
                    ("upgrade", "websocket"),
                ],
            ),
            (
                "POST",
                vec![
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                ],
            ),
            (
                "GET",
                vec![("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")],
            ),
        ] {
            let parts = asked(method, "/api", &[&[own], &lines[..]].concat());
            assert_eq!(
                refused(&parts).expect_err("another site").code,
                403,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn over_http2_the_host_is_in_the_uri() {
        let origin = [("origin", "https://api.example")];
        assert!(refused(&asked("POST", "https://api.example:443/api", &origin)).is_ok());
        assert!(refused(&asked("POST", "https://other.example/api", &origin)).is_err());
    }
}
