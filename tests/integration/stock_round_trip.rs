//! The fixtures and the comparisons, by stock `pg_dump` and `pg_restore`: what
//! these carry whole, the product has to carry whole.

use crate::parts::{Database, PostgresServer};

/// Dumps with one client and restores with the same.
fn copy_with_stock_tools(from: &Database<'_>, to: &Database<'_>, client: u32) {
    let archive = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    let dump = from
        .server
        .client(client, "pg_dump", &from.name)
        .args(["-Fc", "-Z1", "-f"])
        .arg(archive.path())
        .output()
        .expect("pg_dump is installed");
    assert!(
        dump.status.success(),
        "pg_dump: {}",
        String::from_utf8_lossy(&dump.stderr)
    );
    let restore = to
        .server
        .client(client, "pg_restore", &to.name)
        .args(["--exit-on-error", "-d", &to.name])
        .arg(archive.path())
        .output()
        .expect("pg_restore is installed");
    assert!(
        restore.status.success(),
        "pg_restore: {}",
        String::from_utf8_lossy(&restore.stderr)
    );
}

fn everything_survives_stock_tools(major: u32) {
    let server = PostgresServer::shared(major);
    let source = server.create_database("source");
    source.load_everything();
    let target = server.create_database_with("target", "TEMPLATE template0");
    // A newer client does harm: from 15 on it takes for granted that PUBLIC may
    // not create in the schema public, from 16 on it writes subscriptions that
    // older servers refuse.
    copy_with_stock_tools(&source, &target, major.max(14));
    source.content().assert_same(&target.content());
    source.schema().assert_same(&target.schema());

    target.psql("UPDATE shop.customer SET tags = tags || ARRAY['damaged'] WHERE id = 17");
    assert_eq!(source.content().differences(&target.content()).len(), 1);
}

macro_rules! on_every_server {
    ($($name:ident: $major:expr;)*) => {$(
        #[test]
        fn $name() {
            everything_survives_stock_tools($major);
        }
    )*};
}

on_every_server! {
    everything_survives_stock_tools_on_12: 12;
    everything_survives_stock_tools_on_13: 13;
    everything_survives_stock_tools_on_14: 14;
    everything_survives_stock_tools_on_15: 15;
    everything_survives_stock_tools_on_16: 16;
    everything_survives_stock_tools_on_17: 17;
    everything_survives_stock_tools_on_18: 18;
}

#[test]
fn a_latin1_database_survives_stock_tools_into_a_utf8_server() {
    let from = PostgresServer::with(15).encoding("LATIN1").start();
    let source = from.create_database("latin");
    source.load_everything();
    assert_eq!(source.properties().encoding, "LATIN1");
    let to = PostgresServer::shared(18);
    to.load_roles();
    let target = to.create_database_with("unicode", "TEMPLATE template0");
    copy_with_stock_tools(&source, &target, 18);
    source.content().assert_same(&target.content());
}

#[test]
fn the_demo_shop_survives_stock_tools() {
    let server = PostgresServer::shared(17);
    let source = server.create_database("shop");
    source.load_shop(0.01);
    let target = server.create_database_with("shop_copy", "TEMPLATE template0");
    copy_with_stock_tools(&source, &target, 17);
    source.content().assert_same(&target.content());
    source.schema().assert_same(&target.schema());
}
