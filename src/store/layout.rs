//! Keys of the objects in a repository.

/// Prefix of everything that one snapshot has to itself.
#[must_use]
pub fn snapshot_prefix(snapshot: &str) -> String {
    format!("snapshots/{snapshot}/")
}

/// The commit of a snapshot: without it there is no backup.
#[must_use]
pub fn manifest(snapshot: &str) -> String {
    format!("snapshots/{snapshot}/manifest.json")
}

/// `pg_dumpall --globals-only`.
#[must_use]
pub fn globals(snapshot: &str) -> String {
    format!("snapshots/{snapshot}/globals.sql")
}

/// The custom-format archive of a database.
#[must_use]
pub fn archive(snapshot: &str, database: &str) -> String {
    format!("snapshots/{snapshot}/{}/archive.dump", key_part(database))
}

/// The pre-data section of a database in plain text.
#[must_use]
pub fn pre_data(snapshot: &str, database: &str) -> String {
    format!("snapshots/{snapshot}/{}/pre-data.sql", key_part(database))
}

/// A name as one part of a key: ASCII letters, digits, `_`, `-` and inner dots stay, every other byte becomes `%XX`.
/// Both S3 and a file system take the result as it is, and no two names share one.
#[must_use]
pub fn key_part(name: &str) -> String {
    use std::fmt::Write as _;
    let mut part = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || (byte == b'.' && at > 0);
        if plain {
            part.push(char::from(byte));
        } else {
            let _ = write!(part, "%{byte:02X}");
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::key_part;

    #[test]
    fn a_database_name_of_any_bytes_is_one_part_of_a_key() {
        assert_eq!(key_part("orders_2.x-y"), "orders_2.x-y");
        assert_eq!(key_part("../a b/ü\n"), "%2E.%2Fa%20b%2F%C3%BC%0A");
        assert_ne!(key_part("a/b"), key_part("a%2Fb"));
    }
}
