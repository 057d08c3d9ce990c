use super::archives::*;
use super::*;
use crate::api::reasons;
use crate::postgres::archive::TocEntry;
use crate::postgres::archive::sample::{entry, toc};
use crate::postgres::foreign::rewrite;

/// A server with everything that belongs to it, and what `more` adds.
fn with(more: Vec<TocEntry>) -> Toc {
    let of_table = |id, kind: &str, sql: &str| entry(id, kind, "x", sql).in_schema("remote").needs(&[TABLE]);
    let mut rows = of_table(49, "TABLE DATA", "");
    rows.has_data = true;
    toc([
        server(SERVER, "s", "postgres_fdw", &[]),
        mapping(APP_MAPPING, "app", "s", &[]),
        entry(
            24,
            "ACL",
            "FOREIGN SERVER s",
            "GRANT USAGE ON FOREIGN SERVER s TO app;\n",
        )
        .needs(&[SERVER]),
        entry(25, "COMMENT", "SERVER s", "COMMENT ON SERVER s IS 'x';\n").needs(&[SERVER]),
        entry(39, "TABLE", "parent", "CREATE TABLE remote.parent ();\n").in_schema("remote"),
        table(TABLE, "t", ("s", SERVER), &[], &[]),
        of_table(41, "ACL", "GRANT SELECT ON TABLE remote.t TO app;\n"),
        of_table(42, "COMMENT", "COMMENT ON FOREIGN TABLE remote.t IS 'x';\n"),
        of_table(
            43,
            "TRIGGER",
            "CREATE TRIGGER g AFTER INSERT ON remote.t FOR EACH ROW EXECUTE FUNCTION f();\n",
        ),
        of_table(44, "RULE", "CREATE RULE r AS ON DELETE TO remote.t DO NOTHING;\n"),
        of_table(
            45,
            "DEFAULT",
            "ALTER FOREIGN TABLE ONLY remote.t ALTER COLUMN id SET DEFAULT 1;\n",
        ),
        entry(
            46,
            "TABLE ATTACH",
            "t",
            "ALTER TABLE ONLY remote.parent ATTACH PARTITION remote.t DEFAULT;\n",
        )
        .needs(&[39, TABLE]),
        rows,
    ]
    .into_iter()
    .chain(more))
}

fn drop_all(toc: &mut Toc) -> Result<super::super::ForeignRewrite, crate::plan::Refusal> {
    let asked = Asked::rules("[]").unmatched(UnmatchedForeignServers::Drop);
    rewrite(toc, &asked.request())
}

#[test]
fn a_dropped_server_takes_along_what_belongs_to_it() {
    let mut toc = with(vec![]);
    drop_all(&mut toc).unwrap();
    let left: Vec<_> = toc.entries.iter().map(|entry| entry.dump_id).collect();
    assert_eq!(left, [1, 2, 39]);
}

#[test]
fn what_needs_a_dropped_server_and_stays_is_named() {
    let mut toc = with(vec![
        entry(
            50,
            "VIEW",
            "totals",
            "CREATE VIEW remote.totals AS SELECT * FROM remote.t;\n",
        )
        .in_schema("remote")
        .needs(&[TABLE]),
        entry(
            51,
            "RULE",
            "other r",
            "CREATE RULE r AS ON INSERT TO remote.parent DO INSTEAD INSERT INTO remote.t VALUES (1);\n",
        )
        .in_schema("remote")
        .needs(&[39, TABLE]),
        entry(
            52,
            "POLICY",
            "parent p",
            "CREATE POLICY p ON remote.parent USING (true);\n",
        )
        .needs(&[39, TABLE]),
    ]);
    let refused = drop_all(&mut toc).unwrap_err();
    assert_eq!(refused.reason, reasons::FOREIGN_SERVER_IN_USE);
    assert_eq!(
        refused.message,
        "foreign servers or tables that are to be left out are needed by VIEW remote.totals, RULE remote.other r, \
         POLICY parent p"
    );
}

#[test]
fn a_dropped_subscription_takes_its_comment_along() {
    let mut toc = toc([
        entry(
            60,
            "SUBSCRIPTION",
            "s",
            "CREATE SUBSCRIPTION s CONNECTION 'host=h' PUBLICATION p;\n",
        ),
        entry(61, "COMMENT", "SUBSCRIPTION s", "COMMENT ON SUBSCRIPTION s IS 'x';\n").needs(&[60]),
    ]);
    let mut asked = Asked::rules("[]");
    asked.drop_subscriptions = true;
    rewrite(&mut toc, &asked.request()).unwrap();
    assert_eq!(toc.entries.len(), 2);
}
