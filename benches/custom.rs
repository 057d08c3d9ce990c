//! Group `custom`: a backup in pg_dump's custom format to an S3 server on loopback, beside `pg_dump | upload`.

use serde_json::json;

use crate::database::{self, Contents};
use crate::figures::{Figure, median};
use crate::machine;
use crate::measured::Run;
use crate::parts::{self, S3Server};
use crate::site::{BUCKET, STOCK_BUCKET, Site};

const MAJOR: u32 = 18;

/// Pairs of runs that count; one more warms everything up.
const PAIRS: usize = 5;

/// The least that an archive of the database takes: less means that something was left out.
const LEAST_ARCHIVE: u64 = 100 * 1024 * 1024;

const STOCK: &str = "pg_dump -Fc --compress=zstd:1 | rclone rcat --quiet store:stock/stock.dump";

pub fn measure() -> Vec<Figure> {
    let server = database::server(MAJOR);
    let store = S3Server::start();
    let site = Site::new(&server, &store);
    let (database, size) = database::fill(&server, Contents::gigabytes(2));
    machine::row("server", &server.psql("postgres", "SELECT version()"));
    let pg_dump = parts::client_folder(MAJOR).join("pg_dump");
    machine::row("pg_dump", &machine::version(&pg_dump, "--version"));
    machine::row("store", &format!("versitygw {}, loopback", parts::version("versitygw")));
    machine::row("upload", &site.rclone_version());
    machine::row("database", &format!("{} MB", size / 1_000_000));
    machine::row("stock", STOCK);
    machine::row(
        "backup",
        "pgrescue run -f backup.yaml, dataFormat Custom, Zstd level 1, foreignCredentials Strip",
    );

    let ours = || {
        let spec = json!({"dataFormat": "Custom", "compression": {"method": "Zstd", "level": 1}});
        let run = site.back_up(&database.name, &spec);
        let keys = store.keys(BUCKET);
        assert!(
            keys.iter().any(|key| key.ends_with("/manifest.json")),
            "no backup in {keys:?}"
        );
        check_and_empty(&site, BUCKET);
        run
    };
    let stock = || {
        let run = site.shell(MAJOR, &database.name, STOCK);
        check_and_empty(&site, STOCK_BUCKET);
        run
    };
    compare(ours, stock)
}

fn compare(ours: impl Fn() -> Run, stock: impl Fn() -> Run) -> Vec<Figure> {
    let (mut of_ours, mut of_stock) = (Vec::new(), Vec::new());
    for pair in 0..=PAIRS {
        // In turns, and in turns who is first: what drifts hits both alike.
        let (our, their) = if pair % 2 == 0 {
            let our = ours();
            (our, stock())
        } else {
            let their = stock();
            (ours(), their)
        };
        let note = if pair == 0 { " (not counted)" } else { "" };
        println!(
            "run {pair}: pgrescue {:.2} s, {:.0} MiB; stock {:.2} s{note}",
            our.seconds(),
            our.peak_mib,
            their.seconds()
        );
        if pair > 0 {
            of_ours.push(our);
            of_stock.push(their);
        }
    }
    let seconds = |runs: &[Run]| median(runs.iter().map(Run::seconds).collect());
    let (our_seconds, stock_seconds) = (seconds(&of_ours), seconds(&of_stock));
    println!("median: pgrescue {our_seconds:.2} s, stock {stock_seconds:.2} s");
    let peak = of_ours.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
    vec![
        Figure::at_most(
            "backup.custom_vs_stock_zstd",
            our_seconds / stock_seconds,
            "ratio",
            1.10,
        ),
        Figure::at_most("agent.custom_peak_mib", peak, "MiB", 128.0),
    ]
}

/// Each run writes to an empty bucket.
fn check_and_empty(site: &Site<'_>, bucket: &str) {
    let bytes = site.stored_bytes(bucket);
    assert!(bytes > LEAST_ARCHIVE, "only {bytes} bytes were stored");
    site.empty(bucket);
}
