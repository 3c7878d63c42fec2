//! What the server serves as OpenAPI documents, out of the table and the types' facts. Never lists a kind by hand, and holds
//! no prose: a field's description is empty.
//!
//! Version 3, a document a group and version, is what clients read: kubectl for `explain`, for patches and for whether the
//! server validates fields. Version 2 is only there because older clients give up without it; its one path is a constant.
//! Formats: OpenAPI 3.0 with Kubernetes' extensions; gnostic's Protobuf form of version 2.

mod components;
mod paths;

use crate::Registry;
use crate::schema::Schemas;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// `GET /openapi/v2` as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`: swagger 2.0 with `/version/` alone.
pub const V2_PROTOBUF: [u8; 48] =
    *b"\x0a\x032.0\x12\x06\x0a\x01k\x12\x011B!\x12\x1f\x0a\x09/version/\x12\x12\x12\x10*\x0egetCodeVersion";

/// The media type of [`V2_PROTOBUF`] in answers. Clients ask with `@` in the place of the dot before `v1.0`, which is no media
/// type that Go can read back: an answer under that name makes kubectl 1.27 fail.
pub const V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The documents of one state of the table; made anew when the table changes.
#[derive(Debug)]
pub struct OpenApi {
    documents: BTreeMap<String, Document>,
    index: Bytes,
    v2: Bytes,
}

/// A document of a group and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// JSON.
    pub json: Bytes,
    /// Stands for the content: equal documents have equal hashes on every master. Its address holds it, so that clients may
    /// keep a document for ever.
    pub hash: String,
}

impl OpenApi {
    /// Writes the documents of every group and version of `registry`. `version` is that of the server, such as `v1.33.0`.
    pub fn new(registry: &Registry, version: &str) -> Self {
        let mut documents = BTreeMap::new();
        for (group, versions) in registry.groups() {
            for group_version in versions {
                let name = document_name(&group, &group_version);
                let document = document(registry, &group, &group_version, version);
                documents.insert(name, document);
            }
        }
        let index = index(&documents);
        OpenApi {
            documents,
            index,
            v2: v2(version),
        }
    }

    /// `GET /openapi/v3`.
    pub fn index(&self) -> &Bytes {
        &self.index
    }

    /// `GET /openapi/v3/NAME`, where NAME is `api/v1` or `apis/GROUP/VERSION`.
    pub fn document(&self, name: &str) -> Option<&Document> {
        self.documents.get(name)
    }

    /// `GET /openapi/v2` as JSON.
    pub fn v2_json(&self) -> &Bytes {
        &self.v2
    }
}

/// `api/v1` or `apis/apps/v1`: a group and version in paths.
fn document_name(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

fn document(registry: &Registry, group: &str, group_version: &str, version: &str) -> Document {
    let mut components = components::Components::new(Schemas::builtin(), group, group_version);
    let mut paths = Map::new();
    for row in registry.of_version(group, group_version) {
        paths::of_resource(row, &mut components, &mut paths);
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {"schemas": components.finish()},
    });
    let json = Bytes::from(document.to_string());
    let hash = hash(&json);
    Document { json, hash }
}

fn index(documents: &BTreeMap<String, Document>) -> Bytes {
    let addresses = documents.iter().map(|(name, document)| {
        let address = format!("/openapi/v3/{name}?hash={}", document.hash);
        (name.clone(), json!({"serverRelativeURL": address}))
    });
    Bytes::from(json!({"paths": addresses.collect::<Map<String, Value>>()}).to_string())
}

fn v2(version: &str) -> Bytes {
    let document = json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": {
            "/version/": {
                "get": {"operationId": "getCodeVersion", "responses": {"200": {"description": "OK"}}},
            },
        },
    });
    Bytes::from(document.to_string())
}

/// FNV-1a of 128 bits: documents are ours, so that nobody seeks collisions.
fn hash(bytes: &[u8]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = bytes.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(PRIME)
    });
    format!("{hash:032X}")
}

#[cfg(test)]
mod tests;
