//! What an error of the S3 client means: by S3's error codes, by HTTP statuses and by the types of errors, never by
//! the words of a message.

use std::error::Error;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::Place;
use crate::store::StoreError;
use crate::store::error::ConnectionFailure;

/// Codes of a store that found another checksum or another length than it was told: the request is good.
pub(super) const DAMAGED_ON_THE_WAY: [&str; 4] = [
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "IncompleteBody",
];

/// An answer of the store that is an error.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub status: u16,
    /// Empty where the answer has none, as those to HEAD requests.
    pub code: String,
    message: String,
    region: Option<String>,
}

/// The store's answer in an error, `None` where there was none.
pub(super) fn answer<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<Answer> {
    let (raw, metadata) = match error {
        SdkError::ServiceError(error) => (error.raw(), Some(error.err().meta())),
        SdkError::ResponseError(error) => (error.raw(), None),
        _ => return None,
    };
    let region = raw.headers().get("x-amz-bucket-region").map(str::to_owned);
    Some(Answer {
        status: raw.status().as_u16(),
        code: metadata.and_then(|it| it.code()).unwrap_or_default().to_owned(),
        message: metadata.and_then(|it| it.message()).unwrap_or_default().to_owned(),
        region: region.or_else(|| region_in(raw.body().bytes()?)),
    })
}

/// `AuthorizationHeaderMalformed` and `PermanentRedirect` name the region that is right in an element of the answer.
fn region_in(body: &[u8]) -> Option<String> {
    let (_, rest) = std::str::from_utf8(body).ok()?.split_once("<Region>")?;
    let (region, _) = rest.split_once("</Region>")?;
    let plain = !region.is_empty()
        && region
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    plain.then(|| region.to_owned())
}

/// An error that stands inside of an answer, by its code alone.
pub(super) fn of_code(place: &Place, action: &'static str, key: Option<&str>, code: String) -> StoreError {
    let answer = Answer {
        status: 200,
        code,
        ..Answer::default()
    };
    from_answer(place, action, key, answer)
}

/// The error of a request that was to do `action` with `key`, or with the storage itself where there is none.
pub(super) async fn explain<E>(
    place: &Place,
    action: &'static str,
    key: Option<&str>,
    error: SdkError<E, HttpResponse>,
) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if let Some(answer) = answer(&error) {
        return from_answer(place, action, key, answer);
    }
    let kind = match &error {
        SdkError::TimeoutError(_) => Unanswered::TimedOut,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Unanswered::TimedOut,
        SdkError::DispatchFailure(failure) if !failure.is_user() => Unanswered::Connection,
        _ => Unanswered::Request,
    };
    without_answer(place, action, key, kind, error.into()).await
}

fn from_answer(place: &Place, action: &'static str, key: Option<&str>, answer: Answer) -> StoreError {
    let Answer {
        status,
        code,
        message,
        region,
    } = answer;
    let (endpoint, object, location) = (place.endpoint.clone(), place.object(key), place.location());
    let bucket = place.bucket.clone();
    let shown = if code.is_empty() {
        "no code".to_owned()
    } else {
        code.clone()
    };
    match (code.as_str(), status) {
        ("NoSuchKey", _) => StoreError::ObjectMissing {
            location,
            key: key.unwrap_or_default().to_owned(),
        },
        ("PreconditionFailed", _) | ("", 412) => StoreError::ObjectExists {
            location,
            key: key.unwrap_or_default().to_owned(),
        },
        ("NoSuchBucket", _) => StoreError::BucketMissing { bucket, endpoint },
        (
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
            _,
        )
        | ("", 301 | 307) => StoreError::WrongRegion {
            bucket,
            used: place.region.clone(),
            right: region.filter(|right| *right != place.region),
        },
        ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "InvalidSecurity" | "NotSignedUp", _)
        | (_, 401) => StoreError::CredentialsRejected {
            endpoint,
            object,
            code: shown,
        },
        ("ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException", _) => {
            StoreError::CredentialsExpired { object, code }
        }
        ("RequestTimeTooSkewed" | "RequestExpired", _) => StoreError::ClockSkewed { endpoint, code },
        (
            "QuotaExceeded"
            | "InsufficientStorage"
            | "InsufficientCapacity"
            | "XMinioStorageFull"
            | "XMinioAdminBucketQuotaExceeded",
            _,
        )
        | (_, 507) => StoreError::Full { object, code: shown },
        (damaged, _) if DAMAGED_ON_THE_WAY.contains(&damaged) => StoreError::DamagedOnTheWay { endpoint, object, code },
        (kms, _) if kms.starts_with("KMS.") => StoreError::KeyUnusable { object, action, code },
        ("AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "InvalidObjectState", _) | ("", 403) => {
            StoreError::AccessDenied {
                object,
                action,
                code: shown,
            }
        }
        ("", 200..=407 | 409..=428) => StoreError::NotS3 { endpoint, status },
        ("NotImplemented", _) | (_, 501) => rejected(endpoint, object, action, status, shown, message),
        (
            "SlowDown"
            | "ServiceUnavailable"
            | "InternalError"
            | "RequestTimeout"
            | "Throttling"
            | "ThrottlingException"
            | "OperationAborted"
            | "ConditionalRequestConflict",
            _,
        )
        | (_, 408 | 429 | 500..) => StoreError::Unavailable {
            endpoint,
            object,
            action,
            status,
            code: shown,
        },
        _ => rejected(endpoint, object, action, status, shown, message),
    }
}

fn rejected(
    endpoint: String,
    object: String,
    action: &'static str,
    status: u16,
    code: String,
    message: String,
) -> StoreError {
    StoreError::Rejected {
        endpoint,
        object,
        action,
        status,
        code,
        message: if message.is_empty() {
            message
        } else {
            format!(": {message}")
        },
    }
}

/// What kind of error there was before the store answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unanswered {
    TimedOut,
    Connection,
    Request,
}

async fn without_answer(
    place: &Place,
    action: &'static str,
    key: Option<&str>,
    kind: Unanswered,
    error: Box<dyn Error + Send + Sync>,
) -> StoreError {
    let endpoint = place.endpoint.clone();
    let object = place.object(key);
    if find::<CredentialsError>(&*error).is_some() {
        return StoreError::CredentialsMissing { object, source: error };
    }
    if let Some(tls) = find::<rustls::Error>(&*error) {
        let source = tls.clone();
        return match source {
            rustls::Error::InvalidCertificate(_) => StoreError::CertificateRejected { endpoint, source },
            source => StoreError::TlsFailed { endpoint, source },
        };
    }
    let failure = match (kind, connection_failure(&*error)) {
        (Unanswered::Request, _) => {
            return StoreError::Client {
                object,
                action,
                source: error,
            };
        }
        (Unanswered::TimedOut, _) => ConnectionFailure::TimedOut,
        (Unanswered::Connection, Some(failure)) => failure,
        // The resolver's error has no type of its own: ask again.
        (Unanswered::Connection, None) if !resolves(&endpoint).await => ConnectionFailure::HostUnknown,
        (Unanswered::Connection, None) => ConnectionFailure::Lost,
    };
    StoreError::Unreachable {
        endpoint,
        failure,
        source: error,
    }
}

async fn resolves(endpoint: &str) -> bool {
    let Some(url) = url::Url::parse(endpoint).ok() else {
        return false;
    };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return false;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    tokio::net::lookup_host((host, port)).await.is_ok()
}

/// The error beneath a stream of bytes that ended early.
pub(super) fn cut(place: &Place, error: Box<dyn Error + Send + Sync>) -> StoreError {
    StoreError::Unreachable {
        endpoint: place.endpoint.clone(),
        failure: ConnectionFailure::Lost,
        source: error,
    }
}

/// The error and everything beneath it; an `io::Error` hides what it carries from `source()`.
fn chain<'error>(error: &'error (dyn Error + 'static)) -> impl Iterator<Item = &'error (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let carried = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .map(|inner| inner as &(dyn Error + 'static));
        carried.or_else(|| error.source())
    })
}

fn find<'error, T: Error + 'static>(error: &'error (dyn Error + 'static)) -> Option<&'error T> {
    chain(error).find_map(|inner| inner.downcast_ref::<T>())
}

fn connection_failure(error: &(dyn Error + 'static)) -> Option<ConnectionFailure> {
    chain(error).find_map(|inner| match inner.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionRefused => Some(ConnectionFailure::Refused),
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some(ConnectionFailure::TimedOut)
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(ConnectionFailure::Lost),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_region_is_taken_from_the_answer() {
        let body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-central-1</Region></Error>";
        assert_eq!(region_in(body).as_deref(), Some("eu-central-1"));
        assert_eq!(region_in(b"<Error><Region></Region></Error>"), None);
        assert_eq!(region_in(b"<Error><Region>a b</Region></Error>"), None);
        assert_eq!(region_in(b"\xff"), None);
    }

    #[test]
    fn every_code_and_status_has_its_meaning() {
        let place = Place {
            endpoint: "http://s3:7070".into(),
            bucket: "backups".into(),
            prefix: "shop".into(),
            region: "us-east-1".into(),
        };
        let sentences: Vec<_> = [
            ("NoSuchKey", 404),
            ("NoSuchBucket", 404),
            ("AccessDenied", 403),
            ("", 403),
            ("InvalidAccessKeyId", 403),
            ("SignatureDoesNotMatch", 403),
            ("ExpiredToken", 400),
            ("AuthorizationHeaderMalformed", 400),
            ("PermanentRedirect", 301),
            ("RequestTimeTooSkewed", 403),
            ("QuotaExceeded", 403),
            ("InsufficientStorage", 507),
            ("PreconditionFailed", 412),
            ("SlowDown", 503),
            ("InternalError", 500),
            ("", 502),
            ("", 429),
            ("", 400),
            ("", 200),
            ("EntityTooLarge", 400),
            ("BadDigest", 400),
            ("KMS.DisabledException", 400),
            ("NotImplemented", 501),
        ]
        .into_iter()
        .map(|(code, status)| {
            let answer = Answer {
                status,
                code: code.into(),
                region: Some("eu-central-1".into()),
                ..Answer::default()
            };
            let error = from_answer(&place, "write", Some("a/b"), answer);
            let refusal = crate::plan::Refusal::from(error);
            format!("{code} {status} -> {} {:?}: {refusal}", refusal.reason, refusal.class)
        })
        .collect();
        insta::assert_snapshot!(sentences.join("\n"));
    }
}
