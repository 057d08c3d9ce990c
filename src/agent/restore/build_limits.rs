//! What the target's server may build indexes with.

use crate::plan::Refusal;
use crate::postgres::connection::Session;

/// Memory for building indexes that all connections share, in KiB: twice the server's `shared_buffers`, which says how
/// large a server it is, within these bounds. A server with more set for each connection keeps that.
const LEAST_KIB: u64 = 256 * 1024;
const MOST_KIB: u64 = 1024 * 1024;

/// What one connection may build indexes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BuildLimits {
    /// `maintenance_work_mem`, in KiB.
    pub memory_kib: u64,
    /// Workers that the server lets one statement take, `max_parallel_maintenance_workers`.
    pub parallel_workers: u64,
}

impl BuildLimits {
    /// Reads the server's settings; `jobs` connections share what they allow.
    pub(super) async fn read(session: &Session, jobs: u8) -> Result<Self, Refusal> {
        let row = session
            .query_one(
                "SELECT pg_size_bytes(current_setting('maintenance_work_mem')) / 1024, \
                        pg_size_bytes(current_setting('shared_buffers')) / 1024, \
                        current_setting('max_parallel_maintenance_workers')::bigint",
                &[],
            )
            .await
            .map_err(|error| session.refusal(&error, "reading what indexes are built with", None))?;
        let [set, buffers, parallel_workers] =
            [0, 1, 2].map(|column| u64::try_from(row.get::<_, i64>(column)).unwrap_or_default());
        Ok(Self {
            memory_kib: ((2 * buffers).clamp(LEAST_KIB, MOST_KIB) / u64::from(jobs.max(1))).max(set),
            parallel_workers,
        })
    }
}
