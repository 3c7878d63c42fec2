//! Stories of expressions: each line is evaluated over the variables that lines before it set. `UPDATE_EXPECT=1` rewrites the answers.

use cel::{
    AccessQuery, Authorizer, Budget, CALL_UNITS_MAX, Decision, Environment, Error, Evaluation,
    Inputs, ListKind, REQUEST_UNITS_MAX, Shape, compile,
};
use expect_test::expect_file;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// `NAME = JSON` sets a variable; `NAME : JSON` sets one by the types in the story's head; others are expressions.
fn check(story: &str) {
    let path = format!("{}/testdata/{story}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut variables: BTreeMap<String, (Value, Shape)> = BTreeMap::new();
    let mut told = String::new();
    for line in text.lines() {
        if line.starts_with("  ") {
            continue;
        }
        writeln!(told, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((name, json)) = line.split_once(" := ") {
            let json = serde_json::from_str(json).unwrap();
            let shape = match name {
                "self" | "oldSelf" => widget(),
                _ => Shape::Any,
            };
            variables.insert(name.to_owned(), (json, shape));
            continue;
        }
        for answer in answer(line, &variables).lines() {
            writeln!(told, "  {answer}").unwrap();
        }
    }
    expect_file![path].assert_eq(&told);
}

fn answer(expression: &str, variables: &BTreeMap<String, (Value, Shape)>) -> String {
    let mut environment = Environment::new().authorizer();
    let mut inputs = Inputs::new();
    for (name, (json, shape)) in variables {
        environment = environment.variable(name, shape.clone());
        inputs = inputs.typed(name, json, shape);
    }
    let query = AccessQuery {
        resource: "pods".into(),
        namespace: "default".into(),
        ..AccessQuery::default()
    };
    let inputs = inputs.authorizer(&OnlyGets, &query);
    let program = match compile(expression, &environment) {
        Ok(program) => program,
        Err(error) => return format!("{error}"),
    };
    match program.eval(&inputs, &mut Budget::new(REQUEST_UNITS_MAX)) {
        Ok(value) => value.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

struct OnlyGets;

impl Authorizer for OnlyGets {
    fn decide(&self, query: &AccessQuery) -> Decision {
        Decision {
            allowed: query.verb == "get",
            reason: format!("{} {}/{}", query.verb, query.namespace, query.resource),
        }
    }
}

fn widget() -> Shape {
    let field = |name: &str, shape: Shape| (name.to_owned(), shape);
    Shape::object([
        field("replicas", Shape::Int),
        field("ratio", Shape::Double),
        field("x-name", Shape::String),
        field("namespace", Shape::String),
        field("from", Shape::Timestamp),
        field("after", Shape::Duration),
        field("blob", Shape::Bytes),
        field("labels", Shape::Map(Arc::new(Shape::String))),
        field("list", Shape::list(Shape::Int)),
        field("set", Shape::List(Arc::new(Shape::String), ListKind::Set)),
        field(
            "ports",
            Shape::List(
                Arc::new(Shape::object([
                    field("name", Shape::String),
                    field("port", Shape::Int),
                ])),
                ListKind::Map(vec!["name".into()]),
            ),
        ),
    ])
}

#[test]
fn the_language() {
    check("language");
}

#[test]
fn types_from_schemas() {
    check("types");
}

#[test]
fn kubernetes_functions() {
    check("functions");
}

#[test]
fn what_does_not_compile() {
    check("refused");
}

#[test]
fn what_would_run_away() {
    check("budget");
}

#[test]
fn what_variables_stand_for_is_evaluated_once_and_when_asked() {
    let mut environment = Environment::new().variable("object", Shape::Any).composed();
    let mut variables = Vec::new();
    for (name, text) in [
        ("names", "object.names.map(name, name.upperAscii())"),
        ("bad", "object.missing"),
        ("count", "variables.names.size()"),
    ] {
        let program = compile(text, &environment).unwrap();
        environment.declare(name, &program);
        variables.push((name.to_owned(), program));
    }
    let object = json!({"names": ["a", "b"]});
    let inputs = Inputs::new().json("object", &object).composed(&variables);
    let mut budget = Budget::new(REQUEST_UNITS_MAX);
    let count = compile(
        "variables.count + variables.count == 4 && variables.names[1] == 'B'",
        &environment,
    )
    .unwrap();
    assert_eq!(count.answer(), &Shape::Bool);
    let mut evaluation = Evaluation::new(inputs, &mut budget);
    assert_eq!(evaluation.holds(&count), Ok(true));
    let bad = compile("variables.bad", &environment).unwrap();
    assert_eq!(
        evaluation.eval(&bad),
        Err(Error::Other("no such key: missing".into()))
    );
    let unknown = compile("variables.other", &environment)
        .unwrap_err()
        .to_string();
    assert!(unknown.contains("undefined field 'other'"), "{unknown}");
}

#[test]
fn a_budget_is_shared_and_never_overdrawn() {
    let list: Vec<u32> = (0..1_000).collect();
    let (list, environment) = (json!(list), Environment::new().variable("list", Shape::Any));
    let squares = compile("list.all(x, list.all(y, x + y >= 0))", &environment).unwrap();
    let inputs = Inputs::new().json("list", &list);
    let mut budget = Budget::new(CALL_UNITS_MAX + 500);
    assert_eq!(squares.eval(&inputs, &mut budget), Err(Error::Cost));
    assert_eq!(budget.left(), 500);
    let cheap = compile("list.size() == 1000", &environment).unwrap();
    assert_eq!(cheap.eval(&inputs, &mut budget), Ok(json!(true)));
    assert!(budget.left() < 500);
}

#[test]
fn the_deepest_expressions_that_are_taken_fit_a_small_stack() {
    let small = std::thread::Builder::new().stack_size(2 << 20);
    let run = small.spawn(|| {
        let environment = Environment::new().variable("x", Shape::Any);
        let depth = 98;
        for text in [
            vec!["1"; depth].join("+"),
            format!("x{}", ".a".repeat(depth)),
            format!("x{}", "[0]".repeat(depth)),
            vec!["x"; 2_000].join(" && "),
            format!("{}true", "!".repeat(depth)),
            format!("{}1{}", "(".repeat(depth), ")".repeat(depth)),
            format!("{}{}", "[".repeat(depth), "]".repeat(depth)),
            format!("{}{}", "{1:".repeat(depth / 2), "}".repeat(depth / 2)),
            format!("x{}", ".map(y, y)".repeat(depth / 2)),
            format!(
                "{}x{}",
                "x.map(y, ".repeat(depth / 2),
                ")".repeat(depth / 2)
            ),
            vec!["true ? 1 : "; depth / 2].concat() + "2",
        ] {
            let inputs = Inputs::new().json("x", &Value::Null);
            // Some of them are refused as too deep; none may overflow the stack.
            if let Ok(program) = compile(&text, &environment) {
                let _ = program.eval(&inputs, &mut Budget::new(REQUEST_UNITS_MAX));
            }
        }
        for broken in ["'\\q ", "r'\\' + ", "\'\'\' \' \'\'\' + ", "'"] {
            let text = format!("{broken}{}", "(".repeat(900));
            assert!(compile(&text, &environment).is_err(), "{broken}");
        }
        for text in ["1+", "-", "!", "(", "[", "x.", "x[", "1?1:", "{1:", "'a'+"] {
            assert!(
                compile(&text.repeat(3_000), &environment).is_err(),
                "{text}"
            );
        }
    });
    run.unwrap().join().unwrap();
}
