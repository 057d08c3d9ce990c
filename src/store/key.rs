//! Which keys every store can hold: the same in a bucket as on a file system.

use super::StoreError;

/// Begins the names of files that are not finished; no part of a key may begin so.
pub(super) const UNFINISHED: &str = ".unfinished-";

/// Longest key in bytes that S3 takes, less what a prefix may need.
const LONGEST: usize = 900;

/// Refuses a key that a store could not hold, or that would leave the storage.
pub(super) fn check(key: &str) -> Result<(), StoreError> {
    let refuse = |why| {
        Err(StoreError::InvalidKey {
            key: key.to_owned(),
            why,
        })
    };
    if key.is_empty() {
        return refuse("it is empty");
    }
    if key.len() > LONGEST {
        return refuse("it is too long");
    }
    if key.chars().any(char::is_control) {
        return refuse("it contains a control character");
    }
    for part in key.split('/') {
        match part {
            "" => return refuse("it begins or ends with a slash, or has two in a row"),
            "." | ".." => return refuse("it contains a relative part"),
            _ if part.len() > 255 => return refuse("a part is longer than a file name may be"),
            _ if part.starts_with(UNFINISHED) => return refuse("a part begins as unfinished files do"),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_key_cannot_leave_the_storage() {
        for key in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "..",
            "../a",
            "a/../b",
            "a/..",
            "./a",
            "a\nb",
            "a\0b",
            "a/.unfinished-x",
        ] {
            assert!(check(key).is_err(), "{key:?}");
        }
        assert!(check(&"x".repeat(256)).is_err());
        assert!(check(&"x/".repeat(500)).is_err());
        for key in ["a", "a/b", "a/..b", "snapshots/1/%2E%2E/archive.dump", "a b/ü"] {
            assert!(check(key).is_ok(), "{key:?}");
        }
    }
}
