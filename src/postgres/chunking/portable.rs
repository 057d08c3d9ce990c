//! Column types whose binary form means the same on every server from the source's version on. What is not on the list
//! goes as text. Binary input checks little, so the list is of types that were tried, not of types that failed.

use std::collections::BTreeMap;

use tokio_postgres::types::{Oid, Type};

/// One type of the catalogs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PgType {
    /// `pg_type.oid`.
    pub oid: Oid,
    /// `pg_type.typname`.
    pub name: String,
    /// `pg_type.typtype`.
    pub kind: String,
    /// Element type of a true array (`pg_type.typarray` of the element names it).
    pub array_of: Option<Oid>,
    /// Base type of a domain, subtype of a range, range of a multirange.
    pub made_of: Option<Oid>,
    /// Types of the attributes of a composite type.
    pub attributes: Vec<Oid>,
    /// Extension that it belongs to.
    pub extension: Option<String>,
    /// Whether it has a send and a receive function.
    pub has_binary: bool,
}

/// The types of some columns, and all that those are made of.
#[derive(Clone, Debug, Default)]
pub struct PgTypes {
    by_oid: BTreeMap<Oid, PgType>,
    server_major: u32,
}

/// OIDs below are written down in PostgreSQL's source and mean the same type in every version; those above are given at
/// build time or later (`FirstGenbkiObjectId`).
const FIRST_UNSTABLE_OID: Oid = 10_000;

/// OIDs below are PostgreSQL's own (`FirstNormalObjectId`).
const FIRST_NORMAL_OID: Oid = 16_384;

/// The binary form of arrays and composites holds the OIDs of their parts. From this version on, the receiving side
/// passes over a difference between OIDs that are not stable (`array_recv`, `record_recv`).
const FIRST_TOLERANT_MAJOR: u32 = 14;

/// Built-in types. The reg types are not among them: they are raw OIDs. Nor are tsquery, oidvector and int2vector: their
/// receive functions refuse an empty value, which their send functions give out (`tsqueryrecv`, `oidvectorrecv`).
const BUILT_IN: [Type; 54] = [
    Type::BOOL,
    Type::BYTEA,
    Type::CHAR,
    Type::NAME,
    Type::INT8,
    Type::INT2,
    Type::INT4,
    Type::TEXT,
    Type::OID,
    Type::TID,
    Type::XID,
    Type::CID,
    Type::JSON,
    Type::XML,
    Type::POINT,
    Type::LSEG,
    Type::PATH,
    Type::BOX,
    Type::POLYGON,
    Type::LINE,
    Type::CIDR,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::CIRCLE,
    Type::MACADDR8,
    Type::MONEY,
    Type::MACADDR,
    Type::INET,
    Type::BPCHAR,
    Type::VARCHAR,
    Type::DATE,
    Type::TIME,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
    Type::INTERVAL,
    Type::TIMETZ,
    Type::BIT,
    Type::VARBIT,
    Type::NUMERIC,
    Type::REFCURSOR,
    Type::UUID,
    Type::TXID_SNAPSHOT,
    Type::PG_SNAPSHOT,
    Type::XID8,
    Type::PG_LSN,
    Type::TS_VECTOR,
    Type::JSONB,
    Type::JSONPATH,
    Type::INT4_RANGE,
    Type::INT8_RANGE,
    Type::NUM_RANGE,
    Type::TS_RANGE,
    Type::TSTZ_RANGE,
    Type::DATE_RANGE,
];

/// Base types of extensions, as extension and type. Older versions of some have no binary form: that is looked for.
const OF_EXTENSIONS: [(&str, &str); 6] = [
    ("citext", "citext"),
    ("hstore", "hstore"),
    ("ltree", "ltree"),
    ("ltree", "lquery"),
    ("ltree", "ltxtquery"),
    ("cube", "cube"),
];

/// Types are made of types to a small depth; a catalog that says otherwise is damaged.
const DEPTH_LIMIT: u32 = 64;

impl PgTypes {
    /// The types of a server of this major version.
    #[must_use]
    pub fn new(types: impl IntoIterator<Item = PgType>, server_major: u32) -> Self {
        Self {
            by_oid: types.into_iter().map(|found| (found.oid, found)).collect(),
            server_major,
        }
    }

    /// Whether values of this type can be copied in binary. A type that is not known cannot.
    #[must_use]
    pub fn is_portable(&self, oid: Oid) -> bool {
        self.within_depth(oid, DEPTH_LIMIT)
    }

    fn within_depth(&self, oid: Oid, depth: u32) -> bool {
        let Some(depth) = depth.checked_sub(1) else {
            return false;
        };
        let Some(of) = self.by_oid.get(&oid) else { return false };
        let PgType {
            oid: _,
            name,
            kind,
            array_of,
            made_of,
            attributes,
            extension,
            has_binary,
        } = of;
        if !has_binary {
            return false;
        }
        if BUILT_IN.iter().any(|known| known.oid() == oid) {
            return true;
        }
        if let Some(element) = array_of {
            return self.names_safely(*element) && self.within_depth(*element, depth);
        }
        let inner = || made_of.is_some_and(|inner| self.within_depth(inner, depth));
        match kind.as_str() {
            // The label goes over the wire.
            "e" => true,
            "d" | "r" | "m" => inner(),
            // The row types of catalogs differ between versions.
            "c" => {
                oid >= FIRST_NORMAL_OID
                    && attributes
                        .iter()
                        .all(|attribute| self.names_safely(*attribute) && self.within_depth(*attribute, depth))
            }
            "b" => extension
                .as_deref()
                .is_some_and(|extension| OF_EXTENSIONS.contains(&(extension, name.as_str()))),
            _ => false,
        }
    }

    /// Whether this OID may stand in the binary form.
    fn names_safely(&self, oid: Oid) -> bool {
        oid < FIRST_UNSTABLE_OID || self.server_major >= FIRST_TOLERANT_MAJOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_kind(oid: Oid, kind: &str) -> PgType {
        PgType {
            oid,
            kind: kind.into(),
            has_binary: true,
            ..PgType::default()
        }
    }

    fn types(major: u32) -> PgTypes {
        let extension = |oid, extension: &str, name: &str| PgType {
            name: name.into(),
            extension: Some(extension.into()),
            ..of_kind(oid, "b")
        };
        let array = |oid, element| PgType {
            array_of: Some(element),
            ..of_kind(oid, "b")
        };
        let made_of = |oid, kind, inner| PgType {
            made_of: Some(inner),
            ..of_kind(oid, kind)
        };
        let composite = |oid, attributes: &[Oid]| PgType {
            attributes: attributes.to_vec(),
            ..of_kind(oid, "c")
        };
        let all = [
            of_kind(Type::INT4.oid(), "b"),
            of_kind(Type::REGCLASS.oid(), "b"),
            array(Type::INT4_ARRAY.oid(), Type::INT4.oid()),
            array(Type::REGCLASS_ARRAY.oid(), Type::REGCLASS.oid()),
            of_kind(20_000, "e"),
            array(20_001, 20_000),
            made_of(20_002, "d", Type::INT4.oid()),
            made_of(20_003, "d", Type::REGCLASS.oid()),
            made_of(20_004, "r", 20_002),
            made_of(20_005, "m", 20_004),
            composite(20_006, &[Type::INT4.oid(), Type::INT4_ARRAY.oid()]),
            composite(20_007, &[Type::INT4.oid(), 20_000]),
            composite(20_008, &[Type::INT4.oid(), Type::REGCLASS.oid()]),
            array(20_009, 20_006),
            composite(12_000, &[Type::INT4.oid()]),
            extension(20_010, "hstore", "hstore"),
            extension(20_011, "hstore", "ghstore"),
            extension(20_012, "postgis", "geometry"),
            PgType {
                has_binary: false,
                ..extension(20_013, "ltree", "ltree")
            },
            composite(20_014, &[20_014]),
            of_kind(20_015, "p"),
            of_kind(20_016, "b"),
        ];
        PgTypes::new(all, major)
    }

    #[test]
    fn what_holds_only_values_is_portable_from_every_version() {
        let types = types(12);
        for oid in [
            Type::INT4.oid(),
            Type::INT4_ARRAY.oid(),
            20_000,
            20_002,
            20_004,
            20_005,
            20_006,
            20_010,
        ] {
            assert!(types.is_portable(oid), "{oid}");
        }
    }

    #[test]
    fn what_names_types_of_the_user_in_its_binary_form_is_portable_from_14_on() {
        for oid in [20_001, 20_007, 20_009] {
            assert!(!types(13).is_portable(oid), "{oid}");
            assert!(types(14).is_portable(oid), "{oid}");
        }
    }

    #[test]
    fn what_holds_a_raw_oid_or_was_never_tried_is_not_portable() {
        let types = types(18);
        for oid in [
            Type::REGCLASS.oid(),
            Type::REGCLASS_ARRAY.oid(),
            20_003,
            20_008,
            12_000,
            20_011,
            20_012,
            20_013,
            20_014,
            20_015,
            20_016,
            99_999,
        ] {
            assert!(!types.is_portable(oid), "{oid}");
        }
    }
}
