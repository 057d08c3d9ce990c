//! Signing a request whose body has a known SHA-256, which is signed where TLS does not protect the body (`S3 API
//! Reference`, "Authenticating Requests", `x-amz-content-sha256`).

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

/// The SHA-256 of the body, in hex.
#[derive(Debug)]
pub(super) struct KnownPayload(pub(super) String);

impl Intercept for KnownPayload {
    fn name(&self) -> &'static str {
        "KnownPayload"
    }

    fn modify_before_signing(
        &self,
        _context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let sha256 = PayloadSigningOverride::Precomputed(self.0.clone());
        config.interceptor_state().store_put(sha256);
        Ok(())
    }
}
