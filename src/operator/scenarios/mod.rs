//! Chains of reconciliations over an API server in memory, for every transition of a run. Each scenario is a test, and
//! all of them together make the calls that the operator's rights are compared with.

mod api_server;
mod cluster;
mod deletions;
mod endings;
mod pods;
mod replicas;
mod restores;
mod rights;
mod runs;
mod unfinished;

/// Makes each scenario a test, and a function that runs all of a module and returns the calls that they made.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        mod tests {
            $(
                #[tokio::test]
                async fn $name() {
                    Box::pin(super::$name(&mut $crate::operator::scenarios::cluster::Cluster::new())).await;
                }
            )+
        }

        pub async fn all() -> std::collections::BTreeSet<$crate::operator::scenarios::api_server::Call> {
            let mut calls = std::collections::BTreeSet::new();
            $(
                let mut cluster = $crate::operator::scenarios::cluster::Cluster::new();
                Box::pin($name(&mut cluster)).await;
                calls.extend(cluster.server.calls());
            )+
            calls
        }
    };
}
use scenarios;
