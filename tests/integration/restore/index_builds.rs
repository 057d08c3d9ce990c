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
        // The indexes hold what was set when they were built.
        source.psql(
            "CREATE TABLE \"t\"\"1\" AS SELECT i AS id FROM generate_series(1, 10) i;
             CREATE FUNCTION setting(text, integer) RETURNS text IMMUTABLE LANGUAGE plpgsql
                 AS $$ BEGIN RETURN pg_catalog.current_setting($1); END $$;
             CREATE INDEX \"b.tree\" ON \"t\"\"1\" USING btree (setting('maintenance_work_mem', id), setting('deadlock_timeout', id));
             CREATE INDEX gin ON \"t\"\"1\" USING gin ((ARRAY[setting('maintenance_work_mem', id)]))",
        );
        let target = server.reserve_database("target");
        let request = Request::into(&Snapshot::of(&source), &target);
        request.with("jobs", json!(2)).succeed();
        let found = |condition: &str| {
            let sql = format!("SET enable_seqscan = off; SELECT count(*) FROM \"t\"\"1\" WHERE {condition}");
            target.psql(&sql)
        };
        let b_tree = "setting('maintenance_work_mem', id) = '32MB' AND setting('deadlock_timeout', id) = '50ms'";
        assert_eq!(found(b_tree), "10", "{major}");
        let gin = "ARRAY[setting('maintenance_work_mem', id)] @> ARRAY['128MB']";
        assert_eq!(found(gin), "10", "{major}");
    }
}

#[test]
fn a_single_index_is_built_with_the_workers_that_the_connections_leave() {
    let server = PostgresServer::shared(18);
    let source = server.create_database("source");
    source.psql(
        "CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 10) i;
         CREATE FUNCTION workers(integer) RETURNS text IMMUTABLE LANGUAGE plpgsql
             AS $$ BEGIN RETURN pg_catalog.current_setting('max_parallel_maintenance_workers'); END $$;
         CREATE INDEX ON t (workers(id))",
    );
    let snapshot = Snapshot::of(&source);
    for (jobs, workers) in [(1, "0"), (2, "1"), (8, "2")] {
        let target = server.reserve_database("target");
        Request::into(&snapshot, &target).with("jobs", json!(jobs)).succeed();
        let sql = format!("SET enable_seqscan = off; SELECT count(*) FROM t WHERE workers(id) = '{workers}'");
        assert_eq!(target.psql(&sql), "10", "{jobs}");
    }
}

#[test]
fn rows_that_are_in_the_order_of_the_index_are_sorted_in_all_memory() {
    for major in [12, 18] {
        let server = PostgresServer::shared(major);
        let source = server.create_database("source");
        // Pages that are almost empty make an index of few rows large enough to be asked for.
        source.psql(
            "CREATE FUNCTION memory(integer) RETURNS text IMMUTABLE LANGUAGE plpgsql
                 AS $$ BEGIN RETURN pg_catalog.current_setting('maintenance_work_mem'); END $$;
             CREATE TABLE \"in\"\"order\" AS SELECT i AS \"a.b\" FROM generate_series(1, 150000) i;
             CREATE TABLE mixed AS SELECT hashint4(i) AS \"a.b\" FROM generate_series(1, 150000) i;
             CREATE INDEX ON \"in\"\"order\" (\"a.b\", memory(\"a.b\")) WITH (fillfactor = 10);
             CREATE INDEX ON mixed (\"a.b\", memory(\"a.b\")) WITH (fillfactor = 10)",
        );
        let target = server.reserve_database("target");
        let request = Request::into(&Snapshot::of(&source), &target);
        request.with("jobs", json!(2)).succeed();
        for (table, memory) in [("\"in\"\"order\"", "= '128MB'"), ("mixed", "<> '128MB'")] {
            let sql = format!(
                "SET enable_seqscan = off; SET enable_bitmapscan = off; \
                 SELECT count(*) FROM {table} WHERE \"a.b\" > 0 AND memory(\"a.b\") {memory}"
            );
            let rows = source.psql(&format!("SELECT count(*) FROM {table} WHERE \"a.b\" > 0"));
            assert_eq!(target.psql(&sql), rows, "{major} {table}");
        }
    }
}
