//! What the catalogs tell about a server and a database, for the manifest and for checks before a run. Works on every
//! supported version, and for roles with few privileges: what a restore needs must be readable, the rest is left out
//! with the reason.

mod databases;
mod foreign_servers;
mod reader;
mod relation_parts;
mod relations;
mod roles;
mod schemas;
mod server;
mod settings;
mod subscriptions;

use tokio_postgres::types::Oid;

pub use databases::{DatabaseEntry, list as databases};
pub(crate) use reader::Text;
pub use server::SETTINGS;

use super::connection::Session;
use crate::plan::Refusal;
use crate::store::manifest::{
    DatabaseManifest, MembershipManifest, Omission, RoleManifest, RoleSettingManifest, ServerManifest,
    TablespaceManifest,
};
use reader::Reader;

/// What belongs to no database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerCatalog {
    /// The server.
    pub server: ServerManifest,
    /// Its roles, by name.
    pub roles: Vec<RoleManifest>,
    /// Memberships.
    pub memberships: Vec<MembershipManifest>,
    /// Settings of roles.
    pub role_settings: Vec<RoleSettingManifest>,
    /// Tablespaces, by name.
    pub tablespaces: Vec<TablespaceManifest>,
    /// What could not be read.
    pub omissions: Vec<Omission>,
}

/// Reads what belongs to no database. The session must be in a transaction, which is used as it is: its snapshot
/// decides what is seen, and savepoints keep it alive where something may not be read.
pub async fn read_server(session: &Session) -> Result<ServerCatalog, Refusal> {
    let mut reader = Reader::new(session, None);
    let server = server::read(&mut reader).await?;
    let roles = roles::read(&mut reader).await?;
    let memberships = roles::memberships(&mut reader).await?;
    let role_settings = settings::of_roles(&mut reader).await?;
    let tablespaces = server::tablespaces(&mut reader).await?;
    Ok(ServerCatalog {
        server,
        roles,
        memberships,
        role_settings,
        tablespaces,
        omissions: reader.into_omissions(),
    })
}

/// Reads the database that the session is in, but for what is known only when its rows have been stored. The session
/// must be in a transaction, as for [`read_server`].
pub async fn read_database(session: &Session) -> Result<(DatabaseManifest, Vec<Omission>), Refusal> {
    let mut reader = Reader::new(session, session.settings().database());
    let mut database = databases::read(&mut reader).await?;
    database.settings = settings::of_database(&mut reader).await?;
    database.extensions = schemas::extensions(&mut reader).await?;
    database.schemas = schemas::read(&mut reader).await?;
    database.relations = relations::read(&mut reader).await?;
    database.foreign_data_wrappers = foreign_servers::wrappers(&mut reader).await?;
    database.foreign_servers = foreign_servers::read(&mut reader).await?;
    database.subscriptions = subscriptions::read(&mut reader).await?;
    Ok((database, reader.into_omissions()))
}

/// OIDs below are PostgreSQL's own objects (`FirstNormalObjectId`).
const FIRST_NORMAL_OID: Oid = 16_384;
