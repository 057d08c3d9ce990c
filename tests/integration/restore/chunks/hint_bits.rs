//! What the first who reads restored rows has to write.

use pgrescue::api::status::FailureClass;
use serde_json::{Value, json};

use super::{Cut, at_the_gate, with_gate};
use crate::parts::PostgresServer;
use crate::restore::snapshot::Snapshot;
use crate::restore::{Request, runtime};

#[test]
fn pages_are_not_left_for_the_first_reader_to_write_again() {
    for major in [14, 18] {
        let server = PostgresServer::shared(major);
        let source = server.create_database("source");
        with_gate(&source);
        source.psql(
            "CREATE TABLE \"la\"\"r.ge\" AS SELECT i AS id, repeat(md5(i::text), 8) AS filler \
             FROM generate_series(1, 60000) i",
        );
        let cut = Cut {
            rows_per_chunk: 12_000,
            ..Cut::default()
        };
        let snapshot = Snapshot::chunked(&source, cut);
        let target = server.reserve_database("hinted");
        // One session: the gate is in a smaller table, which comes later.
        let request = Request::into(&snapshot, &target).with("jobs", json!(1));
        let (result, plan) = runtime().block_on(async {
            tokio::join!(request.run(), async {
                at_the_gate(&target).await;
                let sql = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT count(*) FROM \"la\"\"r.ge\"";
                let plan = tokio::task::block_in_place(|| {
                    // All pages are written, all commits in the log on disk: a reader sets every hint that is missing.
                    target.psql("CHECKPOINT");
                    target.psql(sql)
                });
                request.stop.cancel();
                serde_json::from_str::<Value>(&plan).expect("JSON")
            })
        });
        assert_eq!(
            result.expect_err("it was stopped").refusal.class,
            FailureClass::Interrupted
        );
        let blocks = |what: &str| {
            plan[0]["Plan"][format!("Shared {what} Blocks")]
                .as_u64()
                .expect("a number")
        };
        let (all, dirtied) = (blocks("Hit") + blocks("Read"), blocks("Dirtied"));
        assert!(all > 2000 && dirtied * 10 < all, "{major}: {dirtied} of {all}");
    }
}
