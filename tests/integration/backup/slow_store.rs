//! A backup that stands in the middle of its rows until a test has done what it came for.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Ended, Request, in_bucket_of, new_bucket, s3};
use crate::parts::{Proxy, Toxiproxy};

/// A bucket behind a store so slow that no backup of a test's rows ends before the test lets it go on.
pub struct SlowStore<'toxiproxy> {
    pub bucket: String,
    pub proxy: Proxy<'toxiproxy>,
}

impl<'toxiproxy> SlowStore<'toxiproxy> {
    pub fn behind(toxiproxy: &'toxiproxy Toxiproxy) -> Self {
        let proxy = toxiproxy.proxy(s3().port);
        proxy.add_toxic("bandwidth", &["rate=10"], true); // kilobytes a second: a pack of chunks takes a minute
        let bucket = new_bucket();
        Self { bucket, proxy }
    }

    pub fn storage(&self) -> Value {
        in_bucket_of(&format!("http://127.0.0.1:{}", self.proxy.port), &self.bucket)
    }

    pub fn lets_go_on(&self) {
        tokio::task::block_in_place(|| self.proxy.remove_toxic("bandwidth"));
    }

    /// Runs a backup into this store, does `fault` when rows have gone by, and lets it go on.
    pub async fn with_fault(&self, request: &Request, fault: impl FnOnce()) -> Ended {
        let fault_and_on = || {
            fault();
            self.lets_go_on();
        };
        in_the_middle(request, fault_and_on).await
    }

    /// The same with the store slow until the backup has ended: no part that was on its way arrives whole behind the end
    /// of its upload, where the store would keep it.
    pub async fn with_fault_while_slow(&self, request: &Request, fault: impl FnOnce()) -> Ended {
        let ended = in_the_middle(request, fault).await;
        self.lets_go_on();
        ended
    }
}

/// Runs a backup, and does `act` when rows have gone by.
async fn in_the_middle(request: &Request, act: impl FnOnce()) -> Ended {
    let acting = async {
        let until = Instant::now() + Duration::from_mins(2);
        while rows_so_far(request) < 1000 {
            assert!(Instant::now() < until, "the backup reads rows");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::task::block_in_place(act);
    };
    let (ended, ()) = tokio::join!(request.run(), acting);
    ended
}

/// The store takes a part for one that was not sent whole when the connection ends, which it may see a moment later.
pub async fn assert_no_orphan_parts(bucket: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    while let orphans @ [_, ..] = s3().orphan_parts(bucket).as_slice() {
        assert!(Instant::now() < until, "{orphans:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn rows_so_far(request: &Request) -> u64 {
    let status = request.context.reporter.status();
    status.progress.map_or(0, |progress| progress.rows)
}
