//! A validated storage.

use serde::{Deserialize, Serialize};

use super::connection::TextSource;

/// Where artefacts are kept.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum StoragePlan {
    /// A bucket of an S3 server.
    S3(S3Plan),
    /// A folder of a PersistentVolumeClaim, mounted by the Job at `store::volume::MOUNT_PATH`.
    Volume {
        /// Name of the PersistentVolumeClaim.
        claim_name: String,
        /// Folder inside the volume.
        path: String,
    },
    /// A folder of this machine.
    Folder {
        /// Its path.
        path: String,
    },
}

/// A bucket of an S3 server, and a prefix in it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Plan {
    /// Bucket.
    pub bucket: String,
    /// Prefix without slashes at the ends; may be empty.
    pub prefix: String,
    /// Region; `None` leaves it to the AWS SDK's chain.
    pub region: Option<String>,
    /// Endpoint; `None` is AWS.
    pub endpoint: Option<String>,
    /// Bucket in the path instead of the host name.
    pub force_path_style: bool,
    /// PEM of the authorities for the endpoint.
    pub ca_bundle: Option<TextSource>,
    /// Secret with the AWS keys; `None` leaves it to the AWS SDK's chain.
    pub credentials_secret: Option<String>,
}
