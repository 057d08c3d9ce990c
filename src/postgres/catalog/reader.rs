//! Runs the queries of this module in the caller's transaction.

use std::pin::pin;

use futures::TryStreamExt as _;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::connection::Session;
use crate::postgres::sqlstate;
use crate::store::manifest::Omission;

/// Parameters of a query.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Queries of one database, and what they could not read.
pub(super) struct Reader<'a> {
    session: &'a Session,
    database: Option<String>,
    omissions: Vec<Omission>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(session: &'a Session, database: Option<&str>) -> Self {
        Self {
            session,
            database: database.map(str::to_owned),
            omissions: Vec::new(),
        }
    }

    pub(super) fn session(&self) -> &Session {
        self.session
    }

    pub(super) fn into_omissions(self) -> Vec<Omission> {
        self.omissions
    }

    /// Notes a field that is left out.
    pub(super) fn omit(&mut self, field: &str, reason: impl Into<String>) {
        self.omissions.push(Omission {
            database: self.database.clone(),
            field: field.to_owned(),
            reason: reason.into(),
        });
    }

    /// Rows that the backup needs, each handed on as it arrives. `subject` completes "reading the …".
    pub(super) async fn each(
        &self,
        subject: &str,
        sql: &str,
        parameters: Parameters<'_>,
        mut row: impl FnMut(&Row) -> Result<(), tokio_postgres::Error> + Send,
    ) -> Result<(), Refusal> {
        let refused = |error| self.session.refusal(&error, &format!("reading the {subject}"), None);
        self.stream(sql, parameters, &mut row).await.map_err(refused)
    }

    /// Rows that describe. Where they cannot be read, `field` is noted as left out, and the transaction goes on. Sizes
    /// and definitions are read under locks on their tables, which a table that the backup does not hold may refuse:
    /// they are not worth waiting for.
    pub(super) async fn describe(
        &mut self,
        field: &str,
        sql: &str,
        parameters: Parameters<'_>,
        mut row: impl FnMut(&Row) -> Result<(), tokio_postgres::Error> + Send,
    ) -> Result<(), Refusal> {
        let doing = format!("reading {field}");
        let refused = |error: tokio_postgres::Error| self.session.refusal(&error, &doing, None);
        let begin = "SAVEPOINT pgrescue_catalog; SET LOCAL lock_timeout = '2s'";
        self.session.batch_execute(begin).await.map_err(refused)?;
        let result = self.stream(sql, parameters, &mut row).await;
        // Rolling back undoes the setting too; a query leaves nothing else behind.
        let end = "ROLLBACK TO SAVEPOINT pgrescue_catalog; RELEASE SAVEPOINT pgrescue_catalog";
        let ended = self.session.batch_execute(end).await.map_err(refused);
        if let Err(error) = result {
            self.omit(field, format!("{}.", sqlstate::text(&error)));
        }
        ended
    }

    async fn stream(
        &self,
        sql: &str,
        parameters: Parameters<'_>,
        row: &mut (dyn FnMut(&Row) -> Result<(), tokio_postgres::Error> + Send),
    ) -> Result<(), tokio_postgres::Error> {
        let rows = self.session.query_raw(sql, parameters.iter().copied()).await?;
        let mut rows = pin!(rows);
        while let Some(next) = rows.try_next().await? {
            row(&next)?;
        }
        Ok(())
    }

    /// The one row of a query that the backup needs.
    pub(super) async fn one<T: Send>(
        &self,
        subject: &str,
        sql: &str,
        parameters: Parameters<'_>,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error> + Send + Sync,
    ) -> Result<T, Refusal> {
        let mut found = None;
        self.each(subject, sql, parameters, |row| {
            found = Some(read(row)?);
            Ok(())
        })
        .await?;
        found.ok_or_else(|| Refusal::permanent(reasons::INTERNAL, format!("Reading the {subject} gave no row.")))
    }
}

/// Text of any bytes: a database in `SQL_ASCII` checks nothing. What is not UTF-8 is shown as U+FFFD.
pub(crate) struct Text(pub(crate) String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(String::from_utf8_lossy(raw).into_owned()))
    }

    fn accepts(ty: &Type) -> bool {
        <String as FromSql>::accepts(ty)
    }
}

/// Columns by name, in the types of the manifest.
pub(super) trait Columns {
    fn text(&self, column: &str) -> Result<String, tokio_postgres::Error>;
    fn optional_text(&self, column: &str) -> Result<Option<String>, tokio_postgres::Error>;
    fn texts(&self, column: &str) -> Result<Vec<String>, tokio_postgres::Error>;
    /// `bigint`; a negative one is none.
    fn count(&self, column: &str) -> Result<Option<u64>, tokio_postgres::Error>;
}

impl Columns for Row {
    fn text(&self, column: &str) -> Result<String, tokio_postgres::Error> {
        self.try_get::<_, Text>(column).map(|text| text.0)
    }

    fn optional_text(&self, column: &str) -> Result<Option<String>, tokio_postgres::Error> {
        self.try_get::<_, Option<Text>>(column)
            .map(|text| text.map(|text| text.0))
    }

    fn texts(&self, column: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        let texts: Option<Vec<Text>> = self.try_get(column)?;
        Ok(texts.unwrap_or_default().into_iter().map(|text| text.0).collect())
    }

    fn count(&self, column: &str) -> Result<Option<u64>, tokio_postgres::Error> {
        let count: Option<i64> = self.try_get(column)?;
        Ok(count.and_then(|count| u64::try_from(count).ok()))
    }
}
