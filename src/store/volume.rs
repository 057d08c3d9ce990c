//! A folder of a `PersistentVolumeClaim`, as the Job mounts it.

use std::path::{Component, Path};

use super::StoreError;
use super::folder::FolderStore;

/// Where the Job mounts the claim.
pub const MOUNT_PATH: &str = "/backups";

/// The folder `path` of the claim, which must be mounted.
pub fn open(claim_name: &str, path: &str) -> Result<FolderStore, StoreError> {
    open_at(Path::new(MOUNT_PATH), claim_name, path)
}

fn open_at(mount: &Path, claim_name: &str, path: &str) -> Result<FolderStore, StoreError> {
    let inside = Path::new(path.trim_matches('/'));
    if !inside.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(StoreError::PathOutside { path: path.to_owned() });
    }
    if !mount.is_dir() {
        return Err(StoreError::FolderMissing {
            path: mount.display().to_string(),
        });
    }
    let location = format!("volume://{claim_name}/{}", inside.display());
    Ok(FolderStore::of_volume(
        mount.join(inside),
        location.trim_end_matches('/').to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store as _;

    #[test]
    fn a_path_stays_inside_the_volume() {
        let mount = tempfile::tempdir().unwrap();
        for path in ["..", "a/../..", "../x", "a/./../../b"] {
            assert!(open_at(mount.path(), "claim", path).is_err(), "{path}");
        }
        assert_eq!(
            open_at(mount.path(), "claim", "/a/b/").unwrap().location(),
            "volume://claim/a/b"
        );
        assert_eq!(open_at(mount.path(), "claim", "").unwrap().location(), "volume://claim");
    }

    #[test]
    fn a_claim_that_is_not_mounted_is_an_error() {
        assert!(matches!(
            open_at(Path::new("/nonexistent"), "claim", "a"),
            Err(StoreError::FolderMissing { .. })
        ));
    }
}
