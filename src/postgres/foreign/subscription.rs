//! Connection strings of subscriptions.

use pg_query::NodeEnum;
use secrecy::{ExposeSecret, SecretString};

use super::error::ForeignError;
use super::secrecy::{OptionOf, is_secret};
use super::statement::Definition;
use crate::postgres::connection::{parse_conninfo, render_conninfo};

/// What is recorded as stripped where a connection string cannot be read and is left out as a whole.
const WHOLE: &str = "conninfo";

/// Removes what is secret from the connection string, and returns the names of the parameters that went.
pub(super) fn strip_connection(definition: &mut Definition) -> Result<Vec<String>, ForeignError> {
    let unexpected = definition.unexpected();
    let Some(NodeEnum::CreateSubscriptionStmt(create)) = definition.statements_mut().next() else {
        return Err(unexpected);
    };
    let Ok(mut parameters) = parse_conninfo(&create.conninfo) else {
        create.conninfo = String::new();
        return Ok(vec![WHOLE.into()]);
    };
    let mut stripped = Vec::new();
    parameters.retain(|name, value| {
        let secret = is_secret(OptionOf::Connection, name, value);
        if secret {
            stripped.push(name.clone());
        }
        !secret
    });
    if !stripped.is_empty() {
        create.conninfo = render_conninfo(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }
    Ok(stripped)
}

/// Gives the subscription another connection string.
pub(super) fn replace_connection(definition: &mut Definition, connection: &SecretString) -> Result<(), ForeignError> {
    definition.check_encoding(connection.expose_secret())?;
    let unexpected = definition.unexpected();
    let Some(NodeEnum::CreateSubscriptionStmt(create)) = definition.statements_mut().next() else {
        return Err(unexpected);
    };
    connection.expose_secret().clone_into(&mut create.conninfo);
    Ok(())
}
