//! The types that go in binary, one by one: what a server of every version sends, one of the same version and the newest
//! one take as the same values.

use std::fmt::Write as _;
use std::iter::zip;

use pgrescue::store::manifest::RowFormat;
use serde_json::json;

use super::reassemble::{restore, stream};
use super::{Objects, backed_up};
use crate::parts::{Database, NEWEST_CLIENT, PostgresServer};

/// What stands behind the values of a table.
const END: &str = "the end of a table";

/// A type whose values come without the blanks at their end.
const PADDED: &str = "char(20)";

/// From which version of the source on a type goes in binary.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Binary {
    Always,
    From(u32),
    Never,
}

/// A type, some values as texts, and how a column of it, and one of its array, is to be copied.
struct Case {
    of: &'static str,
    values: &'static [&'static str],
    since: u32,
    binary: Binary,
    /// `None`: there is no array of it.
    array: Option<Binary>,
}

const fn built_in(of: &'static str, values: &'static [&'static str]) -> Case {
    Case {
        of,
        values,
        since: 12,
        binary: Binary::Always,
        array: Some(Binary::Always),
    }
}

const fn since(since: u32, case: Case) -> Case {
    Case { since, ..case }
}

const fn without_array(case: Case) -> Case {
    Case { array: None, ..case }
}

/// A type that is not PostgreSQL's own, which an array names by its OID.
const fn own(of: &'static str, values: &'static [&'static str], binary: Binary) -> Case {
    Case {
        of,
        values,
        since: 12,
        binary,
        array: Some(match binary {
            Binary::Never => Binary::Never,
            Binary::Always => Binary::From(14),
            Binary::From(major) => Binary::From(if major > 14 { major } else { 14 }),
        }),
    }
}

const fn never(of: &'static str, values: &'static [&'static str]) -> Case {
    Case {
        of,
        values,
        since: 12,
        binary: Binary::Never,
        array: Some(Binary::Never),
    }
}

const OWN_TYPES: &str = "
    CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION cube;
    CREATE EXTENSION seg; CREATE EXTENSION isn; CREATE EXTENSION intarray;
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'hap''py');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN feeling AS mood;
    CREATE DOMAIN code AS char(20);
    CREATE DOMAIN moods AS mood[];
    CREATE DOMAIN numbers AS int[];
    CREATE DOMAIN class AS regclass;
    CREATE TYPE point3d AS (x float8, \"the y\" numeric, z int[]);
    CREATE TYPE felt AS (at timestamptz, mood mood);
    CREATE TYPE nested AS (at point3d, name text);
    CREATE TYPE named AS (id int, class regclass);
    CREATE TYPE dropped AS (a int, b regclass, c text);
    ALTER TYPE dropped DROP ATTRIBUTE b;
    CREATE TYPE nothing AS ();
    CREATE TYPE floats AS RANGE (SUBTYPE = float8);
    CREATE TYPE feelings AS RANGE (SUBTYPE = mood);
    CREATE TABLE shape (id int, body text);
    CREATE TYPE own_text;
    CREATE FUNCTION own_text_in(cstring) RETURNS own_text LANGUAGE internal IMMUTABLE STRICT AS 'textin';
    CREATE FUNCTION own_text_out(own_text) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
    CREATE TYPE own_text (INPUT = own_text_in, OUTPUT = own_text_out, LIKE = text);";

const CASES: &[Case] = &[
    built_in("boolean", &["t", "f"]),
    built_in("\"char\"", &["x", ""]),
    built_in("char(5)", &["ab", "abcde"]),
    built_in(PADDED, &["", "é  x", "中\t  ", "  of twenty, no blank"]),
    built_in("bpchar", &["blanks  ", ""]),
    own("code", &["ab", ""], Binary::Always),
    built_in("varchar(9)", &["", "a\tb"]),
    built_in("text", &["", "\\N", "\\.", "ü \" ' \\ \n\r"]),
    built_in("name", &["pg_class", ""]),
    built_in("int2", &["-32768", "32767"]),
    built_in("int4", &["-2147483648", "2147483647"]),
    built_in("int8", &["-9223372036854775808", "9223372036854775807"]),
    built_in("float4", &["1.1754944e-38", "NaN", "-Infinity", "-0"]),
    built_in("float8", &["2.2250738585072014e-308", "NaN", "Infinity", "0.1"]),
    built_in(
        "numeric",
        &["NaN", "1e-300", "-123456789012345678901234567890.0000", "0"],
    ),
    since(14, built_in("numeric(9,3)", &["-12.340", "999999.999"])),
    built_in("money", &["-12.34", "92233720368547758.07"]),
    built_in("bytea", &["\\x", "\\x00ff5c0a"]),
    built_in("bit(5)", &["10101"]),
    built_in("varbit", &["1", "", "0101010101010101"]),
    built_in("date", &["4713-01-01 BC", "infinity", "5874897-12-31"]),
    built_in("time", &["24:00:00", "00:00:00.000001"]),
    built_in("timetz", &["12:34:56.789012+05:30", "00:00-15:59"]),
    built_in(
        "timestamp",
        &["-infinity", "294276-12-31 23:59:59.999999", "0044-03-15 BC"],
    ),
    built_in("timestamptz(3)", &["infinity", "2000-02-29 23:59:59.999+00"]),
    built_in(
        "interval",
        &["-178000000 years", "1 year -2 mons 3 days -00:00:00.000001"],
    ),
    since(17, built_in("interval day", &["infinity", "-infinity"])),
    built_in("json", &["{\"b\":1, \"a\" : [1,2,  null], \"b\":2}"]),
    built_in("jsonb", &["{\"a\": [1, 2.50, null, \"\\u00e9\"]}", "1e400"]),
    built_in("jsonpath", &["$.\"a\"[*] ? (@ > 1)", "strict $"]),
    built_in("xml", &["<a b=\"1\">text &amp; more</a>", "", "<!DOCTYPE x><x/>"]),
    built_in("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    built_in("inet", &["::ffff:1.2.3.4/128", "10.1.2.3/8"]),
    built_in("cidr", &["10.0.0.0/8", "::/0"]),
    built_in("macaddr", &["08:00:2b:01:02:03"]),
    built_in("macaddr8", &["08:00:2b:01:02:03:04:05"]),
    built_in("point", &["(1.5,-2.5)"]),
    built_in("line", &["{1,2,3}"]),
    built_in("lseg", &["[(1,1),(2,2)]"]),
    built_in("box", &["((0,0),(1,1))"]),
    built_in("path", &["[(1,1),(2,2),(3,1)]", "((0,0))"]),
    built_in("polygon", &["((0,0),(1,1),(2,0))"]),
    built_in("circle", &["<(1,1),5>"]),
    built_in("tsvector", &["'quo''ted':1A word:2B", ""]),
    never("tsquery", &["'two words' & !three:*A", ""]),
    built_in("pg_lsn", &["16/B374D848"]),
    built_in("txid_snapshot", &["10:20:10,14,15"]),
    since(13, built_in("pg_snapshot", &["10:20:10,14,15"])),
    since(13, built_in("xid8", &["18446744073709551615"])),
    built_in("oid", &["4294967295"]),
    built_in("tid", &["(10,20)"]),
    built_in("xid", &["4294967295"]),
    built_in("cid", &["4294967295"]),
    built_in("refcursor", &["a cursor"]),
    without_array(never("oidvector", &["1 2 3", ""])),
    without_array(never("int2vector", &["4 5 6", ""])),
    built_in("int4range", &["[1,10)", "empty", "(,)"]),
    built_in("int8range", &["[1,10)", "(,5]"]),
    built_in("numrange", &["(,5.5]", "[1.50,2.25)"]),
    built_in("daterange", &["[2020-01-01,infinity)"]),
    built_in("tsrange", &["[2020-01-01 00:00,2021-01-01 00:00)"]),
    built_in("tstzrange", &["[2020-01-01 00:00+00,)"]),
    since(14, built_in("int4multirange", &["{[1,3),[5,9)}", "{}"])),
    since(14, built_in("nummultirange", &["{(,1.5),[2.5,)}"])),
    since(14, built_in("datemultirange", &["{[2020-01-01,2020-02-01)}"])),
    since(14, built_in("tstzmultirange", &["{[2020-01-01 00:00+00,)}"])),
    own("mood", &["sad", "hap'py"], Binary::Always),
    own("positive", &["5"], Binary::Always),
    own("feeling", &["ok"], Binary::Always),
    own("moods", &["{sad,ok}"], Binary::From(14)),
    own("numbers", &["{1,NULL,3}"], Binary::Always),
    own("point3d", &["(1.5,-2.50,\"{1,2}\")", "(,,)"], Binary::Always),
    own("felt", &["(\"2020-01-01 00:00+00\",sad)"], Binary::From(14)),
    own("nested", &["(\"(1,2,{})\",\"a \"\"name\"\"\")"], Binary::From(14)),
    own("dropped", &["(1,x)"], Binary::Always),
    own("nothing", &["()"], Binary::Always),
    own("shape", &["(1,\"a body\")"], Binary::Always),
    own("floats", &["[1.5,2.5]", "empty"], Binary::Always),
    own("feelings", &["[sad,ok]"], Binary::Always),
    since(14, own("floats_multirange", &["{[1.5,2.5],(7,)}"], Binary::Always)),
    own("hstore", &["\"a \\\"key\\\"\"=>\"NULL\", b=>NULL", ""], Binary::Always),
    own("citext", &["MixedCase", ""], Binary::Always),
    own("ltree", &["Top.Science.Astronomy", ""], Binary::From(13)),
    own("lquery", &["Top.*{1,2}.a|b"], Binary::From(13)),
    own("ltxtquery", &["Europe & Russia*@"], Binary::From(13)),
    own("cube", &["(1,2),(3,4)", "(5)", "()"], Binary::From(14)),
    never("seg", &["6.50 .. <7"]),
    never("isbn", &["978-0-393-04002-9"]),
    never("query_int", &["1&2"]),
    never("own_text", &["own"]),
    never("regclass", &["pg_class", "shape"]),
    never("regtype", &["mood[]", "int4"]),
    never("regproc", &["now"]),
    never("regprocedure", &["lower(text)"]),
    never("regoper", &["||/"]),
    never("regoperator", &["+(int4,int4)"]),
    never("regrole", &["postgres"]),
    never("regnamespace", &["public"]),
    never("regconfig", &["english"]),
    never("regdictionary", &["simple"]),
    never("aclitem", &["postgres=r/postgres"]),
    never("class", &["pg_class"]),
    never("named", &["(1,pg_class)"]),
    without_array(never("pg_catalog.pg_am", &[])),
];

/// What the cases are on a server: the table of each, its column's type, and the format that its rows must have.
pub fn load(database: &Database<'_>, major: u32) -> Vec<(String, String, RowFormat)> {
    let mut sql = format!("SET client_min_messages = error; {OWN_TYPES}");
    let mut tables = Vec::new();
    let format = |binary| match binary {
        Binary::Always => RowFormat::Binary,
        Binary::From(from) if major >= from => RowFormat::Binary,
        Binary::From(_) | Binary::Never => RowFormat::Text,
    };
    for (number, case) in CASES.iter().enumerate().filter(|(_, case)| case.since <= major) {
        let Case {
            of,
            values,
            since: _,
            binary,
            array,
        } = case;
        let rows: Vec<String> = values.iter().map(|value| format!(", ($v${value}$v$)")).collect();
        let table = format!("t{number}");
        let _ = write!(
            sql,
            "CREATE TABLE {table} (v {of}); INSERT INTO {table} SELECT v::{of} FROM (VALUES (NULL::text){}) x (v);",
            rows.concat()
        );
        tables.push((table.clone(), (*of).to_owned(), format(*binary)));
        if let Some(array) = array {
            let _ = write!(
                sql,
                "CREATE TABLE a{number} (v {of}[]); \
                 INSERT INTO a{number} VALUES (NULL), ('{{}}'), (ARRAY(SELECT v FROM {table}));"
            );
            tables.push((format!("a{number}"), format!("{of}[]"), format(*array)));
        }
    }
    database.psql(&sql);
    tables
}

async fn every_type_comes_back(major: u32) {
    let server = PostgresServer::shared(major);
    let source = server.create_database("types");
    let tables = load(&source, major);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (request, manifest) = backed_up(&source, folder.path(), json!({})).await;
    let database = manifest.database(&source.name).expect("the database");
    for (table, of, format) in &tables {
        let relation = database.relations.iter().find(|relation| relation.name == *table);
        let chunks = relation.and_then(|relation| relation.chunks.as_ref());
        assert_eq!(chunks.map(|chunks| chunks.format), Some(*format), "{of} on {major}");
    }
    let objects = Objects(folder.path().to_owned());
    let (padded, ..) = tables.iter().find(|(_, of, _)| of == PADDED).expect("the case");
    let relation = database.relations.iter().find(|relation| relation.name == *padded);
    let chunk = relation.and_then(|relation| relation.chunks.as_ref()?.chunks.first());
    let rows = stream(&objects, chunk.expect("rows"));
    assert!(!rows.windows(3).any(|bytes| bytes == b"   "), "{rows:?}");
    let clients = [(major, manifest.tools.client_major), (18, NEWEST_CLIENT)];
    for (target, client) in clients {
        let target = PostgresServer::shared(target).create_database_with("types_of", "TEMPLATE template0");
        restore(&objects, &request.snapshot(), &source.name, &target, client).await;
        for ((table, of, _), (found, expected)) in tables
            .iter()
            .zip(zip(values(&target, &tables), values(&source, &tables)))
        {
            assert_eq!(found, expected, "{table}, {of} from {major} on {}", target.server.port);
        }
    }
}

/// The values of each table, in their order, as they are stored: a cast to text would lose blanks.
fn values(database: &Database<'_>, tables: &[(String, String, RowFormat)]) -> Vec<String> {
    let mut sql = "SET timezone = 'UTC'; SET extra_float_digits = 3; SET lc_monetary = 'C';".to_owned();
    for (table, ..) in tables {
        let _ = write!(
            sql,
            "SELECT CASE num_nulls(v) WHEN 0 THEN format('%s|', v) ELSE 'NULL' END FROM {table} ORDER BY ctid; \
             SELECT '{END}';"
        );
    }
    let output = database.psql(&sql);
    let values: Vec<String> = output.split(END).map(str::to_owned).collect();
    assert_eq!(values.len(), tables.len() + 1);
    values
}

macro_rules! of_every_server {
    ($($name:ident: $major:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            every_type_comes_back($major).await;
        }
    )*};
}

of_every_server! {
    every_type_of_12_is_taken_by_12_and_18: 12;
    every_type_of_13_is_taken_by_13_and_18: 13;
    every_type_of_14_is_taken_by_14_and_18: 14;
    every_type_of_15_is_taken_by_15_and_18: 15;
    every_type_of_16_is_taken_by_16_and_18: 16;
    every_type_of_17_is_taken_by_17_and_18: 17;
    every_type_of_18_is_taken_by_18: 18;
}
