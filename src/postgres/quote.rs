//! Quoting for SQL text where a parameter cannot stand: identifiers, and literals in utility statements.

/// A quoted identifier.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted literal that means the same whatever `standard_conforming_strings` says: one with a backslash becomes an
/// escape string (manual, section "String Constants with C-Style Escapes").
#[must_use]
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// A quoted name with its schema.
#[must_use]
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_with_quotes_and_backslashes_stay_one_token() {
        assert_eq!(identifier(r#"a "b".c"#), r#""a ""b"".c""#);
        assert_eq!(qualified("s.x", "t\"y"), r#""s.x"."t""y""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"c:\'x"), r"E'c:\\''x'");
    }
}
