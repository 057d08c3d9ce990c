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

/// What makes a storage a repository of chunks.
pub const REPOSITORY: &str = "pgrescue.json";

/// Prefix of everything that belongs to snapshots.
pub const SNAPSHOTS: &str = "snapshots/";

/// Prefix of the chunks that are objects of their own.
pub const CHUNKS: &str = "chunks/";

/// Prefix of the packs of small chunks.
pub const PACKS: &str = "packs/";

/// Prefix of the locks of backups that write.
pub const LOCKS: &str = "locks/";

/// Prefix of the lists of objects that a prune may delete.
pub const CONDEMNED: &str = "condemned/";

/// The snapshot whose manifest this key is.
#[must_use]
pub fn snapshot_of_manifest(key: &str) -> Option<&str> {
    let snapshot = key.strip_prefix(SNAPSHOTS)?.strip_suffix("/manifest.json")?;
    (!snapshot.contains('/')).then_some(snapshot)
}

/// Whether the object holds rows, so that it may be large.
#[must_use]
pub fn holds_rows(key: &str) -> bool {
    let in_snapshot = key.starts_with(SNAPSHOTS) && key.ends_with("/archive.dump");
    key.starts_with(CHUNKS) || key.starts_with(PACKS) || in_snapshot
}

/// A chunk as an object of its own. The key says all that a manifest says of it, so that a listing shows what an
/// unfinished backup left; and it ends with the writer, so that no key is ever used again after a deletion.
#[must_use]
pub fn chunk(name: &str, sha256: &str, stored_bytes: u64, writer: &str) -> String {
    let folder = name.get(..2).unwrap_or(name);
    format!("{CHUNKS}{folder}/{name}-{sha256}-{stored_bytes}-{writer}")
}

/// A pack of small chunks, by the SHA-256 of the whole and its writer.
#[must_use]
pub fn pack(sha256: &str, writer: &str) -> String {
    let folder = sha256.get(..2).unwrap_or(sha256);
    format!("{PACKS}{folder}/{sha256}-{writer}")
}

/// The writer of a chunk or a pack.
#[must_use]
pub fn writer_of(key: &str) -> Option<&str> {
    let is_ours = key.starts_with(CHUNKS) || key.starts_with(PACKS);
    is_ours
        .then(|| key.rsplit_once('-'))
        .flatten()
        .map(|(_, writer)| writer)
}

/// The lock of a backup that writes.
#[must_use]
pub fn lock(writer: &str) -> String {
    format!("{LOCKS}{writer}.json")
}

/// A list of objects that a prune may delete.
#[must_use]
pub fn condemned(id: &str) -> String {
    format!("{CONDEMNED}{id}.json")
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
