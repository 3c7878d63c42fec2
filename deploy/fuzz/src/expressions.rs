//! Expressions in CEL, as whoever may write a custom resource's definition or a policy sends them.
//!
//! An input is an expression and, after a line `---`, the JSON of the object that it is about.

use cel::{AccessQuery, Authorizer, Budget, Decision, Environment, Inputs, ListKind, Shape};
use cel::{REQUEST_UNITS_MAX, compile};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static SHAPE: LazyLock<Shape> = LazyLock::new(|| {
    let named = Shape::object([
        ("name".to_owned(), Shape::String),
        ("port".to_owned(), Shape::Int),
    ]);
    let fields = [
        ("n", Shape::Int),
        ("d", Shape::Double),
        ("s", Shape::String),
        ("b", Shape::Bytes),
        ("at", Shape::Timestamp),
        ("for", Shape::Duration),
        ("set", Shape::List(Arc::new(Shape::String), ListKind::Set)),
        ("list", Shape::list(Shape::Int)),
        (
            "map-list",
            Shape::List(
                Arc::new(named.clone()),
                ListKind::Map(vec!["name".to_owned()]),
            ),
        ),
        ("map", Shape::Map(Arc::new(named))),
    ];
    Shape::object(fields.map(|(name, shape)| (name.to_owned(), shape)))
});

struct OnlyGets;

impl Authorizer for OnlyGets {
    fn decide(&self, query: &AccessQuery) -> Decision {
        Decision {
            allowed: query.verb == "get",
            reason: "only gets".to_owned(),
        }
    }
}

/// What is taken ends within what it may cost, and answers the same again.
pub fn cel(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (text, object) = text.split_once("\n---\n").unwrap_or((text, "null"));
    let object: Value = serde_json::from_str(object).unwrap_or_default();
    let environment = Environment::new()
        .variable("object", Shape::Any)
        .variable("self", SHAPE.clone())
        .variable("oldSelf", Shape::Optional(Arc::new(SHAPE.clone())))
        .authorizer();
    let program = match compile(text, &environment) {
        Ok(program) => program,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let (request, authorizer) = (AccessQuery::default(), OnlyGets);
    let typed = json!({"n": 1, "d": 0.5, "s": "a,b", "b": "YQ==", "at": "2026-01-01T00:00:00Z", "for": "1h",
        "set": ["a", "b"], "list": [1, 2], "map-list": [{"name": "a", "port": 1}], "map": {"k": {"name": "b", "port": 2}}});
    let inputs = Inputs::new()
        .json("object", &object)
        .typed("self", &typed, &SHAPE)
        .optional("oldSelf", object.is_object().then_some((&object, &*SHAPE)))
        .authorizer(&authorizer, &request);
    let answer = |budget: &mut Budget| program.eval(&inputs, budget);
    let (mut first, mut second) = (
        Budget::new(REQUEST_UNITS_MAX),
        Budget::new(REQUEST_UNITS_MAX),
    );
    assert_eq!(answer(&mut first), answer(&mut second), "{text:?}");
    assert_eq!(first, second, "{text:?}");
}
