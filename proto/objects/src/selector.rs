//! Selectors of objects by labels and by fields: their text forms in requests, and the `LabelSelector` of specs.
//! Never looks into an object itself: it is given labels, or a function that finds a field. Grammar and words: apimachinery's
//! `labels` and `fields` packages.

use crate::names;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Which labels an object must have. The empty selector takes every object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSelector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold of it.
    pub operator: Operator,
    /// The values that the operator compares with.
    pub values: BTreeSet<String>,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The label exists and has one of the values.
    In,
    /// The label does not exist, or has none of the values.
    NotIn,
    /// The label exists.
    Exists,
    /// The label does not exist.
    DoesNotExist,
    /// The label is an integer above the value.
    Greater,
    /// The label is an integer below the value.
    Less,
}

/// Why a selector cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text breaks the grammar.
    #[error("unable to parse requirement: {0}")]
    Grammar(String),
    /// A key, a value or an operator is wrong.
    #[error("{0}")]
    Requirement(String),
}

impl LabelSelector {
    /// Reads the text of a request: `app=web,tier in (a, b),!canary`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser {
            tokens: tokens(text),
            at: 0,
        }
        .selector()
    }

    /// Reads a spec's `LabelSelector`: `matchLabels` and `matchExpressions`. None selects nothing.
    pub fn from_value(value: &Value) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in value
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let value = value.as_str().unwrap_or_default();
            requirements.push(Requirement::new(key, Operator::In, [value.to_owned()])?);
        }
        for expression in value
            .get("matchExpressions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            requirements.push(Requirement::from_expression(expression)?);
        }
        requirements.sort();
        Ok(LabelSelector { requirements })
    }

    /// Takes objects that have all these labels; Services and their like select so.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: BTreeSet::from([value.clone()]),
        };
        LabelSelector {
            requirements: labels.into_iter().map(equals).collect(),
        }
    }

    /// Whether it takes every object.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether it takes an object with these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether it takes an object whose labels are a JSON map.
    pub fn matches_map(&self, labels: &Map<String, Value>) -> bool {
        self.matches_with(|key| labels.get(key).and_then(Value::as_str))
    }

    /// Whether it takes an object whose labels `label` looks up.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.holds(label(&requirement.key)))
    }
}

/// The text form, with requirements in order of their keys.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort();
        for (index, requirement) in sorted.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl Requirement {
    /// Checks key, values and their number, and makes the requirement.
    pub fn new(
        key: &str,
        operator: Operator,
        values: impl IntoIterator<Item = String>,
    ) -> Result<Self, SelectorError> {
        let values: BTreeSet<String> = values.into_iter().collect();
        if let Some(fault) = names::qualified_name(key).first() {
            return Err(SelectorError::Requirement(format!(
                "key: Invalid value: {key:?}: {fault}"
            )));
        }
        let wrong_count = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::Greater | Operator::Less if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(fault) = wrong_count {
            return Err(SelectorError::Requirement(format!(
                "values: Invalid value: {values:?}: {fault}"
            )));
        }
        for value in &values {
            if let Some(fault) = names::label_value(value).first() {
                return Err(SelectorError::Requirement(format!(
                    "values[0][{key}]: Invalid value: {value:?}: {fault}"
                )));
            }
            if matches!(operator, Operator::Greater | Operator::Less)
                && value.parse::<i64>().is_err()
            {
                return Err(SelectorError::Requirement(format!(
                    "values[0][{key}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                )));
            }
        }
        Ok(Requirement {
            key: key.to_owned(),
            operator,
            values,
        })
    }

    /// Reads one of `matchExpressions`, also those of node selectors, which know `Gt` and `Lt`.
    pub fn from_expression(expression: &Value) -> Result<Self, SelectorError> {
        let text = |field: &str| {
            expression
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let operator = match text("operator") {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Greater,
            "Lt" => Operator::Less,
            other => {
                return Err(SelectorError::Requirement(format!(
                    "{other:?} is not a valid label selector operator"
                )));
            }
        };
        let values = expression
            .get("values")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        Requirement::new(
            text("key"),
            operator,
            values.filter_map(Value::as_str).map(str::to_owned),
        )
    }

    /// Whether it holds of a label's value; None when the object has no such label.
    pub fn holds(&self, label: Option<&str>) -> bool {
        match self.operator {
            Operator::In => label.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => !label.is_some_and(|value| self.values.contains(value)),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::Greater => self
                .compare(label)
                .is_some_and(|(label, value)| label > value),
            Operator::Less => self
                .compare(label)
                .is_some_and(|(label, value)| label < value),
        }
    }

    fn compare(&self, label: Option<&str>) -> Option<(i64, i64)> {
        Some((label?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement {
            key,
            operator,
            values,
        } = self;
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        match (operator, &values[..]) {
            (Operator::In, [value]) => write!(f, "{key}={value}"),
            (Operator::NotIn, [value]) => write!(f, "{key}!={value}"),
            (Operator::In, values) => write!(f, "{key} in ({})", values.join(",")),
            (Operator::NotIn, values) => write!(f, "{key} notin ({})", values.join(",")),
            (Operator::Exists, _) => f.write_str(key),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::Greater, values) => write!(f, "{key}>{}", values.join(",")),
            (Operator::Less, values) => write!(f, "{key}<{}", values.join(",")),
        }
    }
}

/// Which fields an object must have. The empty selector takes every object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    /// All must hold.
    pub terms: Vec<FieldTerm>,
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldTerm {
    /// The field's path: `spec.nodeName`.
    pub field: String,
    /// Whether it must equal the value, or differ from it.
    pub equal: bool,
    /// The value.
    pub value: String,
}

impl FieldSelector {
    /// Reads the text of a request: `spec.nodeName=n1,status.phase!=Failed`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_terms(text).iter().filter(|term| !term.is_empty()) {
            let invalid = || {
                SelectorError::Requirement(format!(
                    "invalid selector: {text:?}; can't understand {term:?}"
                ))
            };
            terms.push(FieldTerm::parse(term).ok_or_else(invalid)?);
        }
        Ok(FieldSelector { terms })
    }

    /// Takes the one object of a name.
    pub fn by_name(name: &str) -> Self {
        let term = FieldTerm {
            field: "metadata.name".to_owned(),
            equal: true,
            value: name.to_owned(),
        };
        FieldSelector { terms: vec![term] }
    }

    /// Whether it takes every object.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether it takes an object whose fields `field` looks up; an absent field is the empty text.
    pub fn matches_with(&self, field: impl Fn(&str) -> String) -> bool {
        self.terms
            .iter()
            .all(|term| (field(&term.field) == term.value) == term.equal)
    }

    /// The value that `field` must equal, if the selector asks for one.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.field == field)
            .map(|term| term.value.as_str())
    }
}

impl FieldTerm {
    fn parse(term: &str) -> Option<Self> {
        let (at, operator) = ["!=", "==", "="]
            .iter()
            .filter_map(|operator| Some((term.find(operator)?, *operator)))
            .min_by_key(
                |(at, operator)| (*at, std::cmp::Reverse(operator.len())), // `==` before `=` at the same place.
            )?;
        let value = unescape(&term[at + operator.len()..])?;
        Some(FieldTerm {
            field: term[..at].to_owned(),
            equal: operator != "!=",
            value,
        })
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for letter in text.chars() {
        match letter {
            ',' if !escaped => {
                terms.push(String::new());
                continue;
            }
            _ => escaped = letter == '\\' && !escaped,
        }
        terms
            .last_mut()
            .expect("the list starts with one term")
            .push(letter);
    }
    terms
}

/// Undoes `\\`, `\,` and `\=`; None for any other escape and for a bare `=`.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.push(
                letters
                    .next()
                    .filter(|next| matches!(next, '\\' | ',' | '='))?,
            ),
            '=' => return None,
            _ => out.push(letter),
        }
    }
    Some(out)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(&'static str),
}

const SIGNS: [&str; 9] = ["!=", "==", "=", "!", ",", "(", ")", ">", "<"];

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else {
            let end = rest
                .find(|c: char| c.is_whitespace() || "!=,()<>".contains(c))
                .unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn selector(mut self) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Vec::new();
        while self.at < self.tokens.len() {
            requirements.push(self.requirement()?);
            match self.next() {
                None => break,
                Some(Token::Sign(",")) if self.at < self.tokens.len() => {}
                Some(Token::Sign(",")) => return Err(expected("", "identifier after ','")),
                Some(other) => return Err(expected(&shown(&other), "',' or 'end of string'")),
            }
        }
        requirements.sort();
        Ok(LabelSelector { requirements })
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek() == Some(&Token::Sign("!")) {
            self.at += 1;
            let key = self.word("identifier")?;
            return Requirement::new(&key, Operator::DoesNotExist, []);
        }
        let key = self.word("!, identifier, or 'end of string'")?;
        let operator = match self.peek() {
            None | Some(Token::Sign(",")) => return Requirement::new(&key, Operator::Exists, []),
            Some(token) => token.clone(),
        };
        self.at += 1;
        match operator {
            Token::Sign("=" | "==") => Requirement::new(&key, Operator::In, [self.value()?]),
            Token::Sign("!=") => Requirement::new(&key, Operator::NotIn, [self.value()?]),
            Token::Sign(">") => Requirement::new(&key, Operator::Greater, [self.value()?]),
            Token::Sign("<") => Requirement::new(&key, Operator::Less, [self.value()?]),
            Token::Word(word) if word == "in" => Requirement::new(&key, Operator::In, self.set()?),
            Token::Word(word) if word == "notin" => {
                Requirement::new(&key, Operator::NotIn, self.set()?)
            }
            other => Err(expected(&shown(&other), "in, notin, =, ==, !=, gt, lt")),
        }
    }

    /// A value, which may be empty before a comma or the end.
    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            None | Some(Token::Sign(",")) => Ok(String::new()),
            _ => self.word("identifier"),
        }
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Some(Token::Sign("(")) => {}
            other => {
                return Err(expected(
                    &other.as_ref().map(shown).unwrap_or_default(),
                    "'('",
                ));
            }
        }
        let mut values = vec![String::new()];
        loop {
            match self.next() {
                Some(Token::Sign(")")) => return Ok(values),
                Some(Token::Sign(",")) => values.push(String::new()),
                Some(Token::Word(word)) if values.last().is_some_and(String::is_empty) => {
                    *values.last_mut().expect("the list starts with one value") = word;
                }
                other => {
                    return Err(expected(
                        &other.as_ref().map(shown).unwrap_or_default(),
                        "',', ')' or identifier",
                    ));
                }
            }
        }
    }

    fn word(&mut self, what: &str) -> Result<String, SelectorError> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(expected(
                &other.as_ref().map(shown).unwrap_or_default(),
                what,
            )),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Word(word) => word.clone(),
        Token::Sign(sign) => (*sign).to_owned(),
    }
}

fn expected(found: &str, what: &str) -> SelectorError {
    SelectorError::Grammar(format!("found '{found}', expected: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn selects_by_label() {
        let web = labels(&[("app", "web"), ("n", "5")]);
        for text in [
            "",
            "app",
            "app=web",
            "app==web",
            "app in (web,db)",
            "!x",
            "x!=y",
            "x notin (y)",
            "n>4",
            "n<6",
            "app=web , n",
        ] {
            let selector = LabelSelector::parse(text).expect(text);
            assert!(selector.matches(&web), "{text}");
        }
        for text in [
            "!app",
            "app=",
            "app!=web",
            "app notin (web)",
            "x",
            "x in (y)",
            "n>5",
            "app=web,x",
        ] {
            let selector = LabelSelector::parse(text).expect(text);
            assert!(!selector.matches(&web), "{text}");
        }
    }

    #[test]
    fn refuses_broken_text() {
        for text in [
            "a b",
            "=",
            "a in",
            "a in b",
            "a in (b",
            ",",
            "a,",
            "a=b=c",
            "a/b/c",
            "a=-",
            "a>b",
            "a in (b c)",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
        let error = LabelSelector::parse("a b").expect_err("broken").to_string();
        assert_eq!(
            error,
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
        );
    }

    #[test]
    fn reads_the_struct_form() {
        let selector = LabelSelector::from_value(&json!({
            "matchLabels": {"b": "2"},
            "matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x", "y"]}, {"key": "c", "operator": "Exists"}],
        }))
        .expect("reads");
        assert_eq!(selector.to_string(), "a notin (x,y),b=2,c");
        assert!(
            LabelSelector::from_value(
                &json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})
            )
            .is_err()
        );
    }

    #[test]
    fn selects_by_field() {
        let selector = FieldSelector::parse(r"a=1,b!=2,c==x\,y").expect("parses");
        let fields = |field: &str| match field {
            "a" => "1".to_owned(),
            "c" => "x,y".to_owned(),
            _ => String::new(),
        };
        assert!(selector.matches_with(fields));
        assert_eq!(selector.required("a"), Some("1"));
        assert_eq!(selector.required("b"), None);
        assert!(FieldSelector::parse("").expect("empty").is_empty());
        assert!(FieldSelector::parse("a").is_err());
    }

    proptest! {
        #[test]
        fn text_round_trips(keys in proptest::collection::vec("[a-z]{1,5}", 1..4), values in proptest::collection::btree_set("[a-z]{1,3}", 1..4), operator in 0usize..4) {
            let operator = [Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist][operator];
            let values = if matches!(operator, Operator::In | Operator::NotIn) { values } else { BTreeSet::new() };
            let mut requirements: Vec<Requirement> =
                keys.iter().map(|key| Requirement::new(key, operator, values.clone()).expect("well formed")).collect();
            requirements.sort();
            let selector = LabelSelector { requirements };
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn never_panics(text in "[a-z/!=,() <>\\\\.-]{0,20}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }
    }
}
