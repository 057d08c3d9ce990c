//! The identity that opens an encrypted backup, proved on the backup itself before anything is changed.

use std::sync::Arc;

use crate::agent::Context;
use crate::api::connection::KeyRef;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::restore::SnapshotSource;
use crate::store::encryption::{self, Identities, IdentityError, identity_missing, identity_wrong};
use crate::store::manifest::{Manifest, ObjectManifest};
use crate::store::{Store, StoreError};

/// Reads the identities from the Secret that the request names; `None` where the backup is not encrypted.
pub(super) async fn find(
    source: &SnapshotSource,
    manifest: &Manifest,
    context: &Context,
) -> Result<Option<Arc<Identities>>, Refusal> {
    let recipients = manifest.recipients();
    match (&source.identity, recipients) {
        (_, []) => Ok(None),
        (None, _) => Err(identity_missing(&manifest.snapshot, recipients)),
        (Some(key), _) => {
            let text = context.references.secret_key(key).await?;
            let identities = Identities::parse(&text).map_err(|error| not_an_identity(key, error))?;
            Ok(Some(Arc::new(identities)))
        }
    }
}

/// Nothing of the text is shown.
fn not_an_identity(key: &KeyRef, error: IdentityError) -> Refusal {
    let KeyRef { name, key } = key;
    let message = format!("The key {key:?} of the Secret {name:?} is no identity file of age: {error}.");
    Refusal::permanent(reasons::IDENTITY_WRONG, message)
        .object(format!("Secret/{name}"))
        .hint("Store the file that age-keygen wrote, as it is.")
}

/// Opens the header of the archive: what the manifest says of its recipients is not what decides.
pub(in crate::agent) async fn prove(
    store: &dyn Store,
    manifest: &Manifest,
    archive: &ObjectManifest,
    identities: Option<&Arc<Identities>>,
) -> Result<(), Refusal> {
    if identities.is_none() {
        return Ok(());
    }
    match encryption::content(store, archive, identities).await {
        Ok(_) => Ok(()),
        Err(StoreError::IdentityWrong { .. }) => Err(identity_wrong(&manifest.snapshot, manifest.recipients())),
        Err(error) => Err(error.into()),
    }
}
