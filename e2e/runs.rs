//! Backups and restores as users ask for them.

use pgrescue::api::status::FailureClass;
use pgrescue::api::{PgBackup, PgRestore, conditions, reasons};

use crate::namespace::Namespace;
use crate::operator::{Run, backup, restore};
use crate::servers::{Postgres, S3};

#[tokio::test]
async fn a_restore_that_is_applied_with_its_backup_waits_for_it() {
    let namespace = Namespace::with_operator("both").await;
    let production = Postgres::start(&namespace, "production", 17, "shop").await;
    let _s3 = S3::start(&namespace, "backups").await;
    production.psql(
        "shop",
        "CREATE TABLE item AS SELECT n, 'item ' || n AS name FROM generate_series(1, 1000) n",
    );
    let manifests = [
        backup("shop", "production-db"),
        restore("copy", "shop", "production-db", "shop_copy"),
    ];
    for manifest in manifests {
        namespace.apply(&manifest.to_string()).expect("applied");
    }
    namespace.succeeded::<PgBackup>("shop").await;
    namespace.succeeded::<PgRestore>("copy").await;
    let sum = "SELECT count(*), sum(n), md5(string_agg(name, ',' ORDER BY n)) FROM item";
    assert_eq!(production.psql("shop_copy", sum), production.psql("shop", sum));
}

#[tokio::test]
async fn a_run_that_no_retry_can_help_ends_at_the_first_attempt_and_says_what_to_do() {
    let namespace = Namespace::with_operator("refused").await;
    let _production = Postgres::start(&namespace, "production", 18, "shop").await;
    let _s3 = S3::start(&namespace, "backups").await;
    let mut manifest = backup("shop", "production-db");
    manifest["spec"]["databases"] = serde_json::json!({"include": ["shpo"]});
    namespace.apply(&manifest.to_string()).expect("applied");
    let failure = namespace.failed::<PgBackup>("shop").await;
    assert_eq!(
        (failure.class, failure.reason.as_str()),
        (FailureClass::Permanent, reasons::DATABASE_MISSING)
    );
    assert!(failure.message.contains("shpo"), "{failure:?}");
    assert!(failure.hint.is_some(), "{failure:?}");

    let run = namespace.api::<PgBackup>().get("shop").await.expect("it is there");
    for (r#type, status) in [
        (conditions::READY, "False"),
        (conditions::RECONCILING, "False"),
        (conditions::STALLED, "True"),
        (conditions::SUCCEEDED, "False"),
    ] {
        let condition = run.condition(r#type).expect(r#type);
        assert_eq!((r#type, condition.status.as_str()), (r#type, status));
        assert!(condition.message.contains("shpo"), "{condition:?}");
    }
    assert_eq!(namespace.pods_of(&run).await.len(), 1);
    let events = namespace.events("shop");
    assert!(
        events
            .iter()
            .any(|(reason, message)| reason == reasons::DATABASE_MISSING && message.contains("shpo")),
        "{events:?}"
    );
}
