//! The resources of the group `pgrescue.dev`: data only, no behaviour.

pub mod backup;
pub mod conditions;
pub mod connection;
pub mod crds;
pub mod foreign_servers;
pub mod job;
pub mod reasons;
pub mod restore;
pub mod status;
pub mod storage;

pub use backup::{PgBackup, PgBackupSpec, PgBackupStatus};
pub use restore::{PgRestore, PgRestoreSpec, PgRestoreStatus};

/// API group of every resource.
pub const GROUP: &str = "pgrescue.dev";
/// Served and stored version of every resource.
pub const VERSION: &str = "v1alpha1";
