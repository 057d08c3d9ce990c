//! Subscriptions of a database, without their connection strings.

use super::reader::{Columns as _, Reader};
use crate::plan::Refusal;
use crate::store::manifest::SubscriptionManifest;

/// `None` where the role may not read them.
pub(super) async fn read(reader: &mut Reader<'_>) -> Result<Option<Vec<SubscriptionManifest>>, Refusal> {
    let sql = "SELECT bool_and(has_column_privilege('pg_subscription', c, 'SELECT')) AS readable \
               FROM unnest('{subname,subowner,subenabled,subpublications,subslotname,subdbid}'::text[]) c";
    let readable: bool = reader
        .one("privileges on subscriptions", sql, &[], |row| row.try_get("readable"))
        .await?;
    if !readable {
        let reason =
            "The role of the backup may not read pg_subscription, and pg_dump leaves subscriptions out for it.";
        reader.omit("databases.subscriptions", reason);
        return Ok(None);
    }
    let sql = "SELECT s.subname AS name, pg_get_userbyid(s.subowner) AS owner, s.subenabled AS enabled, \
                      s.subpublications AS publications, s.subslotname AS slot \
               FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database() \
               ORDER BY 1";
    let mut subscriptions = Vec::new();
    reader
        .each("subscriptions", sql, &[], |row| {
            subscriptions.push(SubscriptionManifest {
                name: row.text("name")?,
                owner: row.text("owner")?,
                enabled: row.try_get("enabled")?,
                publications: row.texts("publications")?,
                slot: row.optional_text("slot")?,
            });
            Ok(())
        })
        .await?;
    Ok(Some(subscriptions))
}
