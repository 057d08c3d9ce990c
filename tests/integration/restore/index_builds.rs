//! What indexes are built with.

use serde_json::json;

use super::Request;
use super::snapshot::Snapshot;
use crate::parts::PostgresServer;

#[test]
fn a_b_tree_is_sorted_in_little_memory_and_another_index_has_all_of_it() {
    for major in [12, 18] {
        let server = PostgresServer::shared(major);
        let source = server.create_database("source");
        // Both indexes hold what was set when they were built.
        source.psql(
            "CREATE TABLE \"t\"\"1\" AS SELECT i AS id FROM generate_series(1, 10) i;
             CREATE FUNCTION memory(integer) RETURNS text IMMUTABLE LANGUAGE plpgsql
                 AS $$ BEGIN RETURN pg_catalog.current_setting('maintenance_work_mem'); END $$;
             CREATE INDEX \"b.tree\" ON \"t\"\"1\" USING btree (memory(id), id);
             CREATE INDEX gin ON \"t\"\"1\" USING gin ((ARRAY[memory(id)]))",
        );
        let target = server.reserve_database("target");
        let request = Request::into(&Snapshot::of(&source), &target);
        request.with("jobs", json!(2)).succeed();
        let found = |condition: &str| {
            let sql = format!("SET enable_seqscan = off; SELECT count(*) FROM \"t\"\"1\" WHERE {condition}");
            target.psql(&sql)
        };
        assert_eq!(found("memory(id) = '32MB'"), "10", "{major}");
        assert_eq!(found("ARRAY[memory(id)] @> ARRAY['128MB']"), "10", "{major}");
    }
}
