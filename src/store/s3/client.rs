//! How the S3 client is set up: endpoint, region, credentials, certificates, timeouts and retries.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction, RetryConfig};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RuntimeComponents, SharedCredentialsProvider, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::operation::upload_part::UploadPartError;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder, HttpClientError};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::failure::DAMAGED_ON_THE_WAY;
use crate::plan::references::{S3_ACCESS_KEY, S3_SECRET_KEY};
use crate::plan::storage::S3Plan;
use crate::references::{ReferenceError, References};
use crate::store::StoreError;

/// Names under which a Secret may keep the session token: that of the AWS tools, and that of CloudNativePG's examples.
const SESSION_TOKEN: [&str; 2] = ["AWS_SESSION_TOKEN", "ACCESS_SESSION_TOKEN"];

/// Region for signatures where nothing names one; a store with another one says so.
const DEFAULT_REGION: &str = "us-east-1";

/// How long one request may take whose answer does not depend on the size of an object.
const ATTEMPT: Duration = Duration::from_mins(1);

/// How long the same may take before the store has answered for the first time.
const FIRST_ATTEMPT: Duration = Duration::from_secs(8);

/// A stream that has not moved a byte for so long is broken.
const STALLED: Duration = Duration::from_secs(30);

/// Clients of one storage.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    /// Until the store has answered for the first time: an endpoint that cannot be reached fails within seconds.
    pub first: Client,
    /// After that: a store that is away for a minute does not end a backup of hours.
    pub patient: Client,
    /// Region of the signatures.
    pub region: String,
    /// URL of the endpoint.
    pub endpoint: String,
}

impl Clients {
    pub(super) async fn new(plan: &S3Plan, references: &dyn References) -> Result<Self, StoreError> {
        if let Some(endpoint) = &plan.endpoint {
            check_endpoint(endpoint)?;
        }
        let credentials = match &plan.credentials_secret {
            Some(secret) => Some(credentials_of(secret, &references.secret(secret).await?)?),
            None => None,
        };
        let region = region_of(plan).await;
        let mut config = if let Some(credentials) = credentials {
            aws_sdk_s3::Config::builder().credentials_provider(SharedCredentialsProvider::new(credentials))
        } else {
            let mut shared = aws_config::defaults(BehaviorVersion::latest()).region(region.clone());
            if let Some(client) = credentials_client() {
                shared = shared.http_client(client);
            }
            aws_sdk_s3::config::Builder::from(&shared.load().await)
        };
        config = config
            .behavior_version(BehaviorVersion::latest())
            .region(region.clone())
            .force_path_style(plan.force_path_style)
            .retry_classifier(Damaged)
            .http_client(http_client(plan, references).await?)
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .grace_period(STALLED)
                    .upload_enabled(true)
                    .build(),
            );
        if let Some(endpoint) = &plan.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_secs(4));
        let first = config
            .clone()
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .timeout_config(timeouts.clone().operation_attempt_timeout(FIRST_ATTEMPT).build());
        let patient = config
            .retry_config(
                RetryConfig::adaptive()
                    .with_max_attempts(10)
                    .with_initial_backoff(Duration::from_millis(500)),
            )
            .timeout_config(timeouts.operation_attempt_timeout(ATTEMPT).build());
        Ok(Self {
            first: Client::from_conf(first.build()),
            patient: Client::from_conf(patient.build()),
            endpoint: plan
                .endpoint
                .clone()
                .unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com")),
            region: region.to_string(),
        })
    }
}

/// For a request that carries or makes `bytes`: at least 64 KiB a second. Bodies that do not move are noticed sooner.
pub(super) fn timeout_for(bytes: u64) -> aws_sdk_s3::config::Builder {
    let timeout = ATTEMPT + Duration::from_secs(bytes / (64 * 1024));
    aws_sdk_s3::Config::builder().timeout_config(TimeoutConfig::builder().operation_attempt_timeout(timeout).build())
}

/// Sends again what the store says arrived damaged; the SDK takes that for a fault of the request.
#[derive(Debug)]
struct Damaged;

impl ClassifyRetry for Damaged {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err);
        let Some(error) = error.and_then(|error| error.as_operation_error()) else {
            return RetryAction::NoActionIndicated;
        };
        let code = error
            .downcast_ref()
            .and_then(PutObjectError::code)
            .or_else(|| error.downcast_ref().and_then(UploadPartError::code));
        if code.is_some_and(|code| DAMAGED_ON_THE_WAY.contains(&code)) {
            RetryAction::transient_error()
        } else {
            RetryAction::NoActionIndicated
        }
    }

    fn name(&self) -> &'static str {
        "damaged on the way"
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), StoreError> {
    let usable = url::Url::parse(endpoint)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty());
    if usable {
        Ok(())
    } else {
        Err(StoreError::InvalidEndpoint {
            endpoint: endpoint.to_owned(),
        })
    }
}

/// The region that is named, else what the SDK's chain finds. Beside an endpoint the instance metadata is not asked:
/// it would be the region of something else, and where there is none it costs seconds.
async fn region_of(plan: &S3Plan) -> Region {
    if let Some(region) = &plan.region {
        return Region::new(region.clone());
    }
    let found = if plan.endpoint.is_some() {
        let environment = EnvironmentVariableRegionProvider::new();
        RegionProviderChain::first_try(environment)
            .or_else(ProfileFileRegionProvider::new())
            .region()
            .await
    } else {
        RegionProviderChain::default_provider().region().await
    };
    found.unwrap_or_else(|| Region::from_static(DEFAULT_REGION))
}

fn credentials_of(secret: &str, keys: &BTreeMap<String, SecretString>) -> Result<Credentials, StoreError> {
    let find = |names: [&str; 2]| {
        // A Secret made from a file often ends with a newline, which no key has.
        let value = names.iter().find_map(|name| keys.get(*name))?.expose_secret().trim();
        (!value.is_empty()).then(|| value.to_owned())
    };
    let required = |names: [&str; 2]| {
        find(names).ok_or_else(|| ReferenceError::KeyMissing {
            kind: "Secret",
            name: secret.to_owned(),
            key: names[0].to_owned(),
        })
    };
    let (access, key) = (required(S3_ACCESS_KEY)?, required(S3_SECRET_KEY)?);
    Ok(Credentials::new(access, key, find(SESSION_TOKEN), None, "Secret"))
}

/// HTTP over the SDK's own client, through the proxy that the environment names, and with the plan's authorities.
async fn http_client(plan: &S3Plan, references: &dyn References) -> Result<SharedHttpClient, StoreError> {
    let trust = match &plan.ca_bundle {
        None => TrustStore::default(),
        Some(source) => {
            let bundle = references.text(source).await?;
            check_bundle(bundle.expose_secret()).ok_or_else(|| StoreError::InvalidCaBundle {
                bucket: plan.bucket.clone(),
            })?;
            TrustStore::empty().with_pem_certificate(bundle.expose_secret().as_bytes())
        }
    };
    client_with(trust, ProxyConfig::from_env()).map_err(|error| StoreError::Client {
        object: format!("s3://{}", plan.bucket),
        action: "set up TLS for",
        source: error.into(),
    })
}

/// For the services that give credentials: over HTTPS they are reached through the environment's proxy. What they say
/// over HTTP comes from the machine or the cluster itself, where no proxy leads. `None` where there is no proxy.
fn credentials_client() -> Option<SharedHttpClient> {
    let variable = |names: [&str; 2]| {
        let mut values = names.iter().filter_map(|name| std::env::var(name).ok());
        values.find(|value| !value.is_empty())
    };
    let proxy = ProxyConfig::https(variable(["HTTPS_PROXY", "https_proxy"])?).ok()?;
    let proxy = proxy.no_proxy(variable(["NO_PROXY", "no_proxy"]).unwrap_or_default());
    client_with(TrustStore::default(), proxy).ok()
}

fn client_with(trust: TrustStore, proxy: ProxyConfig) -> Result<SharedHttpClient, HttpClientError> {
    let context = TlsContext::builder().with_trust_store(trust).build()?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(Provider::rustls(CryptoMode::AwsLc))
            .tls_context(context.clone())
            .proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.build()
    }))
}

/// The HTTP client takes a certificate that it cannot read for a fault of the program.
fn check_bundle(bundle: &str) -> Option<()> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(bundle.as_bytes())
        .collect::<Result<_, _>>()
        .ok()?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).ok()?;
    }
    (!roots.is_empty()).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_without_credentials() {
        for endpoint in [
            "http://s3.shop.svc:7070",
            "https://s3.example.com",
            "https://[::1]:9000/path",
        ] {
            assert!(check_endpoint(endpoint).is_ok(), "{endpoint}");
        }
        for endpoint in [
            "s3.shop.svc:7070",
            "s3://bucket",
            "ftp://x",
            "https://user:password@host",
            "http://",
            "",
        ] {
            assert!(check_endpoint(endpoint).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn keys_of_a_secret_may_be_spelled_in_two_ways() {
        let secret = |keys: &[(&str, &str)]| {
            let keys = keys
                .iter()
                .map(|(key, value)| ((*key).to_owned(), SecretString::from(*value)));
            credentials_of("s3", &keys.collect())
        };
        let credentials = secret(&[("ACCESS_KEY_ID", "a\n"), ("ACCESS_SECRET_KEY", "b")]).unwrap();
        assert_eq!(
            (credentials.access_key_id(), credentials.secret_access_key()),
            ("a", "b")
        );
        let credentials = secret(&[
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_SESSION_TOKEN", "c"),
        ]);
        assert_eq!(credentials.unwrap().session_token(), Some("c"));
        let error = secret(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", " ")]).unwrap_err();
        assert!(
            matches!(error, StoreError::Reference(ReferenceError::KeyMissing { .. })),
            "{error}"
        );
        assert!(error.is_temporary());
    }

    #[test]
    fn a_bundle_without_a_certificate_is_refused() {
        for bundle in [
            "",
            "text",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        ] {
            assert!(check_bundle(bundle).is_none(), "{bundle:?}");
        }
    }
}
