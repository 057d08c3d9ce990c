//! What lies where a repository should be.

use pgrescue::api::reasons;
use pgrescue::store::repository::{CheckLevel, check};

use super::{backup_through, content, is_permanent};
use crate::backup::{new_bucket, s3};
use crate::parts::{PostgresServer, S3Server};
use crate::restore;
use crate::whole::source_of;

async fn put(bucket: &str, key: &str, content: &[u8]) {
    let request = S3Server::client(&s3().endpoint).put_object();
    let request = request.bucket(bucket).key(format!("team/a/{key}"));
    request.body(content.to_vec().into()).send().await.expect("stored");
}

const OTHERS: [(&str, &str); 4] = [
    (
        r#"{"formatVersion": 2, "compression": "lzma"}"#,
        reasons::REPOSITORY_TOO_NEW,
    ),
    (
        r#"{"name": "somebody's", "version": "1.2"}"#,
        reasons::REPOSITORY_INVALID,
    ),
    (
        r#"{"formatVersion": 1, "id": "x", "hashKey": "short", "created": "2026-01-02T03:04:05Z"}"#,
        reasons::REPOSITORY_INVALID,
    ),
    ("<html>", reasons::REPOSITORY_INVALID),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_another_kind_or_a_newer_format_gets_no_backup() {
    let bucket = new_bucket();
    for (other, reason) in OTHERS {
        put(&bucket, "pgrescue.json", other.as_bytes()).await;
        let request = backup_through(&s3().endpoint, &bucket);
        let ended = request.run().await;
        is_permanent(ended.refusal(), reason);
        assert!(ended.refusal().hint.is_some(), "{:?}", ended.refusal());
        assert_eq!(s3().keys(&bucket), ["team/a/pgrescue.json"], "nothing was changed");
        assert_eq!(s3().object(&bucket, "team/a/pgrescue.json"), other.as_bytes());
    }
}

#[test]
fn a_repository_of_another_kind_or_a_newer_format_is_not_restored_from() {
    let bucket = new_bucket();
    let backup = backup_through(&s3().endpoint, &bucket);
    let runtime = restore::runtime();
    let ended = runtime.block_on(backup.run());
    let artifact = ended.artifact();
    let server = PostgresServer::shared(17);
    let target = server.reserve_database("other_kind");
    let request = || {
        let source = source_of(&backup, &super::source().name, &artifact.manifest_sha256);
        restore::Request::of(source, server.port, &target.name).secret("s3", &crate::backup::s3_keys())
    };
    let good = s3().object(&bucket, "team/a/pgrescue.json");
    for (other, reason) in OTHERS {
        runtime.block_on(put(&bucket, "pgrescue.json", other.as_bytes()));
        is_permanent(&request().fail().refusal, reason);
        assert!(!target.exists());
    }
    // The description of another repository: its key does not fit the names of the chunks.
    let key = |at: usize, old: &str| {
        let mut other = old.to_owned();
        other.replace_range(at..=at, if old[at..].starts_with('0') { "1" } else { "0" });
        other
    };
    let text = String::from_utf8(good.clone()).expect("JSON");
    let at = text.find("hashKey").expect("a key") + "hashKey\": \"".len();
    runtime.block_on(put(&bucket, "pgrescue.json", key(at, &text).as_bytes()));
    is_permanent(&request().fail().refusal, reasons::OBJECT_CHANGED);
    assert!(!target.exists());
    runtime.block_on(put(&bucket, "pgrescue.json", &good));
    request().succeed();
    content().assert_same(&target.content());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_on_the_disk_of_the_store_is_named_by_a_check() {
    let bucket = new_bucket();
    let request = backup_through(&s3().endpoint, &bucket);
    request.run().await.artifact();
    for key in s3()
        .keys(&bucket)
        .iter()
        .filter(|key| key.contains("/chunks/") || key.contains("/archive.dump"))
    {
        let path = s3().bucket_folder(&bucket).join(key);
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("it is there");
        std::os::unix::fs::FileExt::write_all_at(&file, b"damaged", 1000).expect("it is ours");
    }
    let store = super::open(&request.plan.storage).await;
    let report = check(&store, CheckLevel::Sizes, None).await.expect("it can be checked");
    assert_eq!(report.damages, [], "the sizes are right");
    for level in [CheckLevel::Hashes, CheckLevel::Rows] {
        let report = check(&store, level, None).await.expect("it can be checked");
        assert_eq!(report.damages.len(), 5, "{report:?}");
        let hurts = report.damages.iter().flat_map(|damage| &damage.hurts);
        let mut tables: Vec<_> = hurts.flat_map(|hurt| hurt.tables.clone()).collect();
        tables.sort();
        let name = &super::source().name;
        let expected = ["large_0", "large_1", "large_2", "large_3"];
        assert_eq!(tables, expected.map(|table| format!("{name}.public.{table}")));
    }
}
