//! Credentials by the SDK's whole chain, and addresses: each in a process of its own, whose environment decides.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use pgrescue::plan::storage::S3Plan;
use pgrescue::store;

use super::{BUCKET, PREFIX, content, open_plan, read, s3_plan, server};
use crate::parts::{Fault, FaultyProxy, S3Server};

const ROLE: &str = "arn:aws:iam::123456789012:role/backups";
const SESSION: &str = "canary-session-token";

/// What was asked of the service that gives credentials: the method, the authorization, and the body.
type Asked = Arc<Mutex<Vec<(Method, String, String)>>>;

async fn give(State(asked): State<Asked>, method: Method, headers: HeaderMap, body: String) -> String {
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    let authorization = authorization.unwrap_or_default().to_owned();
    asked
        .lock()
        .expect("nobody panicked")
        .push((method.clone(), authorization, body.clone()));
    let (access, secret) = (S3Server::ACCESS_KEY, S3Server::SECRET_KEY);
    if method == Method::GET {
        return serde_json::json!({
            "AccessKeyId": access, "SecretAccessKey": secret, "Token": SESSION, "Expiration": "2099-01-01T00:00:00Z",
        })
        .to_string();
    }
    let action = if body.contains("AssumeRoleWithWebIdentity") {
        "AssumeRoleWithWebIdentity"
    } else {
        "AssumeRole"
    };
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{access}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
         <SessionToken>{SESSION}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
         <AssumedRoleUser><Arn>{ROLE}/x</Arn><AssumedRoleId>x:x</AssumedRoleId></AssumedRoleUser>\
         </{action}Result></{action}Response>"
    )
}

/// A service that gives credentials: its URL, and what it was asked.
async fn credentials_service() -> (String, Asked) {
    let asked = Asked::default();
    let app = Router::new().fallback(give).with_state(Arc::clone(&asked));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it listens"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, asked)
}

/// Runs one of the ignored tests below with this environment and no other.
async fn run(test: &str, endpoint: &str, environment: &[(&str, &str)]) {
    let output = tokio::process::Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", &format!("store::chain::{test}"), "--ignored", "--nocapture"])
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nonexistent")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TEST_S3_ENDPOINT", endpoint)
        .envs(environment.iter().copied())
        .output()
        .await
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn plan() -> S3Plan {
    let endpoint = std::env::var("TEST_S3_ENDPOINT").expect("the test above gives it");
    S3Plan {
        credentials_secret: None,
        region: None,
        ..s3_plan(&endpoint)
    }
}

#[tokio::test]
#[ignore = "run by tests of this file, each in its environment"]
async fn writes_and_reads() {
    let store = open_plan(plan()).await.expect("the plan is good");
    store.check_access(true).await.expect("it may write");
    store::put(&*store, "chain", content(1000)).await.expect("it writes");
    assert!(read(&*store, "chain").await.expect("it reads") == content(1000));
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the folder is ours");
    path.display().to_string()
}

#[tokio::test]
async fn every_kind_of_credentials_writes_and_reads() {
    let server = server();
    let (service, asked) = credentials_service().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (access, secret) = (S3Server::ACCESS_KEY, S3Server::SECRET_KEY);
    let region = ("AWS_REGION", S3Server::REGION);
    let token = file(folder.path(), "token", "canary-identity");
    let keys = format!("aws_access_key_id = {access}\naws_secret_access_key = {secret}\n");
    let of_profile = file(
        folder.path(),
        "credentials",
        &format!("[default]\n{keys}[base]\n{keys}"),
    );
    let of_role = file(
        folder.path(),
        "config",
        &format!(
            "[profile backups]\nrole_arn = {ROLE}\nsource_profile = base\nregion = {}\n",
            S3Server::REGION
        ),
    );
    let container = format!("{service}/v1/credentials");
    // The name, the environment, and what the service is asked for.
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, Option<&'a str>);
    let cases: [Case<'_>; 5] = [
        (
            "keys",
            vec![region, ("AWS_ACCESS_KEY_ID", access), ("AWS_SECRET_ACCESS_KEY", secret)],
            None,
        ),
        (
            "profile",
            vec![region, ("AWS_SHARED_CREDENTIALS_FILE", &of_profile)],
            None,
        ),
        (
            "assumed role",
            vec![
                ("AWS_PROFILE", "backups"),
                ("AWS_CONFIG_FILE", &of_role),
                ("AWS_SHARED_CREDENTIALS_FILE", &of_profile),
                ("AWS_ENDPOINT_URL_STS", &service),
            ],
            Some("Action=AssumeRole&"),
        ),
        (
            "web identity",
            vec![
                region,
                ("AWS_ROLE_ARN", ROLE),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
                ("AWS_ENDPOINT_URL_STS", &service),
            ],
            Some("WebIdentityToken=canary-identity"),
        ),
        (
            "pod identity",
            vec![
                region,
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
            ],
            Some("canary-identity"),
        ),
    ];
    for (name, environment, question) in cases {
        let proxy = FaultyProxy::start(server.port);
        run("writes_and_reads", &proxy.endpoint, &environment).await;
        let questions = std::mem::take(&mut *asked.lock().expect("nobody panicked"));
        match question {
            None => assert_eq!(questions.len(), 0, "{name}: {questions:?}"),
            Some(part) => assert!(
                questions
                    .iter()
                    .any(|(_, authorization, body)| body.contains(part) || authorization == part),
                "{name}: {questions:?}"
            ),
        }
        let requests = proxy.requests();
        assert!(requests.len() >= 5, "{name}");
        for request in requests {
            let session = question.map(|_| SESSION);
            assert_eq!(request.header("x-amz-security-token"), session, "{name}: {request:?}");
        }
        assert!(
            server.object(BUCKET, &format!("{PREFIX}/chain")) == content(1000),
            "{name}"
        );
    }
}

#[tokio::test]
#[ignore = "run by the test below, with a proxy in its environment"]
async fn asks_with_and_without_path_style() {
    for force_path_style in [true, false] {
        let plan = S3Plan {
            force_path_style,
            ..plan()
        };
        let error = open_plan(plan).await.expect("a plan").check_access(false).await;
        error.expect_err("nobody may list");
    }
}

#[tokio::test]
async fn the_bucket_stands_in_the_host_name_or_in_the_path_and_a_proxy_is_used() {
    let proxy = FaultyProxy::start(1);
    proxy.always(Fault::Answer(403, "AccessDenied"), |_| true);
    let environment = [
        ("HTTP_PROXY", proxy.endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "y"),
    ];
    run(
        "asks_with_and_without_path_style",
        "http://s3.example.invalid",
        &environment,
    )
    .await;
    let asked: Vec<_> = proxy
        .requests()
        .iter()
        .map(|request| request.path().to_owned())
        .collect();
    let expected = [
        format!("http://s3.example.invalid/{BUCKET}/"),
        format!("http://{BUCKET}.s3.example.invalid/"),
    ];
    assert_eq!(asked, expected);
}

#[tokio::test]
#[ignore = "run by the test below, with a proxy in its environment"]
async fn finds_no_credentials() {
    let store = open_plan(plan()).await.expect("a plan");
    let error = store.check_access(false).await.expect_err("nobody gives credentials");
    assert!(
        matches!(error, store::StoreError::CredentialsMissing { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_role_is_asked_for_through_the_proxy_and_the_metadata_of_a_pod_is_not() {
    let proxy = FaultyProxy::start(1);
    proxy.always(Fault::Answer(403, "AccessDenied"), |_| true);
    let folder = tempfile::tempdir().expect("a folder");
    let token = file(folder.path(), "token", "canary-identity");
    let (service, asked) = credentials_service().await;
    let container = format!("{service}/v1/credentials");
    let proxies = [
        ("HTTPS_PROXY", proxy.endpoint.as_str()),
        ("HTTP_PROXY", &proxy.endpoint),
        ("NO_PROXY", "s3.test"),
    ];
    let role = [
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
        ("AWS_ENDPOINT_URL_STS", "https://sts.example.invalid"),
    ];
    run(
        "finds_no_credentials",
        "http://s3.test:1",
        &[proxies.as_slice(), &role].concat(),
    )
    .await;
    let requests = proxy.requests();
    assert!(!requests.is_empty());
    for request in &requests {
        assert_eq!(
            (request.method.as_str(), request.path()),
            ("CONNECT", "sts.example.invalid:443")
        );
    }
    let pod = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
    ];
    let s3 = server();
    let environment = [
        &proxies[..1],
        &[("NO_PROXY", "127.0.0.1"), ("AWS_REGION", S3Server::REGION)],
        &pod,
    ]
    .concat();
    run("writes_and_reads", &s3.endpoint, &environment).await;
    assert_eq!(asked.lock().expect("nobody panicked").len(), 1);
    assert_eq!(proxy.requests().len(), requests.len());
}
