//! What a client accepts: the `Accept` header, read once into the one view that is answered.
//!
//! Everything is answered as JSON: a client that prefers protobuf is given JSON, which all of Kubernetes' clients read by
//! the answer's `Content-Type`. Rule: apimachinery's media type parameters `as`, `v`, `g`.

use http::HeaderMap;
use http::header::ACCEPT;
use objects::{Reason, Status};

/// In which shape objects are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As they are.
    Object,
    /// As a `meta.k8s.io` Table of this version.
    Table(MetaVersion),
    /// As `PartialObjectMetadata`, or its list.
    Metadata(MetaVersion),
}

/// A version of `meta.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    /// `v1`
    V1,
    /// `v1beta1`
    V1Beta1,
}

impl MetaVersion {
    /// The `apiVersion` of what is answered.
    pub fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// In which shape discovery's roots are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryView {
    /// `APIVersions` and `APIGroupList`.
    Plain,
    /// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2`.
    V2,
    /// The same of `v2beta1`.
    V2Beta1,
}

impl DiscoveryView {
    /// The answer's `Content-Type`, which must repeat the parameters.
    pub fn content_type(self) -> &'static str {
        match self {
            DiscoveryView::Plain => "application/json",
            DiscoveryView::V2 => {
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            }
            DiscoveryView::V2Beta1 => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
        }
    }
}

/// Chooses the view of objects; 406 when nothing that the client accepts can be given.
pub fn object_view(headers: &HeaderMap) -> Result<View, Status> {
    choose(headers, View::Object, object_view_of)
}

/// The view of what is no object in the store and has neither columns nor metadata to show; 406 for who accepts only such.
pub fn plain_view(headers: &HeaderMap) -> Result<View, Status> {
    choose(headers, View::Object, |range| {
        object_view_of(range).filter(|view| *view == View::Object)
    })
}

/// Chooses the view of discovery.
pub fn discovery_view(headers: &HeaderMap) -> Result<DiscoveryView, Status> {
    choose(headers, DiscoveryView::Plain, discovery_view_of)
}

/// Whether the client takes one of `media_types` by its name.
pub fn accepts_any(headers: &HeaderMap, media_types: &[&str]) -> bool {
    let accepted = ranges(headers);
    accepted
        .iter()
        .any(|range| media_types.contains(&range.media_type.as_str()))
}

/// Whether the client takes gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(http::header::ACCEPT_ENCODING);
    codings
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|part| part == "q=0")
        })
}

fn object_view_of(range: &MediaRange) -> Option<View> {
    let wildcard = matches!(range.media_type.as_str(), "*/*" | "application/*");
    let known = matches!(
        range.media_type.as_str(),
        "application/json" | "application/vnd.kubernetes.protobuf"
    );
    if !wildcard && !known {
        return None;
    }
    let Some(kind) = range.parameter("as") else {
        return Some(View::Object);
    };
    let version = match range.parameter("v") {
        Some("v1") => MetaVersion::V1,
        Some("v1beta1") => MetaVersion::V1Beta1,
        _ => return None,
    };
    if range.parameter("g") != Some("meta.k8s.io") {
        return None;
    }
    match kind {
        "Table" => Some(View::Table(version)),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(View::Metadata(version)),
        _ => None,
    }
}

fn discovery_view_of(range: &MediaRange) -> Option<DiscoveryView> {
    match (range.parameter("as"), range.parameter("v")) {
        (Some("APIGroupDiscoveryList"), Some("v2")) => Some(DiscoveryView::V2),
        (Some("APIGroupDiscoveryList"), Some("v2beta1")) => Some(DiscoveryView::V2Beta1),
        (Some(_), _) => None,
        _ => object_view_of(range).map(|_| DiscoveryView::Plain),
    }
}

fn choose<T>(
    headers: &HeaderMap,
    absent: T,
    view_of: fn(&MediaRange) -> Option<T>,
) -> Result<T, Status> {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return Ok(absent);
    }
    ranges.iter().find_map(view_of).ok_or_else(|| {
        Status::failure(
            406,
            Reason::NotAcceptable,
            "only the following media types are accepted: application/json, application/vnd.kubernetes.protobuf",
        )
    })
}

/// One entry of an `Accept` header.
struct MediaRange {
    media_type: String,
    parameters: Vec<(String, String)>,
    /// Thousandths of its quality.
    quality: u32,
}

impl MediaRange {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().filter(|part| !part.is_empty())?;
        let parameters: Vec<(String, String)> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| {
                (
                    name.trim().to_ascii_lowercase(),
                    value.trim().trim_matches('"').to_owned(),
                )
            })
            .collect();
        let quality = parameters
            .iter()
            .find(|(name, _)| name == "q")
            .and_then(|(_, value)| value.parse::<f32>().ok())
            .map_or(1000, |quality| (quality.clamp(0.0, 1.0) * 1000.0) as u32);
        Some(MediaRange {
            media_type: media_type.to_ascii_lowercase(),
            parameters,
            quality,
        })
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What the client accepts, the most wanted first.
fn ranges(headers: &HeaderMap) -> Vec<MediaRange> {
    let mut ranges: Vec<MediaRange> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(MediaRange::parse)
        .filter(|range| range.quality > 0)
        .collect();
    ranges.sort_by_key(|range| std::cmp::Reverse(range.quality));
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, accept.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn views_are_chosen_as_recorded_clients_ask() {
        use MetaVersion::{V1, V1Beta1};
        let cases = [
            ("", Some(View::Object)),
            ("*/*", Some(View::Object)),
            ("application/json, */*;q=0.8", Some(View::Object)),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(View::Object),
            ),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some(View::Table(V1)),
            ),
            (
                "application/json;as=Table;v=v9;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                Some(View::Table(V1Beta1)),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some(View::Metadata(V1)),
            ),
            ("application/json;as=Nothing;v=v1;g=meta.k8s.io", None),
            ("text/html", None),
        ];
        for (accept, expected) in cases {
            assert_eq!(object_view(&headers(accept)).ok(), expected, "{accept}");
        }
    }

    #[test]
    fn discovery_is_aggregated_on_demand() {
        let new = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        for (accept, expected) in [
            (new, DiscoveryView::V2),
            (old, DiscoveryView::V2Beta1),
            ("application/json", DiscoveryView::Plain),
            ("*/*", DiscoveryView::Plain),
        ] {
            assert_eq!(
                discovery_view(&headers(accept)).expect("accepted"),
                expected
            );
        }
    }
}
