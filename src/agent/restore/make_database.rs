//! Step `database`: creates the target database, or takes the empty one. Before it there is nothing to undo; from its
//! first change on, a mark says what belongs to the run.

use std::fmt::Write as _;

use tokio_postgres::error::SqlState;

use super::attempt::Attempt;
use super::before;
use super::ledger;
use super::mark::{self, Mark};
use super::{resume, undo};
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::restore_findings::{EmptyDatabase, Locale};
use crate::plan::restore_steps::MakeDatabase;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::sqlstate;

/// Makes the database ready for pre-data.
pub(super) async fn run(attempt: &mut Attempt<'_>) -> Result<String, Refusal> {
    if resume::take_over(attempt).await?.is_some() {
        return Ok(format!(
            "Went on with the database {:?}, where an earlier attempt had stopped",
            attempt.target.database
        ));
    }
    // What an earlier attempt left otherwise goes first: loading anew begins with an empty database.
    let undone = undo::undo(attempt.guard.session(), &attempt.target, &attempt.plan.run, None, false).await?;
    if let Some(left) = undone.left.first() {
        return Err(Refusal::permanent(
            reasons::TARGET_NOT_EMPTY,
            format!(
                "The database {:?} still holds what an earlier attempt made and could not remove, such as {left}.",
                attempt.target.database
            ),
        )
        .object(&attempt.target.database)
        .hint("Empty it yourself, then create the resource again."));
    }
    match attempt.steps.make.clone() {
        MakeDatabase::Create(locale) => {
            create(attempt, &locale).await?;
            begin(attempt, &[]).await?;
            Ok(format!("Created the database {:?}", attempt.target.database))
        }
        MakeDatabase::Fill(empty) => {
            let EmptyDatabase { extensions, .. } = empty;
            let extensions: Vec<_> = extensions.into_keys().collect();
            begin(attempt, &extensions).await?;
            Ok(format!("Took the empty database {:?}", attempt.target.database))
        }
    }
}

/// Creates the database under a name that follows from the run's UID, marks it, and renames it: at no moment is there
/// a database of this run that a retry or the clean-up would not know.
async fn create(attempt: &mut Attempt<'_>, locale: &Locale) -> Result<(), Refusal> {
    let unmarked = mark::unmarked_name(&attempt.plan.run);
    let database = attempt.target.database.clone();
    let session = attempt.guard.session();
    let sql = create_statement(&unmarked, locale, session.server_major());
    session.batch_execute(&sql).await.map_err(|error| match error.code() {
        // What PostgreSQL says of a locale that it does not have, or that does not fit the encoding.
        Some(&SqlState::WRONG_OBJECT_TYPE | &SqlState::INVALID_PARAMETER_VALUE | &SqlState::FEATURE_NOT_SUPPORTED) => {
            Refusal::permanent(
                reasons::LOCALE_UNAVAILABLE,
                format!(
                    "The target server cannot make a database with encoding {}, provider {} and locale {:?}: {}.",
                    locale.encoding,
                    locale.provider,
                    locale.sorts_by(),
                    sqlstate::text(&error).trim_end_matches('.')
                ),
            )
            .object(&database)
            .hint("Install the locale on the server, or create an empty database with another one and restore into it.")
        }
        _ => session.refusal(&error, &format!("creating the database {database:?}"), Some(&database)),
    })?;
    let mark = Mark::new(&attempt.plan.run, &attempt.name).to_comment();
    let quoted = identifier(&unmarked);
    let mut statements = vec![
        format!("COMMENT ON DATABASE {quoted} IS {}", literal(&mark)),
        // Nobody but its owner sees half a database.
        format!("REVOKE ALL ON DATABASE {quoted} FROM PUBLIC"),
        format!("ALTER DATABASE {quoted} RENAME TO {}", identifier(&database)),
    ];
    statements.extend(attempt.definitions.settings.iter().cloned());
    let session = attempt.guard.session_mut();
    let result = async {
        let transaction = session.transaction().await?;
        for statement in &statements {
            transaction.batch_execute(statement).await?;
        }
        transaction.commit().await
    }
    .await;
    result.map_err(|error| {
        if sqlstate::is(&error, &SqlState::DUPLICATE_DATABASE) {
            let message = format!("Somebody else created the database {database:?} just now.");
            return Refusal::permanent(reasons::TARGET_NOT_EMPTY, message)
                .object(&database)
                .hint("Name another database in spec.target.database.");
        }
        let doing = format!("giving the new database {database:?} its settings");
        attempt.guard.session().refusal(&error, &doing, Some(&database))
    })
}

/// `CREATE DATABASE` as the target's version takes it. `template0` is the only template with any locale and nothing
/// in it.
fn create_statement(name: &str, locale: &Locale, major: u32) -> String {
    let Locale {
        encoding,
        provider,
        collate,
        ctype,
        locale,
        icu_rules,
    } = locale;
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        identifier(name),
        literal(encoding),
        literal(collate),
        literal(ctype)
    );
    if major >= 15 {
        // Said always: the template's own provider would be taken otherwise.
        let _ = write!(sql, " LOCALE_PROVIDER {provider}");
        let option = if provider == "builtin" {
            "BUILTIN_LOCALE"
        } else {
            "ICU_LOCALE"
        };
        if let Some(locale) = locale {
            let _ = write!(sql, " {option} {}", literal(locale));
        }
    }
    if let (Some(rules), 16..) = (icu_rules, major) {
        let _ = write!(sql, " ICU_RULES {}", literal(rules));
    }
    sql
}

/// Notes in the database itself that the run begins to fill it.
async fn begin(attempt: &mut Attempt<'_>, extensions: &[String]) -> Result<(), Refusal> {
    let mut session = attempt.target.connect().await?;
    let result = async {
        let bring_back = before::statements(&session).await?;
        let transaction = session.transaction().await?;
        ledger::begin(
            &transaction,
            attempt.plan,
            &attempt.name,
            &attempt.source.manifest.snapshot,
            &attempt.source.manifest_sha256,
            extensions,
            &bring_back,
        )
        .await?;
        transaction.commit().await
    }
    .await;
    result.map_err(|error| {
        let doing = "noting the restore in the target database";
        session.refusal(&error, doing, Some(&attempt.target.database))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_created_as_each_version_takes_it() {
        let libc = Locale {
            encoding: "UTF8".into(),
            provider: "libc".into(),
            collate: "de_DE.utf8".into(),
            ctype: "C".into(),
            locale: None,
            icu_rules: None,
        };
        let icu = Locale {
            provider: "icu".into(),
            locale: Some("de-x-it's".into()),
            icu_rules: Some("& a < g".into()),
            ..libc.clone()
        };
        let builtin = Locale {
            provider: "builtin".into(),
            locale: Some("C.UTF-8".into()),
            ..libc.clone()
        };
        insta::assert_snapshot!(
            [
                create_statement("o \"x\"", &libc, 14),
                create_statement("o", &libc, 15),
                create_statement("o", &icu, 15),
                create_statement("o", &icu, 16),
                create_statement("o", &builtin, 17),
            ]
            .join("\n")
        );
    }
}
