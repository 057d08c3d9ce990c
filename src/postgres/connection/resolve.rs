//! From a plan and what it names to settings: inline fields win over the keys of the Secret, its keys win over its
//! `uri`, libpq's defaults come last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::conninfo::{self, Parameters};
use super::error::ConnectionError;
use super::parameters::{OtherParameters, number, one_of};
use super::{ALLOW_HOST_KEY, ConnectionSettings, DEFAULT_CONNECT_TIMEOUT, DEFAULT_PORT, Endpoint};
use crate::api::connection::TlsMode;
use crate::plan::connection::{ConnectionPlan, TextSource};
use crate::postgres::tls::{ClientIdentity, RootCertificates, TlsError, TlsSettings};
use crate::references::References;

/// Keys of a Secret by libpq's keyword. `username` is the spelling of Zalando and CloudNativePG.
const SECRET_KEYS: [(&str, &str); 6] = [
    ("host", "host"),
    ("port", "port"),
    ("username", "user"),
    ("user", "user"),
    ("password", "password"),
    ("dbname", "dbname"),
];

/// Parameters that have a field in the manifest.
const FIELDS: [(&str, &str); 10] = [
    ("host", "write it as connection.host"),
    ("port", "write it as connection.port"),
    ("user", "write it as connection.user"),
    ("dbname", "write it as connection.database"),
    (
        "password",
        "a password belongs into a Secret: secretRef or passwordSecretRef",
    ),
    ("sslmode", "write it as connection.tls.mode"),
    ("sslrootcert", "write it as connection.tls.rootCertificate"),
    ("sslcert", "write it as connection.tls.clientCertificate"),
    ("sslkey", "write it as connection.tls.clientKey"),
    ("requiressl", "write it as connection.tls.mode"),
];

type Keys = BTreeMap<String, SecretString>;

impl ConnectionSettings {
    /// Reads the Secrets and ConfigMaps that the plan names. Nothing is connected to.
    pub async fn resolve(plan: &ConnectionPlan, references: &dyn References) -> Result<Self, ConnectionError> {
        let mut parameters = match &plan.secret {
            Some(secret) => of_secret(secret, &references.secret(secret).await?)?,
            None => Parameters::new(),
        };
        check_fields(plan)?;
        let password = password(plan, references, &mut parameters).await?;
        parameters.extend(plan.parameters.clone());
        let inline = [
            ("host", plan.host.clone()),
            ("port", plan.port.map(|port| port.to_string())),
            ("user", plan.user.clone()),
            ("dbname", plan.database.clone()),
        ];
        parameters.extend(
            inline
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?))),
        );

        let mut take = |name: &str| parameters.remove(name).filter(|value| !value.is_empty());
        let endpoints = endpoints(take("host"), take("hostaddr"), take("port"))?;
        let user = match take("user") {
            Some(user) => user,
            None => whoami::username().map_err(|_| ConnectionError::NoUser)?,
        };
        let database = take("dbname").filter(|name| name != "*");
        let connect_timeout = match number::<i64>(take("connect_timeout"), "connect_timeout")? {
            None => Some(DEFAULT_CONNECT_TIMEOUT),
            // libpq: zero and less wait without end.
            Some(seconds) => u64::try_from(seconds)
                .ok()
                .filter(|&seconds| seconds > 0)
                .map(Duration::from_secs),
        };
        let tls = tls(plan, references, &mut parameters).await?;
        Ok(Self {
            endpoints,
            user,
            password,
            database,
            tls,
            connect_timeout,
            others: OtherParameters::take(parameters)?,
        })
    }
}

/// The Secret's keys over its `uri`.
fn of_secret(name: &str, keys: &Keys) -> Result<Parameters, ConnectionError> {
    let mut parameters = match keys.get("uri") {
        Some(uri) => conninfo::parse(uri.expose_secret().trim()).map_err(|source| ConnectionError::Uri {
            secret: name.to_owned(),
            source,
        })?,
        None => Parameters::new(),
    };
    for (key, keyword) in SECRET_KEYS {
        if let Some(value) = keys.get(key).filter(|value| !value.expose_secret().is_empty()) {
            parameters.insert(keyword.to_owned(), value.expose_secret().to_owned());
            // An address of the `uri` must not stand beside a host of the keys.
            if keyword == "host" {
                parameters.remove("hostaddr");
            }
        }
    }
    Ok(parameters)
}

fn check_fields(plan: &ConnectionPlan) -> Result<(), ConnectionError> {
    let misplaced = FIELDS.iter().find(|(name, _)| plan.parameters.contains_key(*name));
    misplaced.map_or(Ok(()), |(name, why)| {
        Err(ConnectionError::Parameter {
            name: (*name).to_owned(),
            why,
        })
    })
}

/// The password, where it may be sent to the hosts of the connection.
async fn password(
    plan: &ConnectionPlan,
    references: &dyn References,
    parameters: &mut Parameters,
) -> Result<Option<SecretString>, ConnectionError> {
    let inline_hosts: Vec<&str> = [plan.host.as_ref(), plan.parameters.get("hostaddr")]
        .into_iter()
        .flatten()
        .flat_map(|hosts| hosts.split(','))
        .collect();
    let of_secret = parameters.remove("password").filter(|password| !password.is_empty());
    let found = if let Some(key) = &plan.password {
        let keys = references.secret(&key.name).await?;
        let password = references.secret_key(key).await?;
        let own = hosts_of(&key.name, &keys)?;
        let others = parameters.get("host").filter(|_| inline_hosts.is_empty());
        let used = others
            .iter()
            .flat_map(|hosts| hosts.split(','))
            .chain(inline_hosts.iter().copied());
        // A Secret that says where its password belongs is held to it; one that does not say was named for this use.
        if own.is_empty() {
            Some((&key.name, password))
        } else {
            check_hosts(&key.name, &own, used)?;
            Some((&key.name, password))
        }
    } else if let (Some(secret), Some(password)) = (&plan.secret, of_secret) {
        if !inline_hosts.is_empty() {
            let own = hosts_of(secret, &references.secret(secret).await?)?;
            check_hosts(secret, &own, inline_hosts.iter().copied())?;
        }
        Some((secret, SecretString::from(password)))
    } else {
        None
    };
    if !inline_hosts.is_empty() {
        parameters.remove("hostaddr");
    }
    match found {
        Some((secret, password)) if password.expose_secret().contains(['\n', '\r', '\0']) => {
            Err(ConnectionError::PasswordLineBreak { secret: secret.clone() })
        }
        found => Ok(found
            .map(|(_, password)| password)
            .filter(|password| !password.expose_secret().is_empty())),
    }
}

/// Hosts that the Secret itself names: in `host`, in `uri`, and under [`ALLOW_HOST_KEY`].
fn hosts_of(name: &str, keys: &Keys) -> Result<BTreeSet<String>, ConnectionError> {
    let parameters = of_secret(name, keys)?;
    let allowed = keys.get(ALLOW_HOST_KEY).map(|hosts| hosts.expose_secret().to_owned());
    let lists = [
        parameters.get("host").cloned(),
        parameters.get("hostaddr").cloned(),
        // The uri's hosts count also where the key `host` wins over them.
        keys.get("uri")
            .and_then(|uri| conninfo::parse(uri.expose_secret().trim()).ok()?.remove("host")),
        allowed,
    ];
    let hosts = lists.iter().flatten().flat_map(|list| list.split(','));
    Ok(hosts
        .map(|host| host.trim().to_ascii_lowercase())
        .filter(|host| !host.is_empty())
        .collect())
}

fn check_hosts<'a>(
    secret: &str,
    own: &BTreeSet<String>,
    used: impl Iterator<Item = &'a str>,
) -> Result<(), ConnectionError> {
    for host in used {
        if !own.contains("*") && !own.contains(&host.trim().to_ascii_lowercase()) {
            return Err(ConnectionError::HostNotAllowed {
                host: host.to_owned(),
                secret: secret.to_owned(),
            });
        }
    }
    Ok(())
}

fn endpoints(
    hosts: Option<String>,
    addresses: Option<String>,
    ports: Option<String>,
) -> Result<Vec<Endpoint>, ConnectionError> {
    let list = |text: &Option<String>| -> Vec<String> {
        let parts = text.iter().flat_map(|text| text.split(','));
        parts.map(|part| part.trim().to_owned()).collect()
    };
    let (hosts, addresses, ports) = (list(&hosts), list(&addresses), list(&ports));
    let count = hosts.len().max(addresses.len()).max(1);
    for (name, values) in [("host", &hosts), ("hostaddr", &addresses), ("port", &ports)] {
        let one_for_all = name == "port" && values.len() == 1;
        if !values.is_empty() && values.len() != count && !one_for_all {
            return Err(ConnectionError::Value {
                name: name.to_owned(),
                value: values.join(","),
                expected: format!("it must have as many parts as there are hosts ({count})"),
            });
        }
    }
    (0..count)
        .map(|at| {
            let port = ports.get(at).or(ports.first()).filter(|port| !port.is_empty());
            let port = number(port.cloned(), "port")?.unwrap_or(DEFAULT_PORT);
            let address = addresses.get(at).filter(|address| !address.is_empty());
            let address = address.map(|address| parse_address(address)).transpose()?;
            let host = hosts.get(at).filter(|host| !host.is_empty()).cloned();
            let host =
                host.unwrap_or_else(|| address.map_or_else(|| default_host(port), |address| address.to_string()));
            Ok(Endpoint { host, address, port })
        })
        .collect()
}

fn parse_address(text: &str) -> Result<IpAddr, ConnectionError> {
    text.parse().map_err(|_| ConnectionError::Value {
        name: "hostaddr".into(),
        value: text.to_owned(),
        expected: "it must be an IP address".into(),
    })
}

/// libpq's default is the socket's folder that it was built with; these are Debian's and PostgreSQL's own.
fn default_host(port: u16) -> String {
    let folders = ["/var/run/postgresql", "/tmp"];
    let found = folders
        .iter()
        .find(|folder| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists());
    found.map_or("localhost", |folder| folder).to_owned()
}

async fn tls(
    plan: &ConnectionPlan,
    references: &dyn References,
    parameters: &mut Parameters,
) -> Result<TlsSettings, ConnectionError> {
    let mut take = |name: &str| parameters.remove(name).filter(|value| !value.is_empty());
    let mode = one_of(
        take("sslmode"),
        "sslmode",
        &[
            ("disable", TlsMode::Disable),
            ("allow", TlsMode::Allow),
            ("prefer", TlsMode::Prefer),
            ("require", TlsMode::Require),
            ("verify-ca", TlsMode::VerifyCa),
            ("verify-full", TlsMode::VerifyFull),
        ],
    )?;
    let (root, certificate, key) = (take("sslrootcert"), take("sslcert"), take("sslkey"));
    let direct = one_of(
        take("sslnegotiation"),
        "sslnegotiation",
        &[("postgres", false), ("direct", true)],
    )?;
    let versions = [("TLSv1", 0), ("TLSv1.1", 0), ("TLSv1.2", 2), ("TLSv1.3", 3)];
    let oldest = one_of(take("ssl_min_protocol_version"), "ssl_min_protocol_version", &versions)?;
    let newest = one_of(
        take("ssl_max_protocol_version"),
        "ssl_max_protocol_version",
        &versions[2..],
    )?;
    let server_name = one_of(take("sslsni"), "sslsni", &[("0", false), ("1", true)])?;
    let root = match (&plan.root_certificate, root) {
        (Some(source), _) => Some(RootCertificates::Pem(text(references, source).await?)),
        (None, Some(path)) if path == "system" => Some(RootCertificates::System),
        (None, Some(path)) => Some(RootCertificates::Pem(file("sslrootcert", &path).await?)),
        (None, None) => None,
    };
    let client = match (&plan.client_certificate, &plan.client_key, certificate, key) {
        (Some(certificate), Some(key), _, _) => Some(ClientIdentity {
            certificate: references.text(certificate).await?,
            key: references.secret_key(key).await?,
        }),
        (Some(_), None, _, _) => return Err(TlsError::ClientIdentityIncomplete { missing: "key" }.into()),
        (None, Some(_), _, _) => return Err(TlsError::ClientIdentityIncomplete { missing: "certificate" }.into()),
        (None, None, Some(certificate), Some(key)) => Some(ClientIdentity {
            certificate: file("sslcert", &certificate).await?.into(),
            key: file("sslkey", &key).await?.into(),
        }),
        (None, None, Some(_), None) => return Err(TlsError::ClientIdentityIncomplete { missing: "key" }.into()),
        (None, None, None, _) => None,
    };
    // As in libpq, the system's authorities sign for everyone: without the name they would prove nothing.
    let default = if root == Some(RootCertificates::System) {
        TlsMode::VerifyFull
    } else {
        TlsMode::Prefer
    };
    let settings = TlsSettings {
        mode: plan.tls_mode.or(mode).unwrap_or(default),
        root,
        client,
        direct: direct.unwrap_or(false),
        no_server_name_indication: server_name == Some(false),
        only_tls13: oldest == Some(3),
        only_tls12: newest == Some(2),
    };
    settings.check()?;
    Ok(settings)
}

async fn text(references: &dyn References, source: &TextSource) -> Result<String, ConnectionError> {
    Ok(references.text(source).await?.expose_secret().to_owned())
}

async fn file(name: &str, path: &str) -> Result<String, ConnectionError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|source| ConnectionError::File {
            path: path.to_owned(),
            name: name.to_owned(),
            source,
        })
}
