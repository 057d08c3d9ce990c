//! /healthz, /readyz and /metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kube::{Client, Resource};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::api::{GROUP, PgBackup, PgRestore, VERSION};

/// Media type of the text that Prometheus reads.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Health {
    client: Client,
    metrics: Arc<Metrics>,
}

/// Answers until `stop` is set.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), std::io::Error> {
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Health { client, metrics });
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn readyz(State(health): State<Health>) -> Response {
    match unready(&health.client).await {
        None => "ok".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

/// Why the operator can do nothing, if so: the API server is away, or a CRD is missing.
pub async fn unready(client: &Client) -> Option<String> {
    let kinds = [
        (PgBackup::plural(&()), PgBackup::kind(&())),
        (PgRestore::plural(&()), PgRestore::kind(&())),
    ];
    let version = format!("{GROUP}/{VERSION}");
    let served = match client.list_api_group_resources(&version).await {
        Ok(list) => list.resources.into_iter().map(|resource| resource.name).collect(),
        Err(kube::Error::Api(status)) if status.is_not_found() => Vec::new(),
        Err(error) => return Some(format!("the API server does not answer: {error}\n")),
    };
    let missing: Vec<String> = kinds
        .iter()
        .filter(|(plural, _)| !served.iter().any(|name| name == plural))
        .map(|(plural, _)| {
            format!("the CustomResourceDefinition {plural}.{GROUP} is missing; apply crds/ of this release\n")
        })
        .collect();
    (!missing.is_empty()).then(|| missing.concat())
}

async fn metrics_text(State(health): State<Health>) -> Response {
    match health.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
