//! Connection strings as libpq reads and writes them: URIs and keyword/value pairs (manual, section "Connection
//! Strings"; libpq, `conninfo_uri_parse` and `conninfo_parse`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

/// Parameters by libpq's keywords. Host and port lists are comma-separated, as libpq takes them.
pub(crate) type Parameters = BTreeMap<String, String>;

/// A connection string that cannot be read. It never shows the string: a password may stand in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConninfoError {
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are not UTF-8.
    #[error("a percent-encoded part is broken (write `%` itself as %25)")]
    PercentEncoding,
    /// `[` without `]`, or something other than a port behind it.
    #[error("an IPv6 address is not closed by `]`")]
    Brackets,
    /// A query parameter or a pair without `=`.
    #[error("a parameter has no `=`")]
    MissingEquals,
    /// A quoted value that does not end.
    #[error("a quoted value does not end")]
    Unterminated,
}

/// Reads a URI or keyword/value pairs.
pub(crate) fn parse(text: &str) -> Result<Parameters, ConninfoError> {
    let uri = ["postgresql://", "postgres://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    uri.map_or_else(|| parse_pairs(text), parse_uri)
}

fn parse_uri(uri: &str) -> Result<Parameters, ConninfoError> {
    let mut parameters = Parameters::new();
    let mut rest = uri;
    // Credentials end at the first `@` that stands before any `/`.
    if let Some(at) = rest.find(['@', '/']).filter(|&at| rest[at..].starts_with('@')) {
        let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
        insert(&mut parameters, "user", user)?;
        insert(&mut parameters, "password", password)?;
        rest = &rest[at + 1..];
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    loop {
        let (host, after) = if let Some(inner) = rest.strip_prefix('[') {
            let (address, after) = inner.split_once(']').ok_or(ConninfoError::Brackets)?;
            if !after.is_empty() && !after.starts_with([':', '/', '?', ',']) {
                return Err(ConninfoError::Brackets);
            }
            (address, after)
        } else {
            split_before(rest, &[':', '/', '?', ','])
        };
        let (port, after) = after
            .strip_prefix(':')
            .map_or(("", after), |after| split_before(after, &['/', '?', ',']));
        hosts.push(decode(host)?);
        ports.push(decode(port)?);
        rest = after;
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => break,
        }
    }
    insert_list(&mut parameters, "host", &hosts);
    insert_list(&mut parameters, "port", &ports);
    if let Some(path) = rest.strip_prefix('/') {
        let (database, after) = split_before(path, &['?']);
        insert(&mut parameters, "dbname", database)?;
        rest = after;
    }
    let query = rest.strip_prefix('?').unwrap_or_default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or(ConninfoError::MissingEquals)?;
        match (decode(key)?.as_str(), decode(value)?) {
            // For URIs of JDBC, libpq takes this one word.
            ("ssl", value) if value == "true" => parameters.insert("sslmode".into(), "require".into()),
            (key, value) => parameters.insert(key.to_owned(), value),
        };
    }
    Ok(parameters)
}

fn split_before<'a>(text: &'a str, ends: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn insert(parameters: &mut Parameters, key: &str, encoded: &str) -> Result<(), ConninfoError> {
    if !encoded.is_empty() {
        parameters.insert(key.to_owned(), decode(encoded)?);
    }
    Ok(())
}

fn insert_list(parameters: &mut Parameters, key: &str, values: &[String]) {
    if values.iter().any(|value| !value.is_empty()) {
        parameters.insert(key.to_owned(), values.join(","));
    }
}

fn decode(encoded: &str) -> Result<String, ConninfoError> {
    let whole = encoded.match_indices('%').all(|(at, _)| {
        let digits = encoded.as_bytes().get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit) && digits != b"00")
    });
    if !whole {
        return Err(ConninfoError::PercentEncoding);
    }
    let decoded = percent_decode_str(encoded).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| ConninfoError::PercentEncoding)
}

fn parse_pairs(text: &str) -> Result<Parameters, ConninfoError> {
    let mut parameters = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or(ConninfoError::MissingEquals)?;
        if key.trim_end().contains(char::is_whitespace) {
            return Err(ConninfoError::MissingEquals);
        }
        let (value, after) = take_value(after.trim_start())?;
        parameters.insert(key.trim_end().to_owned(), value);
        rest = after.trim_start();
    }
    Ok(parameters)
}

fn take_value(text: &str) -> Result<(String, &str), ConninfoError> {
    let (quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let mut value = String::new();
    let mut letters = body.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            letter if !quoted && letter.is_whitespace() => return Ok((value, &body[at..])),
            letter => value.push(letter),
        }
    }
    if quoted {
        return Err(ConninfoError::Unterminated);
    }
    Ok((value, ""))
}

/// Writes keyword/value pairs, every value quoted.
pub(crate) fn render<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        let separator = if text.is_empty() { "" } else { " " };
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        let _ = write!(text, "{separator}{key}='{value}'");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn uris_are_read_as_libpq_reads_them() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("postgresql://", &[]),
            ("postgres://localhost", &[("host", "localhost")]),
            (
                "postgresql://app:p%40s%2Fs%3A@db.shop:5433/orders?sslmode=verify-full&connect_timeout=10",
                &[
                    ("connect_timeout", "10"),
                    ("dbname", "orders"),
                    ("host", "db.shop"),
                    ("password", "p@s/s:"),
                    ("port", "5433"),
                    ("sslmode", "verify-full"),
                    ("user", "app"),
                ],
            ),
            (
                "postgresql://postgres:x@cluster-rw.ns:5432/*",
                &[
                    ("dbname", "*"),
                    ("host", "cluster-rw.ns"),
                    ("password", "x"),
                    ("port", "5432"),
                    ("user", "postgres"),
                ],
            ),
            (
                "postgresql://a:1,b,[::1]:3/d",
                &[("dbname", "d"), ("host", "a,b,::1"), ("port", "1,,3")],
            ),
            (
                "postgresql://%2Ftmp%2Fsockets/d%20b?options=-c%20geqo%3Doff",
                &[("dbname", "d b"), ("host", "/tmp/sockets"), ("options", "-c geqo=off")],
            ),
            (
                "postgresql:///d?host=h&ssl=true",
                &[("dbname", "d"), ("host", "h"), ("sslmode", "require")],
            ),
        ];
        for (uri, expected) in cases {
            assert_eq!(parsed(uri), pairs(expected), "{uri}");
        }
    }

    #[test]
    fn broken_uris_are_refused_without_showing_them() {
        for (uri, error) in [
            ("postgresql://u:secret%zz@h", ConninfoError::PercentEncoding),
            ("postgresql://u:%00@h", ConninfoError::PercentEncoding),
            ("postgresql://[::1", ConninfoError::Brackets),
            ("postgresql://h/d?secret", ConninfoError::MissingEquals),
            ("host = h pass word=secret", ConninfoError::MissingEquals),
            ("password='secret", ConninfoError::Unterminated),
        ] {
            let found = parse(uri).unwrap_err();
            assert_eq!(found, error, "{uri}");
            assert!(!found.to_string().contains("secret"));
        }
    }

    #[test]
    fn keyword_value_pairs_come_back_as_they_were_written() {
        let values = [
            ("host", "a,b"),
            ("password", "it's a \\ b"),
            ("user", ""),
            ("dbname", "d\n=x"),
        ];
        let text = render(values);
        for (key, value) in values {
            assert_eq!(parse(&text).unwrap()[key], value, "{text}");
        }
        assert_eq!(parsed("host = h  user=a\\ b"), pairs(&[("host", "h"), ("user", "a b")]));
    }
}
