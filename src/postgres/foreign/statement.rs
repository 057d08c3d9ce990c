//! A definition of an archive as a syntax tree, and back.

use pg_query::protobuf::{DefElem, ParseResult, String as StringNode};
use pg_query::{DeparseOptions, Node, NodeEnum, ParserOptions};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::error::ForeignError;
use super::request::Changes;
use crate::postgres::archive::{Text, Toc, TocEntry};

/// Identifiers longer than this are cut by PostgreSQL's parser (`NAMEDATALEN`).
const LONGEST_IDENTIFIER: usize = 63;

/// How the definitions of one archive are read.
#[derive(Clone, Debug)]
pub(super) struct Dialect {
    options: ParserOptions,
    encoding: Option<String>,
}

/// A definition that has been parsed.
pub(super) struct Definition {
    /// The object, for errors.
    object: String,
    dialect: Dialect,
    /// The text was not UTF-8: each of its bytes stands as one letter, U+0000 to U+00FF.
    bytewise: bool,
    pub(super) tree: ParseResult,
}

impl Dialect {
    pub(super) fn of(toc: &Toc) -> Self {
        let options = if toc.standard_conforming_strings() {
            ParserOptions::DEFAULT
        } else {
            ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS
        };
        Self {
            options,
            encoding: toc.encoding().map(str::to_owned),
        }
    }

    /// Parses the definition of an entry.
    pub(super) fn parse(&self, entry: &TocEntry) -> Result<Definition, ForeignError> {
        let text = entry.definition.as_ref().map(Text::as_bytes).unwrap_or_default();
        if let Ok(sql) = std::str::from_utf8(text) {
            self.parse_text(sql, entry.label(), false)
        } else {
            let sql: String = text.iter().copied().map(char::from).collect();
            if has_long_words(&sql) {
                return Err(ForeignError::DefinitionUnreadable { object: entry.label() });
            }
            self.parse_text(&sql, entry.label(), true)
        }
    }

    /// Parses the definition of an entry that is being added.
    pub(super) fn parse_new(&self, sql: &str, object: &str) -> Result<Definition, ForeignError> {
        self.parse_text(sql, object.to_owned(), false)
    }

    fn parse_text(&self, sql: &str, object: String, bytewise: bool) -> Result<Definition, ForeignError> {
        match self.parse_sql(sql) {
            Ok(tree) => Ok(Definition {
                object,
                dialect: self.clone(),
                bytewise,
                tree,
            }),
            // The parser's message quotes the statement, which may hold a password.
            Err(_) => Err(ForeignError::DefinitionUnreadable { object }),
        }
    }

    /// Parses a statement that was made from one of the archive.
    pub(super) fn parse_sql(&self, sql: &str) -> Result<ParseResult, pg_query::Error> {
        pg_query::parse(sql, self.options).map(|parsed| parsed.protobuf)
    }
}

/// Spelled bytewise, an identifier grows, and the parser would cut it.
fn has_long_words(sql: &str) -> bool {
    sql.split('"')
        .any(|word| word.len() > LONGEST_IDENTIFIER && !word.is_ascii())
}

impl Definition {
    /// The statements of the definition.
    pub(super) fn statements(&self) -> impl Iterator<Item = &NodeEnum> {
        self.tree
            .stmts
            .iter()
            .filter_map(|raw| raw.stmt.as_ref()?.node.as_ref())
    }

    /// The statements of the definition, to be changed.
    pub(super) fn statements_mut(&mut self) -> impl Iterator<Item = &mut NodeEnum> {
        self.tree
            .stmts
            .iter_mut()
            .filter_map(|raw| raw.stmt.as_mut()?.node.as_mut())
    }

    /// The object in a few words.
    pub(super) fn object(&self) -> &str {
        &self.object
    }

    /// The error of a definition that is another statement than expected.
    pub(super) fn unexpected(&self) -> ForeignError {
        ForeignError::DefinitionUnexpected {
            object: self.object.clone(),
        }
    }

    /// The tree as SQL. What is written is parsed again, and must be the same tree.
    pub(super) fn to_sql(&self) -> Result<Text, ForeignError> {
        let failed = || ForeignError::RewriteChangesMore {
            object: self.object.clone(),
        };
        let sql = pg_query::deparse(&self.tree, DeparseOptions::default()).map_err(|_| failed())?;
        let again = pg_query::parse(&sql, self.dialect.options).map_err(|_| failed())?;
        if shape(&again.protobuf) != shape(&self.tree) {
            return Err(failed());
        }
        self.encode(&format!("{sql};\n"))
    }

    /// The text in the archive's encoding.
    fn encode(&self, sql: &str) -> Result<Text, ForeignError> {
        if !self.bytewise {
            return Ok(sql.into());
        }
        let bytes: Option<Vec<u8>> = sql.chars().map(|letter| u8::try_from(letter).ok()).collect();
        match bytes {
            Some(bytes) => Ok(bytes.into()),
            None => Err(self.not_in_encoding()),
        }
    }

    fn not_in_encoding(&self) -> ForeignError {
        ForeignError::ValueNotInEncoding {
            object: self.object.clone(),
            encoding: self.dialect.encoding.clone().unwrap_or_default(),
        }
    }

    /// Refuses a new text that the archive's encoding may spell with other bytes than UTF-8 does, or that PostgreSQL
    /// cannot store.
    pub(super) fn check_encoding(&self, text: &str) -> Result<(), ForeignError> {
        if text.contains('\0') {
            return Err(ForeignError::ValueWithNul {
                object: self.object.clone(),
            });
        }
        let utf8 = self
            .dialect
            .encoding
            .as_deref()
            .is_none_or(|encoding| encoding == "UTF8");
        if text.is_ascii() || (utf8 && !self.bytewise) {
            Ok(())
        } else {
            Err(self.not_in_encoding())
        }
    }

    /// Refuses changes whose values the archive's encoding may not have.
    pub(super) fn check_changes(&self, changes: &Changes) -> Result<(), ForeignError> {
        for (name, value) in &changes.set {
            self.check_encoding(name)?;
            self.check_encoding(value.expose_secret())?;
        }
        Ok(())
    }
}

/// A tree without what says where in the text its parts stood.
pub(super) fn shape(tree: &ParseResult) -> Value {
    let mut value = serde_json::to_value(tree).unwrap_or_default();
    forget_locations(&mut value);
    value
}

pub(super) fn forget_locations(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                !name.ends_with("location")
                    && !matches!(name.as_str(), "stmt_len" | "rexpr_list_start" | "rexpr_list_end")
            });
            fields.values_mut().for_each(forget_locations);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_locations),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Name and value of an option.
pub(super) fn option(node: &Node) -> Option<(&str, &str)> {
    let NodeEnum::DefElem(element) = node.node.as_ref()? else {
        return None;
    };
    match element.arg.as_ref()?.node.as_ref()? {
        NodeEnum::String(value) => Some((&element.defname, &value.sval)),
        _ => None,
    }
}

/// An option as the parser makes it.
pub(super) fn option_node(name: &str, value: &SecretString) -> Node {
    let argument = Node {
        node: Some(NodeEnum::String(StringNode {
            sval: value.expose_secret().to_owned(),
        })),
    };
    Node {
        node: Some(NodeEnum::DefElem(Box::new(DefElem {
            defnamespace: String::new(),
            defname: name.to_owned(),
            arg: Some(Box::new(argument)),
            defaction: pg_query::protobuf::DefElemAction::DefelemUnspec as i32,
            location: 0,
            arg_location: 0,
        }))),
    }
}

/// Changes a list of options in place: those that stay keep their order, new ones follow.
pub(super) fn change_options(options: &mut Vec<Node>, changes: &Changes) {
    options.retain(|node| option(node).is_none_or(|(name, _)| !changes.drop.contains(name)));
    let mut added = changes.set.clone();
    for node in options.iter_mut() {
        let replacement = option(node).and_then(|(name, _)| Some((name.to_owned(), added.remove(name)?)));
        if let Some((name, value)) = replacement {
            *node = option_node(&name, &value);
        }
    }
    options.extend(added.iter().map(|(name, value)| option_node(name, value)));
}
