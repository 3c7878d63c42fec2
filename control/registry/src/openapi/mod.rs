//! What the server serves as OpenAPI documents, out of the table and the types' facts. Never lists a kind by hand, and holds
//! no prose: what a type or a field is for is asked of a [`Describe`].
//!
//! Version 3, a document a group and version, is what clients read: kubectl for `explain`, for patches and for whether the
//! server validates fields. Version 2 holds the same for older clients, and is only made when one asks.
//! Formats: OpenAPI 3.0 with Kubernetes' extensions; gnostic's Protobuf form of version 2.

mod components;
mod gnostic;
mod paths;
mod v2;

use crate::schema::Schemas;
use crate::{Registry, ResourceDef};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The media type of version 2 as Protobuf in answers. Clients ask with `@` in the place of the dot before `v1.0`, which is no media
/// type that Go can read back: an answer under that name makes kubectl 1.27 fail.
pub const V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// What a type of Kubernetes, such as `io.k8s.api.core.v1.Pod`, or one of its fields is for; None where nobody says.
pub type Describe = fn(r#type: &str, field: Option<&str>) -> Option<&'static str>;

/// The documents of one state of the table; made anew when the table changes. Each is written when it is asked for: they are some
/// megabytes, of which most masters never serve any.
#[derive(Debug)]
pub struct OpenApi {
    documents: BTreeMap<String, Arc<Lazy>>,
    version: String,
    describe: Describe,
    index: OnceLock<Bytes>,
    v2: OnceLock<V2>,
}

/// A document that may not be written yet.
#[derive(Debug)]
struct Lazy {
    group: String,
    version: String,
    /// What it is written of.
    rows: Vec<Arc<ResourceDef>>,
    written: OnceLock<Document>,
    /// Known once it was written, if only for the index.
    hash: OnceLock<String>,
}

impl Lazy {
    /// What another server tells.
    fn foreign(document: &Document) -> Self {
        Lazy {
            group: String::new(),
            version: String::new(),
            rows: Vec::new(),
            hash: OnceLock::from(document.hash.clone()),
            written: OnceLock::from(document.clone()),
        }
    }
}

/// Version 2 in both forms.
#[derive(Debug)]
struct V2 {
    json: Document,
    protobuf: Document,
}

/// A document of a group and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The document.
    pub bytes: Bytes,
    /// Stands for the content: equal documents have equal hashes on every master. Its address holds it, so that clients may
    /// keep a document for ever.
    pub hash: String,
}

/// Documents of other servers, by name: `apis/GROUP/VERSION`.
pub type Foreign = BTreeMap<String, Document>;

impl OpenApi {
    /// The documents of every group and version of `registry`. `version` is that of the server, such as `v1.33.0`.
    pub fn new(registry: &Registry, version: &str, describe: Describe) -> Self {
        OpenApi::after(None, registry, version, describe, &Foreign::new())
    }

    /// As [`OpenApi::new`], with the documents of `before` whose rows are the same. What other servers tell of a group and version
    /// stands for what the table holds of it.
    pub fn after(
        before: Option<&OpenApi>,
        registry: &Registry,
        version: &str,
        describe: Describe,
        foreign: &Foreign,
    ) -> Self {
        let foreign_documents = foreign
            .iter()
            .map(|(name, document)| (name.clone(), Arc::new(Lazy::foreign(document))));
        let mut documents: BTreeMap<String, Arc<Lazy>> = foreign_documents.collect();
        for (group, versions) in registry.groups() {
            for group_version in versions {
                let name = document_name(&group, &group_version);
                if foreign.contains_key(&name) {
                    continue;
                }
                let rows = registry.of_version(&group, &group_version);
                let rows: Vec<_> = rows.cloned().collect();
                let known = before.and_then(|before| before.unchanged(&name, &rows));
                let document = known.unwrap_or_else(|| {
                    Arc::new(Lazy {
                        group: group.clone(),
                        version: group_version,
                        rows,
                        written: OnceLock::new(),
                        hash: OnceLock::new(),
                    })
                });
                documents.insert(name, document);
            }
        }
        OpenApi {
            documents,
            version: version.to_owned(),
            describe,
            index: OnceLock::new(),
            v2: OnceLock::new(),
        }
    }

    fn unchanged(&self, name: &str, rows: &[Arc<ResourceDef>]) -> Option<Arc<Lazy>> {
        let known = self.documents.get(name)?;
        let same = known.rows.len() == rows.len()
            && known
                .rows
                .iter()
                .zip(rows)
                .all(|(one, other)| Arc::ptr_eq(one, other));
        same.then(|| known.clone())
    }

    /// `GET /openapi/v3`. Names each document by its content, for which each is written once; none is kept for that.
    pub fn index(&self) -> &Bytes {
        self.index.get_or_init(|| {
            let addresses = self.documents.iter().map(|(name, document)| {
                let hash = document.hash.get_or_init(|| match document.written.get() {
                    Some(written) => written.hash.clone(),
                    None => self.write(document).hash,
                });
                let address = format!("/openapi/v3/{name}?hash={hash}");
                (name.clone(), json!({"serverRelativeURL": address}))
            });
            Bytes::from(json!({"paths": addresses.collect::<Map<String, Value>>()}).to_string())
        })
    }

    /// `GET /openapi/v3/NAME`, where NAME is `api/v1` or `apis/GROUP/VERSION`.
    pub fn document(&self, name: &str) -> Option<&Document> {
        let document = self.documents.get(name)?;
        Some(document.written.get_or_init(|| self.write(document)))
    }

    fn write(&self, document: &Lazy) -> Document {
        write(document, &self.version, self.describe)
    }

    /// `GET /openapi/v2` as JSON.
    pub fn v2_json(&self) -> &Document {
        &self.v2().json
    }

    /// `GET /openapi/v2` as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
    pub fn v2_protobuf(&self) -> &Document {
        &self.v2().protobuf
    }

    fn v2(&self) -> &V2 {
        self.v2.get_or_init(|| {
            let documents = self.documents.values();
            let documents: Vec<Value> = documents
                .map(|it| value(it, &self.version, self.describe))
                .collect();
            let document = v2::of_v3(documents.iter(), &self.version);
            V2 {
                json: Document::of(document.to_string().into_bytes()),
                protobuf: Document::of(gnostic::encode(&document)),
            }
        })
    }
}

/// `api/v1` or `apis/apps/v1`: a group and version in paths.
pub fn document_name(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

fn write(lazy: &Lazy, version: &str, describe: Describe) -> Document {
    Document::of(value(lazy, version, describe).to_string().into_bytes())
}

fn value(lazy: &Lazy, version: &str, describe: Describe) -> Value {
    // What another server tells follows from no rows.
    if let (true, Some(told)) = (lazy.rows.is_empty(), lazy.written.get()) {
        return serde_json::from_slice(&told.bytes).unwrap_or_default();
    }
    let mut components =
        components::Components::new(Schemas::builtin(), &lazy.group, &lazy.version, describe);
    let mut paths = Map::new();
    for row in &lazy.rows {
        components.know(row);
    }
    for row in &lazy.rows {
        paths::of_resource(row, &mut components, &mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {"schemas": components.finish()},
    })
}

impl Document {
    /// What another server answered; None for what is no JSON map.
    pub fn foreign(bytes: Bytes) -> Option<Self> {
        let read = serde_json::from_slice::<Map<String, Value>>(&bytes);
        read.ok().map(|_| Document {
            hash: hash(&bytes),
            bytes,
        })
    }

    fn of(bytes: Vec<u8>) -> Self {
        Document {
            hash: hash(&bytes),
            bytes: Bytes::from(bytes),
        }
    }
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
