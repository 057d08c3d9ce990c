//! What the API server refuses by the CRDs alone, and what it lets be changed.

use std::collections::BTreeMap;

use pgrescue::api::status::Phase;
use pgrescue::api::{PgBackup, reasons};
use serde_json::{Value, json};

use crate::namespace::Namespace;
use crate::operator::{Run, backup, restore};

/// A manifest whose spec is changed as a merge patch says.
fn with(mut manifest: Value, spec: &Value) -> String {
    json_patch::merge(&mut manifest["spec"], spec);
    manifest.to_string()
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one list of cases")]
async fn a_spec_that_contradicts_itself_is_refused_in_a_sentence() {
    let namespace = Namespace::with_operator("validation").await;
    let name = "n".repeat(64);
    for (spec, sentence) in [
        (
            json!({"schemaOnly": true, "dataOnly": true}),
            "schemaOnly and dataOnly together leave nothing to back up",
        ),
        (
            json!({"databases": {"include": ["a"], "exclude": ["b"]}}),
            "give include or exclude, not both",
        ),
        (
            json!({"schemas": {"include": ["a"], "exclude": ["b"]}}),
            "give include or exclude, not both",
        ),
        (
            json!({"tables": {"include": [{"schema": "a", "name": "b"}], "exclude": [{"schema": "a", "name": "c"}]}}),
            "give include or exclude, not both",
        ),
        (
            json!({"compression": {"method": "Zstd", "level": 23}}),
            "level is 1 to 22 for Zstd",
        ),
        (
            json!({"compression": {"method": "Gzip", "level": 10}}),
            "1 to 9 for Gzip",
        ),
        (json!({"compression": {"method": "Lz4", "level": 0}}), "1 to 12 for Lz4"),
        (json!({"compression": {"method": "None", "level": 1}}), "None has none"),
        (
            json!({"compression": {"method": "Brotli"}}),
            "supported values: \"Zstd\", \"Gzip\", \"Lz4\", \"None\"",
        ),
        (
            json!({"storage": {"s3": null}}),
            "storage is exactly one of s3 and volume",
        ),
        (
            json!({"storage": {"volume": {"claimName": "a"}}}),
            "storage is exactly one of s3 and volume",
        ),
        (
            json!({"storage": {"s3": {"sse": "AES256", "kmsKeyId": "alias/a"}}}),
            "kmsKeyId is the key of sse aws:kms",
        ),
        (
            json!({"storage": {"s3": {"sse": "aws:fips"}}}),
            "supported values: \"AES256\", \"aws:kms\"",
        ),
        (
            json!({"storage": {"s3": {"storageClass": "DEEP_ARCHIVE"}}}),
            "cannot be read at once, as a restore and a check have to",
        ),
        (
            json!({"storage": {"s3": {"tags": (0..11).map(|tag| (tag.to_string(), "")).collect::<BTreeMap<_, _>>()}}}),
            "must have at most 10 items",
        ),
        (
            json!({"storage": {"s3": {"objectLock": {"mode": "Compliance", "retainDays": 0}}}}),
            "spec.storage.s3.objectLock.retainDays",
        ),
        (
            json!({"storage": {"encryption": {"age": {"recipients": []}}}}),
            "should have at least 1 items",
        ),
        (
            json!({"storage": {"encryption": {"age": {"recipients": ["ssh-ed25519 AAAA"]}}}}),
            "a recipient is an X25519 public key of age",
        ),
        (
            json!({"connection": {"tls": {"rootCertificate": {}}}}),
            "give exactly one of inline, secretKeyRef and configMapKeyRef",
        ),
        (
            json!({"connection": {"tls": {"rootCertificate": {"inline": "a", "configMapKeyRef": {"name": "a", "key": "b"}}}}}),
            "give exactly one of inline, secretKeyRef and configMapKeyRef",
        ),
        (
            json!({"connection": {"tls": {"mode": "verify"}}}),
            "supported values: \"disable\", \"allow\"",
        ),
        (json!({"connection": {"port": 65536}}), "spec.connection.port"),
        (
            json!({"databases": {"include": [name]}}),
            "Too long: may not be more than 63 bytes",
        ),
        (json!({"databases": {"include": [""]}}), "spec.databases.include[0]"),
        (
            json!({"databases": {"include": vec!["a"; 65]}}),
            "must have at most 64 items",
        ),
        (json!({"job": {"deadlineSeconds": 0}}), "spec.job.deadlineSeconds"),
        (json!({"job": {"image": "x"}}), "unknown field \"spec.job.image\""),
        (json!({"conection": {}}), "unknown field \"spec.conection\""),
    ] {
        let refused = namespace
            .apply(&with(backup("shop", "db"), &spec))
            .expect_err("the API server refuses it");
        assert!(refused.contains(sentence), "{spec}: {refused}");
    }
    let secret_key = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    let recipients = json!({"storage": {"encryption": {"age": {"recipients": [secret_key]}}}});
    let refused = namespace
        .apply(&with(backup("shop", "db"), &recipients))
        .expect_err("a secret key is not stored");
    assert!(refused.contains("the secret key goes into a Secret"), "{refused}");
    assert!(!refused.contains(secret_key), "{refused}");
    let rule = |rule: Value| json!({"foreignServers": [rule]});
    for (spec, sentence) in [
        (rule(json!({"match": {}})), "a match needs name, wrapper or option"),
        (
            rule(json!({"match": {"name": "a"}, "userMappings": [{"localUser": "a"}]})),
            "a user mapping needs exactly one of secretRef, keep: true and drop: true",
        ),
        (
            rule(json!({"match": {"name": "a"}, "userMappings": [{"localUser": "a", "keep": true, "drop": true}]})),
            "a user mapping needs exactly one of secretRef, keep: true and drop: true",
        ),
        (json!({"jobs": 65}), "should be less than or equal to 64"),
        (json!({"jobs": 0}), "should be greater than or equal to 1"),
        (
            json!({"unmatchedForeignServers": "Ignore"}),
            "supported values: \"Fail\", \"Keep\", \"Drop\"",
        ),
    ] {
        let refused = namespace
            .apply(&with(restore("copy", "shop", "db", "copy"), &spec))
            .expect_err("it is refused");
        assert!(refused.contains(sentence), "{spec}: {refused}");
        assert!(!refused.contains("oneOf"), "{spec}: {refused}");
    }
}

#[tokio::test]
async fn a_run_can_be_changed_in_what_the_docs_say_and_in_nothing_else() {
    let namespace = Namespace::with_operator("changes").await;
    // It waits for its Secret.
    let apply = |spec: Value| namespace.apply(&with(backup("shop", "absent"), &spec));
    apply(json!({"dryRun": true})).expect("a dry run");
    for (spec, sentence) in [
        (
            json!({"dryRun": true, "storage": {"s3": {"bucket": "other"}}}),
            "spec.storage cannot be changed: a PgBackup is one run",
        ),
        (
            json!({"dryRun": true, "schemaOnly": true}),
            "spec.schemaOnly cannot be changed",
        ),
        (
            json!({"dryRun": true, "logLevel": "Debug"}),
            "spec.logLevel cannot be changed",
        ),
        (
            json!({"dryRun": true, "job": {"deadlineSeconds": 60}}),
            "spec.job cannot be changed",
        ),
    ] {
        let refused = apply(spec.clone()).expect_err("the API server refuses it");
        assert!(refused.contains(sentence), "{spec}: {refused}");
    }
    for policy in ["Delete", "Retain"] {
        apply(json!({"dryRun": true, "deletionPolicy": policy})).expect("it may be changed at any time");
    }
    apply(json!({"dryRun": false})).expect("the dry run is followed by the run");
    let refused = apply(json!({"dryRun": true})).expect_err("a run is no dry run any more");
    assert!(
        refused.contains("spec.dryRun can be changed from true to false alone"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_new_resource_is_not_taken_for_a_finished_one_and_an_outcome_stays() {
    let namespace = Namespace::with_operator("outcome").await;
    let folder = with(
        backup("local", "db"),
        &json!({"storage": {"s3": null, "folder": {"path": "/backups"}}}),
    );
    let created = namespace.kubectl_with_input(
        &["create", "--dry-run=server", "--output=json", "--filename", "-"],
        Some(&folder),
    );
    let created: Value = serde_json::from_str(&created.expect("the CRD lets it pass")).expect("JSON");
    assert_eq!(created["status"]["observedGeneration"], -1);

    namespace.apply(&folder).expect("the CRD lets it pass");
    let failure = namespace.failed::<PgBackup>("local").await;
    assert_eq!(failure.reason, reasons::INVALID_SPEC);
    for phase in ["Running", "Succeeded", "Pending"] {
        let patch = json!({"status": {"phase": phase}}).to_string();
        let refused = namespace
            .kubectl(&[
                "patch",
                "pgbackup",
                "local",
                "--subresource=status",
                "--type=merge",
                "--patch",
                &patch,
            ])
            .expect_err("the API server refuses it");
        assert!(refused.contains("the outcome of a run is final"), "{refused}");
    }
    let run = namespace.api::<PgBackup>().get("local").await.expect("it is there");
    assert_eq!(run.run().phase, Some(Phase::Failed));
}
