//! From a text to a program that can be evaluated.

use crate::check;
use crate::shape::Shape;
use crate::{Budget, Error, Evaluation, Inputs};
use kube_cel::cel::IdedExpr;
use kube_cel::cel::parser::{ParseErrors, Parser};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The longest text of an expression, in bytes.
const TEXT_MAX: usize = 32 << 10;
/// How deep the tree of an expression may be: it is walked on the stack.
const DEPTH_MAX: usize = 100;
/// How deep it may be where texts count as if they were none: in a broken text the parser sees more than is meant.
const PARSED_DEPTH_MAX: usize = 1_000;
/// The parser's stack; it takes the deepest in a build without optimisation.
const PARSER_STACK_BYTES: usize = 64 << 20;

/// Why a text is no expression, as Kubernetes says it: `ERROR: <input>:1:6: ..` with the line and a mark below.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CompileError(pub(crate) String);

/// The variables that an expression may name, with what is known of their types.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub(crate) variables: BTreeMap<String, Shape>,
    pub(crate) authorizer: bool,
    /// The names below `variables`; None when there is no such variable.
    pub(crate) composed: Option<BTreeMap<String, Shape>>,
}

impl Environment {
    /// No variables.
    pub fn new() -> Self {
        Environment::default()
    }

    /// One more variable.
    #[must_use]
    pub fn variable(mut self, name: &str, shape: Shape) -> Self {
        self.variables.insert(name.to_owned(), shape);
        self
    }

    /// `authorizer` may be asked.
    #[must_use]
    pub fn authorizer(mut self) -> Self {
        self.authorizer = true;
        self
    }

    /// `variables` may be asked for what is [declared](Environment::declare).
    #[must_use]
    pub fn composed(mut self) -> Self {
        self.composed.get_or_insert_default();
        self
    }

    /// Declares `variables.NAME` as what a program answers.
    pub fn declare(&mut self, name: &str, program: &Program) {
        let composed = self.composed.get_or_insert_default();
        composed.insert(name.to_owned(), program.answer.clone());
    }
}

/// An expression, ready to be evaluated; plain data.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) expression: IdedExpr,
    text: String,
    answer: Shape,
}

impl Program {
    /// The text it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is known of the type of its answer.
    pub fn answer(&self) -> &Shape {
        &self.answer
    }

    /// Whether it names a variable.
    pub fn mentions(&self, variable: &str) -> bool {
        self.expression.references().has_variable(variable)
    }

    /// Evaluates it once; see [`Evaluation`] for several over the same inputs.
    pub fn eval(&self, inputs: &Inputs<'_>, budget: &mut Budget) -> Result<Json, Error> {
        Evaluation::new(inputs.clone(), budget).eval(self)
    }
}

/// Compiles an expression. What it names must be declared; fields that a declared type does not have are refused.
pub fn compile(text: &str, environment: &Environment) -> Result<Program, CompileError> {
    let expression = parse(text)?;
    let answer = check::check(text, &expression, environment)?;
    Ok(Program {
        expression,
        text: text.to_owned(),
        answer,
    })
}

fn parse(text: &str) -> Result<IdedExpr, CompileError> {
    if text.len() > TEXT_MAX {
        return Err(CompileError(format!(
            "ERROR: <input>:-1:0: expression code point size exceeds limit: size: {}, limit {TEXT_MAX}",
            text.len()
        )));
    }
    if depth_of(text, true) > DEPTH_MAX || depth_of(text, false) > PARSED_DEPTH_MAX {
        return Err(CompileError(format!(
            "ERROR: <input>:-1:0: expression recursion limit exceeded: {DEPTH_MAX}"
        )));
    }
    let parsed = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES);
        let parse = || {
            Parser::new()
                .enable_optional_syntax(true)
                .parse(text)
                .map_err(|errors| told(text, errors))
        };
        let thread = thread
            .spawn_scoped(scope, parse)
            .map_err(|error| error.to_string())?;
        thread.join().map_err(|_| "the parser failed".to_owned())
    });
    parsed.unwrap_or_else(|why| Err(CompileError(format!("ERROR: <input>:-1:0: {why}"))))
}

fn told(text: &str, errors: ParseErrors) -> CompileError {
    let lines = errors.errors.iter().map(|error| {
        let (line, column) = error.pos;
        let message = match error.msg.strip_prefix("Syntax error") {
            Some(_) => error.msg.clone(),
            None => format!("Syntax error: {}", error.msg),
        };
        error_text(text, line, column, &message)
    });
    let lines: Vec<String> = lines.collect();
    CompileError(lines.join("\n"))
}

/// About how deep the tree will be, never less than it is: an open bracket makes it one deeper, and so does each operator beside
/// those before it. `&&`, `||` and commas stand side by side. With `knows_texts` what stands in quotes is left aside.
fn depth_of(text: &str, knows_texts: bool) -> usize {
    let mut deepest = 0;
    let mut levels = vec![0_usize];
    let mut rest = text;
    let mut before = ' ';
    while let Some(letter) = rest.chars().next() {
        if knows_texts && matches!(letter, '\'' | '"') {
            rest = behind_text(rest, letter, matches!(before, 'r' | 'R'));
            before = letter;
            continue;
        }
        rest = &rest[letter.len_utf8()..];
        let last = levels.len() - 1;
        match letter {
            '(' | '[' | '{' => levels.push(0),
            ')' | ']' | '}' if last > 0 => {
                levels.pop();
                levels[last - 1] += 1;
            }
            ',' => levels[last] = 0,
            '&' | '|' if rest.starts_with(letter) => levels[last] = 0,
            '.' | '?' | ':' | '!' | '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' => {
                levels[last] += 1
            }
            _ => {}
        }
        before = letter;
        deepest = deepest.max(levels.iter().sum::<usize>() + levels.len());
    }
    deepest
}

/// What follows a text in quotes, single or threefold; nothing when it does not end.
fn behind_text(text: &str, quote: char, is_raw: bool) -> &str {
    let threefold = quote.to_string().repeat(3);
    let end = if text.starts_with(&threefold) {
        threefold
    } else {
        quote.to_string()
    };
    let mut rest = &text[end.len()..];
    while let Some(letter) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix(&end) {
            return behind;
        }
        rest = &rest[letter.len_utf8()..];
        if letter == '\\' && !is_raw {
            rest = rest
                .get(rest.chars().next().map_or(0, char::len_utf8)..)
                .unwrap_or_default();
        }
    }
    rest
}

/// An error with the line it is in and a mark below; `line` and `column` count from one.
pub(crate) fn error_text(text: &str, line: isize, column: isize, message: &str) -> String {
    let told = format!("ERROR: <input>:{line}:{column}: {message}");
    let at = usize::try_from(line - 1).ok();
    let Some(shown) = at.and_then(|at| text.lines().nth(at)) else {
        return told;
    };
    let dots = ".".repeat(usize::try_from(column - 1).unwrap_or(0));
    format!("{told}\n | {shown}\n | {dots}^")
}
