//! What bad input and unreachable stores get: a clear sentence within seconds.

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use pgrescue::api::reasons;
use pgrescue::plan::Refusal;
use pgrescue::plan::storage::{S3Plan, StoragePlan};
use pgrescue::references::manifests::ManifestReferences;
use pgrescue::store::error::ConnectionFailure;
use pgrescue::store::{self, StoreError};

use super::lost_answers::Relay;
use super::{BUCKET, PART, content, good_secret, inline, open_plan, read, s3_plan, secret, server};
use crate::parts::{Certificates, S3Server};

async fn access(plan: S3Plan) -> Result<(), StoreError> {
    open_plan(plan).await?.check_access(true).await
}

async fn refused(plan: S3Plan) -> StoreError {
    access(plan).await.expect_err("the store is not usable")
}

#[tokio::test]
async fn wrong_keys_are_named_as_such() {
    let server = server();
    for (access_key, secret_key) in [
        ("CANARYNOBODY", S3Server::SECRET_KEY),
        (S3Server::ACCESS_KEY, "canary-wrong-secret"),
    ] {
        let plan = StoragePlan::S3(s3_plan(&server.endpoint));
        let store = store::open(&plan, &secret(access_key, secret_key)).await.unwrap();
        let error = store.check_access(false).await.unwrap_err();
        assert!(matches!(error, StoreError::CredentialsRejected { .. }), "{error}");
        let refusal = Refusal::from(error);
        assert_eq!(refusal.reason, reasons::STORE_ACCESS_DENIED);
        let text = format!("{refusal:?}");
        assert!(!text.contains("canary") && !text.contains("CANARY"), "{text}");
    }
}

#[tokio::test]
async fn a_secret_without_a_key_waits_for_it() {
    let server = server();
    let mut references = ManifestReferences::default();
    let plan = StoragePlan::S3(s3_plan(&server.endpoint));
    let error = store::open(&plan, &references).await.err().expect("no Secret");
    assert!(error.is_temporary() && error.to_string().contains("\"s3\""), "{error}");
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": {"AWS_ACCESS_KEY_ID": "x"},
    });
    references.add(&manifest).unwrap();
    let error = store::open(&plan, &references).await.err().expect("no secret key");
    assert!(error.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{error}");
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    let server = server();
    let mut plan = s3_plan(&server.endpoint);
    plan.bucket = "elsewhere".into();
    let error = refused(plan.clone()).await;
    assert!(
        matches!(&error, StoreError::BucketMissing { bucket, .. } if bucket == "elsewhere"),
        "{error}"
    );
    let store = open_plan(plan).await.unwrap();
    let error = store::put(&*store, "a", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, StoreError::BucketMissing { .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_region_is_told_the_right_one() {
    let server = server();
    let mut plan = s3_plan(&server.endpoint);
    plan.region = Some("us-west-1".into());
    let error = refused(plan).await;
    let refusal = Refusal::from(error);
    assert_eq!(refusal.reason, reasons::WRONG_REGION, "{refusal}");
    assert!(refusal.hint.unwrap().contains(S3Server::REGION));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_says_how() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // connections wait to be accepted for ever
    for (endpoint, expected) in [
        (format!("http://127.0.0.1:{nobody}"), ConnectionFailure::Refused),
        (
            "http://s3.does-not-exist.invalid".into(),
            ConnectionFailure::HostUnknown,
        ),
        (
            format!("http://{}", silent.local_addr().unwrap()),
            ConnectionFailure::TimedOut,
        ),
    ] {
        match refused(s3_plan(&endpoint)).await {
            StoreError::Unreachable { failure, source, .. } => assert_eq!(failure, expected, "{endpoint}: {source:?}"),
            error => panic!("{endpoint}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_certificate_counts_only_with_its_authority() {
    let server = S3Server::start_tls();
    server.create_bucket(BUCKET);
    let certificates = Certificates::of_this_process();
    let with = |bundle: Option<&str>, host: &str| S3Plan {
        ca_bundle: bundle.map(inline),
        ..s3_plan(&format!("https://{host}:{}", server.port))
    };
    let store = open_plan(with(Some(&certificates.root), "localhost")).await.unwrap();
    for size in [100, PART + 1] {
        store::put(&*store, "a", content(size)).await.unwrap();
        assert!(read(&*store, "a").await.unwrap() == content(size));
    }
    let both = format!("{}{}", certificates.unrelated_root, certificates.root);
    access(with(Some(&both), "127.0.0.1")).await.unwrap();

    for bundle in [None, Some(certificates.unrelated_root.as_str())] {
        let error = refused(with(bundle, "localhost")).await;
        assert!(matches!(error, StoreError::CertificateRejected { .. }), "{error}");
    }
    let other_name = Relay::start("127.0.0.2", server.port, None).await;
    let plan = S3Plan {
        endpoint: Some(format!("https://{}", other_name.address)),
        ..with(Some(&certificates.root), "")
    };
    let error = refused(plan).await;
    assert!(matches!(error, StoreError::CertificateRejected { .. }), "{error:?}");
    let error = refused(with(Some("no certificate"), "localhost")).await;
    assert!(matches!(error, StoreError::InvalidCaBundle { .. }), "{error}");
}

#[tokio::test]
async fn http_and_https_mixed_up_is_told_apart_from_a_bad_certificate() {
    let (tls, plain) = (S3Server::start_tls(), server());
    let error = refused(s3_plan(&format!("http://127.0.0.1:{}", tls.port))).await;
    let hint = error.hint().unwrap();
    assert!(
        error.reason() == reasons::STORE_UNREACHABLE && hint.contains("https://"),
        "{error}: {hint}"
    );
    let error = refused(s3_plan(&format!("https://127.0.0.1:{}", plain.port))).await;
    assert!(matches!(error, StoreError::TlsFailed { .. }), "{error}");
    let error = refused(s3_plan("127.0.0.1:7070")).await;
    assert!(matches!(error, StoreError::InvalidEndpoint { .. }), "{error}");
}

/// An endpoint that gives every request the same answer.
async fn endpoint_that_answers(
    status: StatusCode,
    headers: &[(&'static str, &'static str)],
    body: &'static str,
) -> String {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
        .collect();
    let app = Router::new().fallback(move || async move { (status, headers, body) });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it listens"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    endpoint
}

#[tokio::test]
async fn answers_are_told_apart_by_code_and_status() {
    let cases = [
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "<Error><Code>SlowDown</Code></Error>",
            reasons::STORE_FAILED,
            true,
        ),
        (
            StatusCode::BAD_GATEWAY,
            "<html>bad gateway</html>",
            reasons::STORE_FAILED,
            true,
        ),
        (
            StatusCode::FORBIDDEN,
            "<Error><Code>AccessDenied</Code></Error>",
            reasons::STORE_ACCESS_DENIED,
            false,
        ),
        (StatusCode::FORBIDDEN, "", reasons::STORE_ACCESS_DENIED, false),
        (
            StatusCode::FORBIDDEN,
            "<Error><Code>QuotaExceeded</Code></Error>",
            reasons::STORE_FULL,
            false,
        ),
        (StatusCode::INSUFFICIENT_STORAGE, "", reasons::STORE_FULL, false),
        (
            StatusCode::OK,
            "<html>welcome</html>",
            reasons::STORE_UNREACHABLE,
            false,
        ),
        (
            StatusCode::NOT_FOUND,
            "<html>not found</html>",
            reasons::STORE_UNREACHABLE,
            false,
        ),
    ];
    for (status, body, reason, temporary) in cases {
        let endpoint = endpoint_that_answers(status, &[], body).await;
        let error = refused(s3_plan(&endpoint)).await;
        assert_eq!(
            (error.reason(), error.is_temporary()),
            (reason, temporary),
            "{status} {body}: {error}"
        );
    }
    let elsewhere = [("x-amz-bucket-region", "eu-west-3")];
    let moved = "<Error><Code>PermanentRedirect</Code></Error>";
    let endpoint = endpoint_that_answers(StatusCode::MOVED_PERMANENTLY, &elsewhere, moved).await;
    match refused(s3_plan(&endpoint)).await {
        StoreError::WrongRegion { right, .. } => assert_eq!(right.as_deref(), Some("eu-west-3")),
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn without_any_credentials_the_error_says_what_is_missing() {
    // The chain looks into the environment of the process, so this runs in one of its own.
    let program = std::env::current_exe().unwrap();
    let output = tokio::process::Command::new(program)
        .args([
            "--exact",
            "store::refusals::no_credentials_in_this_process",
            "--ignored",
            "--nocapture",
        ])
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nonexistent")
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
#[ignore = "run by the test above, in an empty environment"]
async fn no_credentials_in_this_process() {
    let plan = S3Plan {
        credentials_secret: None,
        ..s3_plan("http://127.0.0.1:1")
    };
    let error = refused(plan).await;
    assert!(matches!(error, StoreError::CredentialsMissing { .. }), "{error:?}");
    assert_eq!(Refusal::from(error).reason, reasons::STORE_ACCESS_DENIED);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let plan = StoragePlan::Folder {
        path: "/nonexistent/backups".into(),
    };
    let store = store::open(&plan, &good_secret()).await.unwrap();
    let error = store.check_access(false).await.unwrap_err();
    assert!(matches!(error, StoreError::FolderMissing { .. }), "{error}");
    let claim = StoragePlan::Volume {
        claim_name: "claim".into(),
        path: "../..".into(),
    };
    let error = store::open(&claim, &good_secret())
        .await
        .err()
        .expect("it leaves the volume");
    assert!(matches!(error, StoreError::PathOutside { .. }), "{error}");
}
