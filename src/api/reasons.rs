//! Reasons in conditions, Events and failures. They are API: once released, a reason is never renamed.

macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident = $text:literal;)+) => {
        $($(#[$doc])+ pub const $name: &str = $text;)+
        /// Every reason, for the docs and for the test that none is given twice.
        pub const ALL: &[&str] = &[$($text),+];
    };
}

reasons! {
    /// The controller has seen the resource and works on it.
    PROGRESSING = "Progressing";
    /// The run ended well.
    SUCCEEDED = "Succeeded";
    /// The target remembers this request: nothing was changed.
    ALREADY_APPLIED = "AlreadyApplied";
    /// A dry run has shown its steps.
    PLANNED = "Planned";
    /// The spec contradicts itself or a rule.
    INVALID_SPEC = "InvalidSpec";
    /// The backup that a restore names is not there.
    BACKUP_NOT_FOUND = "BackupNotFound";
    /// The backup that a restore names is not finished.
    BACKUP_NOT_FINISHED = "BackupNotFinished";
    /// The backup that a restore names has failed.
    BACKUP_FAILED = "BackupFailed";
    /// A Secret, a ConfigMap or a key is not there yet.
    REFERENCE_MISSING = "ReferenceMissing";
    /// The server's name does not resolve.
    HOST_UNKNOWN = "HostUnknown";
    /// The server refused the connection or did not answer.
    CONNECTION_REFUSED = "ConnectionRefused";
    /// The connection was cut while it was in use.
    CONNECTION_LOST = "ConnectionLost";
    /// The password or the user is wrong.
    AUTHENTICATION_FAILED = "AuthenticationFailed";
    /// TLS could not be agreed, or a certificate does not fit.
    TLS_FAILED = "TlsFailed";
    /// The database does not exist.
    DATABASE_MISSING = "DatabaseMissing";
    /// A privilege is missing.
    PERMISSION_DENIED = "PermissionDenied";
    /// No client program is new enough for the server.
    SERVER_TOO_NEW = "ServerTooNew";
    /// The server is older than what is supported.
    SERVER_TOO_OLD = "ServerTooOld";
    /// The target's major version is older than the backup's.
    TARGET_TOO_OLD = "TargetTooOld";
    /// The client programs are not installed.
    CLIENT_TOOLS_MISSING = "ClientToolsMissing";
    /// A transaction pooler or load balancer stands in front of the server.
    POOLER_IN_FRONT = "PoolerInFront";
    /// Definitions changed while the backup ran, again and again.
    DEFINITIONS_CHANGED = "DefinitionsChanged";
    /// The server has too few lock slots.
    TOO_FEW_LOCKS = "TooFewLocks";
    /// The bucket does not exist.
    BUCKET_MISSING = "BucketMissing";
    /// The store denied access.
    STORE_ACCESS_DENIED = "StoreAccessDenied";
    /// The bucket is in another region.
    WRONG_REGION = "WrongRegion";
    /// The store's endpoint cannot be reached, or its certificate is not trusted.
    STORE_UNREACHABLE = "StoreUnreachable";
    /// The store or the volume has no room.
    STORE_FULL = "StoreFull";
    /// Another error of the store.
    STORE_FAILED = "StoreFailed";
    /// The manifest is of a newer format.
    MANIFEST_TOO_NEW = "ManifestTooNew";
    /// The manifest is missing or cannot be read.
    MANIFEST_INVALID = "ManifestInvalid";
    /// An object of the backup is missing.
    OBJECT_MISSING = "ObjectMissing";
    /// An object of the backup is not what was stored.
    OBJECT_CHANGED = "ObjectChanged";
    /// The backup is encrypted, and no identity was given.
    IDENTITY_MISSING = "IdentityMissing";
    /// The backup is encrypted, and what was given as an identity does not open it.
    IDENTITY_WRONG = "IdentityWrong";
    /// The storage holds no repository of pgrescue, or one that cannot be read.
    REPOSITORY_INVALID = "RepositoryInvalid";
    /// The repository is of a newer format.
    REPOSITORY_TOO_NEW = "RepositoryTooNew";
    /// A prune has taken the backup for dead.
    LOCK_LOST = "LockLost";
    /// An object of the backup cannot be deleted yet.
    OBJECT_LOCKED = "ObjectLocked";
    /// The bucket has no object lock, which the storage asks for.
    OBJECT_LOCK_MISSING = "ObjectLockMissing";
    /// The target database is not empty.
    TARGET_NOT_EMPTY = "TargetNotEmpty";
    /// The backup holds an object whose name pgrescue needs for itself.
    NAME_TAKEN = "NameTaken";
    /// The target server takes no writes.
    TARGET_READ_ONLY = "TargetReadOnly";
    /// The target server has no room.
    TARGET_FULL = "TargetFull";
    /// The target server has no such extension.
    EXTENSION_MISSING = "ExtensionMissing";
    /// A role does not exist on the target.
    ROLE_MISSING = "RoleMissing";
    /// The target cannot make a database with the encoding or locale.
    LOCALE_UNAVAILABLE = "LocaleUnavailable";
    /// No rule selects a foreign server.
    FOREIGN_SERVER_UNMATCHED = "ForeignServerUnmatched";
    /// A rule selects no foreign server.
    FOREIGN_SERVER_RULE_UNUSED = "ForeignServerRuleUnused";
    /// Two rules select the same foreign server.
    FOREIGN_SERVER_RULES_OVERLAP = "ForeignServerRulesOverlap";
    /// Something needs a foreign server that is to be left out.
    FOREIGN_SERVER_IN_USE = "ForeignServerInUse";
    /// A mapping or subscription was stripped of its credentials, and none were given.
    CREDENTIALS_NEEDED = "CredentialsNeeded";
    /// A rewritten foreign server did not answer.
    FOREIGN_SERVER_UNREACHABLE = "ForeignServerUnreachable";
    /// pg_dump failed.
    DUMP_FAILED = "DumpFailed";
    /// pg_restore failed, or a statement of the restore.
    RESTORE_FAILED = "RestoreFailed";
    /// Rows, indexes or constraints are not what they should be.
    VERIFICATION_FAILED = "VerificationFailed";
    /// The run took longer than its deadline.
    DEADLINE_EXCEEDED = "DeadlineExceeded";
    /// The run was told to stop.
    INTERRUPTED = "Interrupted";
    /// The Job is gone and no outcome is known.
    JOB_LOST = "JobLost";
    /// The pod ended without a report.
    REPORT_MISSING = "ReportMissing";
    /// The pod was killed because it used too much memory.
    OUT_OF_MEMORY = "OutOfMemory";
    /// The artefact is being deleted.
    DELETING = "Deleting";
    /// Another run works on the same target.
    TARGET_BUSY = "TargetBusy";
    /// An error that pgrescue did not foresee.
    INTERNAL = "Internal";
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn no_reason_is_given_twice() {
        let distinct: std::collections::BTreeSet<_> = ALL.iter().collect();
        assert_eq!(distinct.len(), ALL.len());
    }
}
