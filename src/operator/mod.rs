//! The controllers: plan, apply, observe, status. A reconciliation begins in `reconcile`; each of its steps is a file
//! that says whether it needs a client.

pub mod apply;
mod begin;
pub mod context;
mod controllers;
mod deletion;
pub mod error;
mod events;
mod finalizers;
mod finish;
mod follow;
mod follow_up;
pub mod health;
pub mod job;
mod leader;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod plan;
pub mod pod;
pub mod reconcile;
mod record;
pub mod release;
pub mod resource;
pub mod settings;
pub mod status;
pub mod validate;
pub mod verdict;

#[cfg(test)]
mod scenarios;

use std::sync::Arc;

use kube::Client;
use kube::runtime::events::Reporter;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use context::Context;
use leader::Leadership;
use metrics::Metrics;

pub use crate::api::crds;
pub use settings::Settings;

/// The operator could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No configuration of the API server was found.
    #[error("no API server is configured; run in a pod, or set KUBECONFIG")]
    Client(#[from] kube::Error),
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SIGTERM cannot be caught.
    #[error("SIGTERM cannot be caught")]
    Signal(#[source] std::io::Error),
}

/// Runs the operator until SIGTERM or SIGINT, and returns the exit code.
pub async fn run(settings: Settings) -> i32 {
    match start(settings).await {
        Ok(()) => 0,
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(source, "{error}");
            1
        }
    }
}

async fn start(settings: Settings) -> Result<(), StartError> {
    let stop = stop_on_signal().map_err(StartError::Signal)?;
    let client = Client::try_default().await?;
    let metrics = Arc::new(Metrics::default());
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|source| StartError::Listen {
            address: settings.listen,
            source,
        })?;
    let server = tokio::spawn(health::serve(
        listener,
        client.clone(),
        Arc::clone(&metrics),
        stop.clone(),
    ));
    tracing::info!(identity = settings.identity, "started");
    if settings.leader_election {
        work_while_leading(&client, &settings, &metrics, &stop).await;
    } else {
        work(&client, &settings, &metrics, &stop).await;
    }
    match server.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("the server of /healthz ended badly: {error}"),
        Err(error) => tracing::warn!("the server of /healthz ended badly: {error}"),
    }
    tracing::info!("stopped");
    Ok(())
}

async fn work_while_leading(client: &Client, settings: &Settings, metrics: &Arc<Metrics>, stop: &CancellationToken) {
    let Some(mut leadership) = Leadership::stand(client, settings, stop).await else {
        return;
    };
    while !stop.is_cancelled() {
        let leads = tokio::select! {
            leads = leadership.until(true) => leads,
            () = stop.cancelled() => break,
        };
        if !leads {
            tracing::error!("the election ended; the process ends too and is started again");
            stop.cancel();
            break;
        }
        tracing::info!("this replica leads");
        metrics.leader(true);
        let term = stop.child_token();
        tokio::join!(work(client, settings, metrics, &term), async {
            tokio::select! {
                _ = leadership.until(false) => tracing::warn!("this replica no longer leads"),
                () = term.cancelled() => {}
            }
            term.cancel();
        });
        metrics.leader(false);
    }
    leadership.resign().await;
}

async fn work(client: &Client, settings: &Settings, metrics: &Arc<Metrics>, stop: &CancellationToken) {
    let scopes: Vec<Option<String>> = match settings.namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    let reporter = Reporter {
        controller: "pgrescue".into(),
        instance: Some(settings.identity.clone()),
    };
    let context = |waiting| Context {
        client: client.clone(),
        settings: settings.clone(),
        reporter: reporter.clone(),
        metrics: Arc::clone(metrics),
        waiting,
    };
    controllers::run(&scopes, context, stop).await;
}

fn stop_on_signal() -> Result<CancellationToken, std::io::Error> {
    let stop = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                tracing::info!("told to stop");
                stop.cancel();
            }
        });
    }
    Ok(stop)
}
