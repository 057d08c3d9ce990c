//! The databases that backups are measured with: half of each pgbench's tables, half a table of many types.

use crate::parts::{Database, PostgresServer};

/// What a database is made of.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    /// pgbench's scale: 100,000 accounts each.
    pgbench_scale: u32,
    /// Rows of the table `mixed`.
    mixed_rows: u32,
}

impl Contents {
    /// So many gigabytes, with the indexes.
    pub const fn gigabytes(count: u32) -> Self {
        Self {
            pgbench_scale: 26 * count,
            mixed_rows: 1_475_000 * count,
        }
    }

    /// So many gigabytes, nine tenths of them in the table `mixed`.
    pub const fn one_large_table(gigabytes: u32) -> Self {
        Self {
            pgbench_scale: 6 * gigabytes,
            mixed_rows: 2_300_000 * gigabytes,
        }
    }
}

/// A server as one would run it, but for `fsync`, without which a run waits for disks alone.
pub fn server(major: u32) -> PostgresServer {
    PostgresServer::with(major)
        .setting("shared_buffers", "512MB")
        .setting("wal_level", "replica")
        .setting("max_wal_size", "4GB")
        .start()
}

/// Fills a database and returns it with its size in bytes.
pub fn fill(server: &PostgresServer, contents: Contents) -> (Database<'_>, u64) {
    let database = server.create_database("bench");
    let pgbench = server
        .client(server.major, "pgbench", &database.name)
        .args(["--initialize", "--init-steps=dtGvp", "--quiet"])
        .arg(format!("--scale={}", contents.pgbench_scale))
        .output()
        .expect("pgbench is installed");
    assert!(pgbench.status.success(), "{}", String::from_utf8_lossy(&pgbench.stderr));
    database.psql(&MIXED.replace("MIXED_ROWS", &contents.mixed_rows.to_string()));
    // Nothing is left to do for the first one who reads: hint bits are set, all pages are on disk.
    database.psql("VACUUM (FREEZE, ANALYZE)");
    database.psql("CHECKPOINT");
    let size = database.psql("SELECT pg_database_size(current_database())");
    (database, size.parse().expect("a number of bytes"))
}

/// Rows of 280 bytes; the values do not repeat, so that they compress as real ones do.
const MIXED: &str = "
CREATE TABLE mixed (
    id bigint NOT NULL,
    customer int NOT NULL,
    kind smallint NOT NULL,
    price numeric(12,2),
    weight double precision,
    active boolean NOT NULL,
    born date,
    changed timestamptz NOT NULL,
    key uuid NOT NULL,
    status text NOT NULL,
    email varchar(100),
    note text,
    tags text[],
    numbers int[],
    data jsonb
);
INSERT INTO mixed
SELECT g,
       (hashint8(g) & 1048575),
       g % 7,
       (hashint8(g + 1) & 16777215) / 100.0,
       sqrt(g),
       g % 3 = 0,
       date '1950-01-01' + (g % 25000)::int,
       timestamptz '2020-01-01 UTC' + g * interval '17.3 seconds',
       md5(g::text)::uuid,
       (ARRAY['new', 'paid', 'sent', 'returned'])[1 + g % 4],
       'user' || (hashint8(g) & 1048575) || '@example.com',
       CASE WHEN g % 5 = 0 THEN NULL ELSE repeat(md5((g / 3)::text), (g % 3)::int + 1) END,
       ARRAY['tag' || g % 100, 'tag' || g % 17],
       ARRAY[g % 1000, g % 100, g % 10]::int[],
       jsonb_build_object('rank', g % 1000, 'name', 'name ' || g, 'on', g % 2 = 0)
FROM generate_series(1, MIXED_ROWS) AS g;
ALTER TABLE mixed ADD PRIMARY KEY (id);
CREATE INDEX ON mixed (customer, changed);
CREATE INDEX ON mixed (key);
CREATE INDEX ON mixed (status) WHERE status <> 'sent';
";
