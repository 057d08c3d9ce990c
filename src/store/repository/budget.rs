//! How many compressed bytes are in memory at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::WriterOptions;
use super::pack::PackSizes;

/// Bytes are counted in units of so many.
const UNIT: usize = 1024;

/// Bytes that are taken; free again when it is dropped. `None` where the budget is closed, which it never is.
pub(super) struct Share(Option<OwnedSemaphorePermit>);

/// The bytes that are agreed.
pub(super) struct Budget {
    units: Arc<Semaphore>,
    /// Most units that one chunk takes: a full pack has room beside it, so that neither waits for the other.
    most: u32,
}

impl Budget {
    pub(super) fn new(bytes_in_flight: u64) -> Self {
        let bytes = bytes_in_flight.max(WriterOptions::LEAST_BYTES_IN_FLIGHT);
        let most_bytes = u64::from(u32::MAX >> 4) * UNIT as u64; // what a semaphore of a 32-bit machine counts
        let all = units(usize::try_from(bytes.min(most_bytes)).unwrap_or(usize::MAX));
        Self {
            units: Arc::new(Semaphore::new(all as usize)),
            most: all - units(PackSizes::STANDARD.pack + PackSizes::STANDARD.small),
        }
    }

    /// Waits until there is room. One that is larger than the whole budget gets it to itself.
    pub(super) async fn room_for(&self, bytes: usize) -> Share {
        let units = units(bytes).min(self.most);
        Share(Arc::clone(&self.units).acquire_many_owned(units).await.ok())
    }
}

impl Share {
    pub(super) fn merge(&mut self, other: Self) {
        match (&mut self.0, other.0) {
            (Some(held), Some(more)) => held.merge(more),
            (none, more) => *none = more,
        }
    }

    /// Whether so many bytes have room in it.
    pub(super) fn holds(&self, bytes: usize) -> bool {
        self.0
            .as_ref()
            .is_none_or(|permit| permit.num_permits() >= units(bytes) as usize)
    }

    /// Gives back what `bytes` do not need.
    pub(super) fn reduce_to(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            let surplus = permit.num_permits().saturating_sub(units(bytes) as usize);
            drop(permit.split(surplus));
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX)
}
