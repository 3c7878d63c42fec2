//! Reads the tables of Go's test files: literals, calls, names. It is no parser of Go: whatever else stands in a file is
//! passed over, and a value that cannot be read says so where it is used.

use std::collections::HashMap;

/// A piece of source.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number(String),
    Sign(char),
}

/// A value as it is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Go {
    Text(String),
    Number(String),
    /// A name, with dots.
    Name(String),
    Call(Box<Go>, Vec<Go>),
    /// A type's text and its members; those of maps and structs have a name.
    Literal(String, Vec<(Option<Go>, Go)>),
    /// The body of a function.
    Function(Body),
}

/// The source between a function's braces.
#[derive(Clone, Debug, PartialEq)]
pub struct Body(Vec<Token>);

/// What a file declares.
#[derive(Debug, Default)]
pub struct File {
    /// `var` and `const` by name.
    pub values: HashMap<String, Go>,
    /// Functions by name, with the names of their parameters.
    pub functions: HashMap<String, (Vec<String>, Body)>,
}

pub fn read(source: &str) -> File {
    let tokens = tokens(source);
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
    };
    let mut file = File::default();
    while let Some(token) = reader.peek().cloned() {
        match token {
            Token::Word(word) if word == "func" => reader.function(&mut file),
            Token::Word(word) if word == "var" || word == "const" => reader.values(&mut file),
            _ => reader.at += 1,
        }
    }
    file
}

impl Body {
    /// What `name :=` and `name =` give names in the body, the last first.
    pub fn locals(&self) -> HashMap<String, Go> {
        let mut locals = HashMap::new();
        for at in 0..self.0.len() {
            let (Some(Token::Word(name)), Some(Token::Sign(':')), Some(Token::Sign('='))) =
                (self.0.get(at), self.0.get(at + 1), self.0.get(at + 2))
            else {
                continue;
            };
            let mut reader = Reader {
                tokens: &self.0,
                at: at + 3,
            };
            if let Some(value) = reader.value() {
                locals.insert(name.clone(), value);
            }
        }
        locals
    }

    /// The arguments of every call of `name` (with dots), and whether an error is what the call is wanted to give.
    pub fn calls(&self, name: &str) -> Vec<(Vec<Go>, bool)> {
        let wanted: Vec<String> = name.split('.').map(str::to_owned).collect();
        let mut calls = Vec::new();
        for at in 0..self.0.len() {
            let mut reader = Reader {
                tokens: &self.0,
                at,
            };
            if reader
                .dotted()
                .is_some_and(|name| name.ends_with(&wanted[..]))
                && reader.sign('(')
            {
                let arguments = reader.list(')');
                let fails = reader.sign('=') && reader.sign('=');
                calls.push((arguments.into_iter().map(|entry| entry.1).collect(), fails));
            }
        }
        calls
    }

    /// Every literal of a type in the body.
    pub fn literals(&self, of: &str) -> Vec<Go> {
        let mut found = Vec::new();
        for at in 0..self.0.len() {
            let mut reader = Reader {
                tokens: &self.0,
                at,
            };
            match reader.value() {
                Some(Go::Literal(name, members)) if name == of => {
                    found.push(Go::Literal(name, members));
                }
                _ => {}
            }
        }
        found
    }

    /// Whether the body names `word`.
    pub fn names(&self, word: &str) -> bool {
        self.0.contains(&Token::Word(word.to_owned()))
    }
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn sign(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(&Token::Sign(sign));
        self.at += usize::from(found);
        found
    }

    fn word(&mut self) -> Option<String> {
        let Some(Token::Word(word)) = self.peek() else {
            return None;
        };
        let word = word.clone();
        self.at += 1;
        Some(word)
    }

    fn dotted(&mut self) -> Option<Vec<String>> {
        let mut words = vec![self.word()?];
        while self.peek() == Some(&Token::Sign('.')) {
            self.at += 1;
            words.push(self.word()?);
        }
        Some(words)
    }

    /// Up to the sign that closes the one just read.
    fn until_closed(&mut self, open: char, close: char) -> Vec<Token> {
        let from = self.at;
        let mut depth = 1;
        while let Some(token) = self.peek() {
            depth += i32::from(*token == Token::Sign(open));
            depth -= i32::from(*token == Token::Sign(close));
            self.at += 1;
            if depth == 0 {
                return self.tokens[from..self.at - 1].to_vec();
            }
        }
        self.tokens[from..].to_vec()
    }

    fn function(&mut self, file: &mut File) {
        self.at += 1;
        let is_method = self.sign('(');
        if is_method {
            self.until_closed('(', ')');
        }
        let name = self.word().unwrap_or_default();
        let mut parameters = Vec::new();
        if self.sign('(') {
            let list = self.until_closed('(', ')');
            for (at, token) in list.iter().enumerate() {
                let first = at == 0 || list[at - 1] == Token::Sign(',');
                if let (true, Token::Word(word)) = (first, token) {
                    parameters.push(word.clone());
                }
            }
        }
        while self.peek().is_some_and(|token| *token != Token::Sign('{')) {
            self.at += 1;
        }
        if self.sign('{') {
            let body = Body(self.until_closed('{', '}'));
            if !is_method {
                file.functions.insert(name, (parameters, body));
            }
        }
    }

    fn values(&mut self, file: &mut File) {
        self.at += 1;
        let many = self.sign('(');
        loop {
            let Some(name) = self.word() else { return };
            while self.peek().is_some_and(|token| {
                !matches!(token, Token::Sign('=' | ')'))
                    && !matches!(token, Token::Word(word) if word == "func")
            }) {
                self.at += 1;
            }
            if self.sign('=')
                && let Some(value) = self.value()
            {
                file.values.insert(name, value);
            }
            if !many || self.sign(')') {
                return;
            }
        }
    }

    /// A value; texts that `+` joins are one.
    fn value(&mut self) -> Option<Go> {
        let mut value = self.operand()?;
        loop {
            if self.sign('(') {
                let arguments = self.list(')').into_iter().map(|entry| entry.1);
                value = Go::Call(Box::new(value), arguments.collect());
            } else if self.peek() == Some(&Token::Sign('+')) {
                self.at += 1;
                let (Go::Text(head), Go::Text(tail)) = (&value, self.operand()?) else {
                    return None;
                };
                value = Go::Text(format!("{head}{tail}"));
            } else {
                return Some(value);
            }
        }
    }

    fn operand(&mut self) -> Option<Go> {
        match self.peek()?.clone() {
            Token::Text(text) => {
                self.at += 1;
                Some(Go::Text(text))
            }
            Token::Number(number) => {
                self.at += 1;
                Some(Go::Number(number))
            }
            Token::Sign('&') => {
                self.at += 1;
                self.operand()
            }
            Token::Sign('-') => {
                self.at += 1;
                match self.operand()? {
                    Go::Number(number) => Some(Go::Number(format!("-{number}"))),
                    _ => None,
                }
            }
            Token::Sign('{') => self.members(String::new()),
            Token::Sign('[' | '*') => {
                let name = self.type_name()?;
                match self.peek() {
                    Some(Token::Sign('{')) => self.members(name),
                    _ => Some(Go::Name(name)),
                }
            }
            Token::Word(word) if word == "func" => self.closure(),
            Token::Word(_) => {
                let name = self.type_name()?;
                match self.peek() {
                    Some(Token::Sign('{')) if is_type(&name) => self.members(name),
                    _ => Some(Go::Name(name)),
                }
            }
            Token::Sign(_) => None,
        }
    }

    fn closure(&mut self) -> Option<Go> {
        while *self.peek()? != Token::Sign('{') {
            self.at += 1;
        }
        self.at += 1;
        Some(Go::Function(Body(self.until_closed('{', '}'))))
    }

    fn type_name(&mut self) -> Option<String> {
        let mut name = String::new();
        loop {
            if self.sign('*') {
                continue;
            }
            if !self.sign('[') {
                break;
            }
            let inner = self.until_closed('[', ']');
            name.push_str(if inner.is_empty() { "[]" } else { "map" });
        }
        let words = self.dotted()?;
        if words == ["map"] && self.sign('[') {
            self.until_closed('[', ']');
            return Some(format!("map {}", self.type_name()?));
        }
        if words == ["struct"] && self.sign('{') {
            self.until_closed('{', '}');
        }
        name.push_str(&words.join("."));
        Some(name)
    }

    fn members(&mut self, name: String) -> Option<Go> {
        self.at += 1;
        Some(Go::Literal(name, self.list('}')))
    }

    /// What commas part, with the names before colons. What cannot be read is a name `?`.
    fn list(&mut self, close: char) -> Vec<(Option<Go>, Go)> {
        let mut list = Vec::new();
        while self.at < self.tokens.len() && !self.sign(close) {
            let first = self.value_or_skip(close);
            if self.sign(':') {
                let value = self.value_or_skip(close);
                list.push((Some(first), value));
            } else {
                list.push((None, first));
            }
            self.sign(',');
        }
        list
    }

    fn value_or_skip(&mut self, close: char) -> Go {
        let from = self.at;
        let value = self.value();
        let ends = matches!(self.peek(), Some(Token::Sign(sign)) if *sign == ',' || *sign == ':' || *sign == close);
        if let (Some(value), true) = (value, ends) {
            return value;
        }
        self.at = from;
        while let Some(token) = self.peek().cloned() {
            match token {
                Token::Sign(',') => break,
                Token::Sign(sign) if sign == close => break,
                Token::Sign(open @ ('(' | '{' | '[')) => {
                    self.at += 1;
                    let closing = match open {
                        '(' => ')',
                        '{' => '}',
                        _ => ']',
                    };
                    self.until_closed(open, closing);
                }
                _ => self.at += 1,
            }
        }
        Go::Name("?".to_owned())
    }
}

/// Whether braces after the name begin a literal rather than a block.
fn is_type(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    name.starts_with("[]")
        || name.starts_with("map")
        || name == "struct"
        || last.starts_with(|letter: char| letter.is_ascii_uppercase())
        || last.ends_with("Case")
        || last.ends_with("Converter")
}

fn tokens(source: &str) -> Vec<Token> {
    let letters: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < letters.len() {
        let letter = letters[at];
        let next = letters.get(at + 1).copied();
        match letter {
            '/' if next == Some('/') => {
                while at < letters.len() && letters[at] != '\n' {
                    at += 1;
                }
            }
            '/' if next == Some('*') => {
                while at < letters.len()
                    && !(letters[at] == '*' && letters.get(at + 1) == Some(&'/'))
                {
                    at += 1;
                }
                at += 2;
            }
            '`' => {
                let end = (at + 1..letters.len()).find(|end| letters[*end] == '`');
                let end = end.unwrap_or(letters.len());
                tokens.push(Token::Text(letters[at + 1..end].iter().collect()));
                at = end + 1;
            }
            '"' => {
                let mut end = at + 1;
                while end < letters.len() && letters[end] != '"' {
                    end += 1 + usize::from(letters[end] == '\\');
                }
                let quoted: String = letters[at..=end].iter().collect();
                let text = serde_json::from_str(&quoted).unwrap_or(quoted);
                tokens.push(Token::Text(text));
                at = end + 1;
            }
            '\'' => {
                let step = if next == Some('\\') { 4 } else { 3 };
                at += step;
            }
            _ if letter.is_alphabetic() || letter == '_' => {
                let from = at;
                while at < letters.len() && (letters[at].is_alphanumeric() || letters[at] == '_') {
                    at += 1;
                }
                tokens.push(Token::Word(letters[from..at].iter().collect()));
            }
            _ if letter.is_ascii_digit() => {
                let from = at;
                while at < letters.len() && (letters[at].is_alphanumeric() || letters[at] == '.') {
                    at += 1;
                }
                tokens.push(Token::Number(letters[from..at].iter().collect()));
            }
            _ => {
                if !letter.is_whitespace() {
                    tokens.push(Token::Sign(letter));
                }
                at += 1;
            }
        }
    }
    tokens
}
