//! What the first who reads restored rows has to write.

use pgrescue::api::status::FailureClass;
use serde_json::{Value, json};

use super::faults::fails_at_the_gate;
use super::{Cut, with_gate};
use crate::parts::PostgresServer;
use crate::restore::Request;
use crate::restore::snapshot::Snapshot;

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
        let mut plan = Value::Null;
        let failed = fails_at_the_gate(&request, &target, || {
            // All pages are written, all commits in the log on disk: a reader sets every hint that is missing.
            target.psql("CHECKPOINT");
            let sql = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT count(*) FROM \"la\"\"r.ge\"";
            plan = serde_json::from_str(&target.psql(sql)).expect("JSON");
            request.stop.cancel();
        });
        assert_eq!(failed.refusal.class, FailureClass::Interrupted);
        let blocks = |what: &str| {
            plan[0]["Plan"][format!("Shared {what} Blocks")]
                .as_u64()
                .expect("a number")
        };
        let (all, dirtied) = (blocks("Hit") + blocks("Read"), blocks("Dirtied"));
        assert!(all > 2000 && dirtied * 10 < all, "{major}: {dirtied} of {all}");
    }
}
