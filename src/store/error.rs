//! What can go wrong with a store, in the words of the person who has to mend it.

/// An error of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("object {key:?} does not exist in {location}")]
    ObjectMissing {
        /// Where.
        location: String,
        /// Its key.
        key: String,
    },
}
