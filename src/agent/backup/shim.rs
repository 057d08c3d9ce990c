//! temporary
use crate::plan::Refusal;
use crate::postgres::archive::Toc;
use crate::postgres::connection::Session;
use crate::store::manifest::*;
pub(super) struct ServerContents {
    pub server: ServerManifest,
    pub roles: Vec<RoleManifest>,
    pub memberships: Vec<MembershipManifest>,
    pub role_settings: Vec<RoleSettingManifest>,
    pub tablespaces: Vec<TablespaceManifest>,
    pub omissions: Vec<Omission>,
}
pub(super) async fn server(_s: &Session) -> Result<ServerContents, Refusal> {
    Ok(ServerContents {
        server: ServerManifest::default(),
        roles: vec![],
        memberships: vec![],
        role_settings: vec![],
        tablespaces: vec![],
        omissions: vec![],
    })
}
pub(super) async fn database(s: &Session) -> Result<(DatabaseManifest, Vec<Omission>), Refusal> {
    let relations = super::relations::Relation::all(s)
        .await
        .map_err(|e| s.refusal(&e, "x", None))?;
    let relations = relations
        .into_iter()
        .map(|r| RelationManifest {
            oid: r.oid,
            schema: r.schema,
            name: r.name,
            ..Default::default()
        })
        .collect();
    Ok((
        DatabaseManifest {
            name: s.settings().database().unwrap().to_owned(),
            relations,
            ..Default::default()
        },
        vec![],
    ))
}
pub(super) fn strip_credentials(_t: &mut Toc) -> Result<Vec<StrippedCredential>, Refusal> {
    Ok(vec![])
}
