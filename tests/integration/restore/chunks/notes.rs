//! Two sessions and one chunk: a backend of an earlier attempt that is about to commit, and its successor.

use std::time::Duration;

use pgrescue::api::status::FailureClass;
use serde_json::json;

use super::{Cut, at_the_gate, open_gate, with_gate};
use crate::parts::PostgresServer;
use crate::restore::snapshot::Snapshot;
use crate::restore::{Request, runtime};

#[test]
fn a_chunk_that_an_unknown_session_is_about_to_commit_is_waited_for_and_not_loaded_twice() {
    let server = PostgresServer::shared(15);
    let source = server.create_database("source");
    with_gate(&source);
    let snapshot = Snapshot::chunked(&source, Cut::default());
    for commits in [true, false] {
        let target = server.reserve_database("zombie");
        let request = Request::into(&snapshot, &target).with("jobs", json!(1));
        let last = source.psql("SELECT 'last'::regclass::oid");
        runtime().block_on(async {
            let (result, ()) = tokio::join!(request.run(), async {
                at_the_gate(&target).await;
                request.stop.cancel();
            });
            assert_eq!(result.expect_err("it was stopped").refusal.class, FailureClass::Interrupted);
            tokio::task::block_in_place(|| open_gate(&target));
            // A session that the guard does not know: it has another name.
            let zombie = server.connect(&target.name).await;
            let sql = format!(
                "BEGIN; INSERT INTO pgrescue.loaded_chunks VALUES ({last}, 0); INSERT INTO last SELECT generate_series(1, 10)"
            );
            zombie.batch_execute(&sql).await.expect("its work");
            let again = Request::into(&snapshot, &target);
            let (result, ()) = tokio::join!(again.run(), async {
                let waits = format!(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock'",
                    target.name
                );
                while tokio::task::block_in_place(|| server.psql("postgres", &waits)) == "0" {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let end = if commits { "COMMIT" } else { "ROLLBACK" };
                zombie.batch_execute(end).await.expect("its end");
            });
            result.expect("the restore ends well");
        });
        source.content().assert_same(&target.content());
    }
}
