//! As much of EDN, the notation of Jepsen's logs, as they use.

use std::{fmt, iter::Peekable, str::Chars};

use crate::model::Value;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edn {
    Nil,
    Integer(i64),
    Keyword(String),
    Text(String),
    Vector(Vec<Edn>),
    Map(Vec<(Edn, Edn)>),
}

/// Reads one value that fills the whole text.
pub(super) fn parse(text: &str) -> Result<Edn, String> {
    let mut chars = text.chars().peekable();
    let value = value(&mut chars)?;
    blank(&mut chars);
    match chars.next() {
        None => Ok(value),
        Some(more) => Err(format!("`{more}` after the end of `{value}`")),
    }
}

/// Commas are blanks in EDN.
fn blank(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
}

fn value(chars: &mut Peekable<Chars<'_>>) -> Result<Edn, String> {
    blank(chars);
    match chars.peek() {
        None => Err("a value is missing".into()),
        Some('"') => string(chars),
        Some('[') => Ok(Edn::Vector(sequence(chars, ']')?)),
        Some('{') => {
            let mut items = sequence(chars, '}')?.into_iter();
            let mut pairs = Vec::new();
            while let Some(name) = items.next() {
                let value = items.next().ok_or_else(|| format!("`{name}` has no value"))?;
                pairs.push((name, value));
            }
            Ok(Edn::Map(pairs))
        }
        Some(_) => word(chars),
    }
}

/// No line that makes sense is nested deeper: a map with a pair in it.
fn sequence(chars: &mut Peekable<Chars<'_>>, end: char) -> Result<Vec<Edn>, String> {
    let open = chars.next();
    let mut items = Vec::new();
    loop {
        blank(chars);
        match chars.peek() {
            None => return Err(format!("`{end}` is missing at the end")),
            Some(c) if *c == end => {
                chars.next();
                return Ok(items);
            }
            Some('{') => return Err("a map within another value".into()),
            Some('[') if open == Some('[') => return Err("a vector within a vector".into()),
            Some(_) => items.push(value(chars)?),
        }
    }
}

fn string(chars: &mut Peekable<Chars<'_>>) -> Result<Edn, String> {
    chars.next();
    let mut text = String::new();
    loop {
        match chars.next() {
            None => return Err("the string has no end: `\"` is missing".into()),
            Some('"') => return Ok(Edn::Text(text)),
            Some('\\') => match chars.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(c @ ('"' | '\\')) => text.push(c),
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!("`\\{other}` is none of \\n, \\t, \\r, \\\" and \\\\"));
                }
            },
            Some(c) => text.push(c),
        }
    }
}

fn word(chars: &mut Peekable<Chars<'_>>) -> Result<Edn, String> {
    let mut word = String::new();
    let ends = |c: &char| c.is_whitespace() || ",[]{}\"".contains(*c);
    while let Some(c) = chars.next_if(|c| !ends(c)) {
        word.push(c);
    }
    if let Some(keyword) = word.strip_prefix(':').filter(|keyword| !keyword.is_empty()) {
        return Ok(Edn::Keyword(keyword.to_owned()));
    }
    match &*word {
        "nil" => Ok(Edn::Nil),
        "" => Err(format!("`{}` where a value should be", chars.next().unwrap_or_default())),
        other => other.parse().map(Edn::Integer).map_err(|_| {
            format!("`{other}` is no value: give nil, a number, a \"string\", a :keyword or [a b]")
        }),
    }
}

impl Edn {
    pub(super) fn keyword(&self) -> Result<String, String> {
        match self {
            Edn::Keyword(word) => Ok(word.clone()),
            other => Err(format!("`{other}` where a :keyword should be")),
        }
    }

    /// A value of a register or key; nil is none.
    pub(super) fn scalar(&self) -> Result<Value, String> {
        match self {
            Edn::Nil => Ok(None),
            Edn::Integer(number) => Ok(Some(number.to_string().into())),
            Edn::Text(text) => Ok(Some(text.as_str().into())),
            other => Err(format!("`{other}` where a value should be")),
        }
    }

    /// What a compare-and-set expects, and what it sets.
    pub(super) fn pair(&self) -> Result<(Value, Value), String> {
        match self {
            Edn::Vector(items) if items.len() == 2 => Ok((items[0].scalar()?, items[1].scalar()?)),
            other => Err(format!("`{other}` where [expected new] should be")),
        }
    }
}

impl fmt::Display for Edn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Edn::Nil => f.write_str("nil"),
            Edn::Integer(number) => write!(f, "{number}"),
            Edn::Keyword(word) => write!(f, ":{word}"),
            Edn::Text(text) => write!(f, "{text:?}"),
            Edn::Vector(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", items.join(" "))
            }
            Edn::Map(_) => f.write_str("{...}"),
        }
    }
}
