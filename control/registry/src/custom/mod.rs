//! Custom kinds: what follows from a CustomResourceDefinition. A definition becomes a row a version; from there on a custom kind is
//! served like any other. Rules: Kubernetes' documentation of custom resources.
//!
//! ```text
//!   definition · structural   whether a definition is valid
//!   schema                    its schema, read     shape    pruning and defaults
//!   check · format · rules    whether an object keeps to it, by limits and by expressions
//!   types                     who owns which fields of an object     columns · jsonpath   what is printed
//!   publish                   its schema in OpenAPI
//! ```

mod check;
mod columns;
mod cost;
mod definition;
mod format;
mod jsonpath;
mod publish;
mod rules;
mod schema;
mod shape;
mod structural;
mod types;

pub use columns::PrintedColumn;
pub use definition::{CLEANUP, Definitions};
pub use jsonpath::JsonPath;

use crate::apply;
use crate::strategy::{self, StrategyRef};
use crate::table::{self, ResourceDef, SubresourceDef};
use crate::{Faults, FieldValidation, Strategy, Verb};
use objects::{GroupVersionKind, Object, Status};
use schema::Schema;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// Where definitions are stored.
pub const GROUP: &str = "apiextensions.k8s.io";
/// Their plural.
pub const RESOURCE: &str = "customresourcedefinitions";

/// What the server knows of a version of a custom kind beyond its row.
pub struct Custom {
    schema: Schema,
    /// The schema as it was written, for publication.
    source: Value,
    /// Who owns which fields.
    types: apply::schema::Schema,
    /// What `kubectl get` prints beside the name.
    pub columns: Vec<PrintedColumn>,
    /// Where the numbers of the subresource `scale` are.
    pub scale: Option<ScalePaths>,
    /// The version that is stored, as `apiVersion`.
    pub stored_version: String,
    /// How versions become one another.
    pub conversion: Conversion,
    /// Whether what is stored may have to be changed before it is shown.
    pub changes_on_read: bool,
    /// Whether its definition is being deleted: nothing new is created then.
    pub is_ending: bool,
    has_status: bool,
    /// The version of the row to which objects belong.
    stored_row: String,
}

/// How an object of one version becomes one of another.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversion {
    /// Only `apiVersion` changes.
    None,
    /// A webhook is asked; its configuration is `spec.conversion.webhook` of the definition.
    Webhook(Value),
}

/// Where the numbers of the subresource `scale` are.
pub struct ScalePaths {
    /// The wanted replicas.
    pub spec_replicas: JsonPath,
    /// The replicas that are there.
    pub status_replicas: JsonPath,
    /// A text with the selector of what is counted.
    pub label_selector: Option<JsonPath>,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Custom({})", self.stored_version)
    }
}

/// The members that every object has, whatever its schema says.
pub(crate) fn is_of_every_object(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

/// The rows of a definition, one for each version that is served; none before it is established.
pub fn rows(definition: &Value) -> Vec<ResourceDef> {
    let spec = &definition["spec"];
    let is_established = condition(definition, "Established");
    if !is_established {
        return Vec::new();
    }
    let versions = spec["versions"].as_array().into_iter().flatten();
    let served = versions.filter(|version| version["served"] == true);
    served.map(|version| row(definition, version)).collect()
}

/// Whether a condition holds.
fn condition(definition: &Value, name: &str) -> bool {
    let conditions = definition
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == name && condition["status"] == "True")
}

fn row(definition: &Value, version: &Value) -> ResourceDef {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let text = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
    let (group, name) = (text(spec, "group"), text(version, "name"));
    let custom = Arc::new(Custom::of(definition, version));
    let kind = GroupVersionKind::new(&group, &name, &text(names, "kind"));
    ResourceDef {
        computed: false,
        resource: text(names, "plural"),
        singular: text(names, "singular"),
        list_kind: text(names, "listKind"),
        short_names: schema::texts(names.get("shortNames")),
        categories: schema::texts(names.get("categories")),
        namespaced: spec["scope"] == "Namespaced",
        verbs: table::ALL_VERBS.to_vec(),
        subresources: subresources(version, &kind),
        columns: table::PLAIN_COLUMNS,
        strategy: StrategyRef::Shared(Arc::new(Objects(custom.clone()))),
        field_selectors: custom_selectors(version),
        stored_as: None,
        kind: kind.kind,
        version: name,
        group,
        custom: Some(custom),
    }
}

fn subresources(version: &Value, kind: &GroupVersionKind) -> Vec<SubresourceDef> {
    let fields = vec![Verb::Get, Verb::Patch, Verb::Update];
    let wanted = &version["subresources"];
    let mut subresources = Vec::new();
    if wanted["status"].is_object() {
        subresources.push(SubresourceDef {
            name: "status".to_owned(),
            kind: kind.clone(),
            verbs: fields.clone(),
        });
    }
    if wanted["scale"].is_object() {
        subresources.push(SubresourceDef {
            name: "scale".to_owned(),
            kind: GroupVersionKind::new("autoscaling", "v1", "Scale"),
            verbs: fields,
        });
    }
    subresources
}

/// `spec.color` for `.spec.color`.
fn custom_selectors(version: &Value) -> Vec<String> {
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    let paths = fields.filter_map(|field| field["jsonPath"].as_str());
    paths
        .map(|path| path.trim_start_matches('.').to_owned())
        .collect()
}

/// The version that is stored if it is served, else the first that is.
fn stored_row(versions: &[Value]) -> &str {
    let served = || versions.iter().filter(|version| version["served"] == true);
    let stored = served().find(|version| version["storage"] == true);
    stored
        .or_else(|| served().next())
        .and_then(|version| version["name"].as_str())
        .unwrap_or_default()
}

impl Custom {
    fn of(definition: &Value, version: &Value) -> Custom {
        let spec = &definition["spec"];
        let source = version
            .pointer("/schema/openAPIV3Schema")
            .cloned()
            .unwrap_or_else(|| json!({"type": "object"}));
        let mut schema = Schema::read(&source);
        let validations = source.get("x-kubernetes-validations");
        schema.rules = rules::Rules::read(validations, &rules::root_shape(&schema));
        let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
        let stored = versions.iter().find(|version| version["storage"] == true);
        let stored = stored
            .and_then(|version| version["name"].as_str())
            .unwrap_or_default();
        let path = |name: &str| {
            let path = version
                .pointer(&format!("/subresources/scale/{name}"))?
                .as_str()?;
            JsonPath::parse(path).ok()
        };
        Custom {
            types: types::compile(&schema),
            columns: columns::read(version),
            scale: path("specReplicasPath")
                .zip(path("statusReplicasPath"))
                .map(|(spec_replicas, status_replicas)| ScalePaths {
                    spec_replicas,
                    status_replicas,
                    label_selector: path("labelSelectorPath"),
                }),
            stored_version: format!("{}/{stored}", spec["group"].as_str().unwrap_or_default()),
            conversion: match spec["conversion"]["strategy"].as_str() {
                Some("Webhook") => Conversion::Webhook(spec["conversion"]["webhook"].clone()),
                _ => Conversion::None,
            },
            changes_on_read: versions.len() > 1 || shape::has_defaults(&schema),
            is_ending: !definition
                .pointer("/metadata/deletionTimestamp")
                .is_none_or(Value::is_null),
            has_status: version["subresources"]["status"].is_object(),
            stored_row: stored_row(versions).to_owned(),
            schema,
            source,
        }
    }

    /// Brings a body into the form of the kind; answers with warnings. Unknown members are judged as by built-in kinds.
    pub fn accept(
        &self,
        kind: &GroupVersionKind,
        value: &mut Value,
        duplicates: &[String],
        mode: FieldValidation,
    ) -> Result<Vec<String>, Status> {
        let refused = |why: &str| {
            let GroupVersionKind { version, kind, .. } = kind;
            Err(Status::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
            )))
        };
        let pruned = shape::prune(&self.schema, value);
        if let Some(why) = pruned.wrong_type {
            return refused(&why);
        }
        shape::default(&self.schema, value);
        let mut told = duplicates.to_vec();
        told.extend(pruned.unknown);
        match mode {
            FieldValidation::Strict if !told.is_empty() => {
                refused(&format!("strict decoding error: {}", told.join(", ")))
            }
            FieldValidation::Warn => Ok(told),
            FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
        }
    }

    /// Gives a stored object what it lacks by its schema.
    pub fn default(&self, value: &mut Value) {
        shape::default(&self.schema, value);
    }

    /// Whether the row is that of the version that is stored; where that one is not served, the row that clients prefer stands for it.
    pub fn is_stored_by(&self, row: &ResourceDef) -> bool {
        self.stored_row == row.version
    }

    /// The type of the kind, for who owns which fields.
    pub fn r#type(&self) -> apply::schema::Type<'_> {
        types::root(&self.types)
    }

    /// The schema as OpenAPI publishes it, without the members of every object.
    pub(crate) fn published(&self) -> Value {
        publish::schema(&self.source)
    }

    fn judge(&self, object: &Object, old: Option<&Object>, faults: &mut Faults) {
        let value = object.to_value();
        let old = old.map(Object::to_value);
        let before = faults.clone();
        check::object(&self.schema, &value, old.as_ref(), faults);
        // Expressions rely on the schema, so that they are not asked of what breaks it.
        if *faults == before {
            rules::object(&self.schema, &value, old.as_ref(), faults);
        }
    }
}

/// The strategy of custom objects.
struct Objects(Arc<Custom>);

impl Strategy for Objects {
    fn validate_new(&self, object: &Object, faults: &mut Faults) {
        self.0.judge(object, None, faults);
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        self.0.judge(object, Some(old), faults);
    }

    fn validate_status(&self, object: &Object, old: &Object, faults: &mut Faults) {
        self.0.judge(object, Some(old), faults);
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn desire_differs(&self, object: &Object, old: &Object) -> bool {
        let is_desire = |name: &str| !(self.0.has_status && name == "status");
        let of = |object: &Object| {
            let mut body = object.body.clone();
            body.retain(|name, _| is_desire(name));
            body
        };
        of(object) != of(old)
    }

    fn field(&self, object: &Value, path: &str) -> String {
        strategy::field_text(object, path)
    }
}
