//! A chart that holds a backup: `helm install --wait` returns with its outcome.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pgrescue::api::status::Phase;
use pgrescue::api::{PgBackup, reasons};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::{cluster, output};
use crate::namespace::{DEADLINE, Namespace};
use crate::operator::{Run, backup};
use crate::servers::{Postgres, S3};

/// Installs a chart with one resource as the release of that name, and waits as Helm does.
fn install(namespace: &Namespace, release: &str, resource: &Value) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let chart = json!({"apiVersion": "v2", "name": release, "version": "0.1.0"});
    for (file, content) in [("Chart.yaml", &chart), ("templates/resource.yaml", resource)] {
        let file = Path::new(folder.path()).join(file);
        fs::create_dir_all(file.parent().expect("it is in the folder")).expect("the folder is ours");
        fs::write(file, content.to_string()).expect("the folder is ours");
    }
    let mut helm = cluster().helm();
    helm.args(["install", release])
        .arg(folder.path())
        .args(["--namespace", &namespace.name, "--wait"])
        .arg(format!("--timeout={}s", DEADLINE.as_secs()));
    output(&mut helm, None)
}

#[tokio::test]
async fn helm_waits_for_the_outcome_of_a_backup() {
    let namespace = Namespace::with_operator("helm").await;
    let _production = Postgres::start(&namespace, "production", 18, "shop").await;
    let _s3 = S3::start(&namespace, "backups").await;

    let good = backup("good", "production-db");
    install(&namespace, "good", &good).unwrap_or_else(|error| panic!("{error}\n{}", namespace.story()));
    let run = namespace.api::<PgBackup>().get("good").await.expect("Helm made it");
    assert_eq!(run.run().phase, Some(Phase::Succeeded), "{:?}", run.run());

    let mut bad = backup("bad", "production-db");
    bad["spec"]["databases"] = json!({"include": ["no_such_database"]});
    let began = Instant::now();
    let refusal = install(&namespace, "bad", &bad).expect_err("the backup fails");
    assert!(began.elapsed() + Duration::from_secs(30) < DEADLINE, "{refusal}");
    assert!(refusal.contains("bad"), "{refusal}");
    let run = namespace.api::<PgBackup>().get("bad").await.expect("Helm made it");
    let failure = run.run().failure.expect("Helm waited for the outcome");
    assert_eq!(failure.reason, reasons::DATABASE_MISSING);
}
