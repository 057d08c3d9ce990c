//! PostgreSQL and S3 servers in a test's namespace, and a way to reach them from the test.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cluster::{cluster, output};
use crate::namespace::{DEADLINE, Namespace};

/// Password of the superuser `postgres` of every server that tests start.
pub const POSTGRES_PASSWORD: &str = "Zu9-superuser-canary";
/// Access key of the S3 server.
pub const S3_ACCESS_KEY: &str = "e2e-access-key";
/// Secret key of the S3 server.
pub const S3_SECRET_KEY: &str = "Zu9-s3-canary";

/// What Pod Security `restricted` asks of a container.
pub fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// A PostgreSQL server: the pod and the Service `name`, and the Secret `<name>-db` with the
/// keys that CloudNativePG writes.
#[derive(Clone)]
pub struct Postgres<'namespace> {
    namespace: &'namespace Namespace,
    name: String,
    secret: Value,
}

impl<'namespace> Postgres<'namespace> {
    /// Starts a server of a major version and waits until it answers.
    pub async fn start(namespace: &'namespace Namespace, name: &str, major: u32, database: &str) -> Self {
        let image = cluster().image(&format!("POSTGRES_{major}"));
        let pod = json!({
            "securityContext": {"fsGroup": 999, "runAsUser": 999},
            "containers": [{
                "name": "postgres", "image": image, "securityContext": restricted(),
                "args": ["postgres", "-c", "fsync=off"],
                "env": [
                    {"name": "POSTGRES_PASSWORD", "value": POSTGRES_PASSWORD},
                    {"name": "POSTGRES_DB", "value": database},
                    {"name": "PGDATA", "value": "/data/postgresql"},
                ],
                // Over TCP: while the cluster is made, the server answers on its socket alone.
                // Not for as long as it runs: each look starts a program in the container.
                "startupProbe": {
                    "exec": {"command": ["pg_isready", "--host=127.0.0.1"]},
                    "periodSeconds": 1,
                    "failureThreshold": 120,
                },
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
        });
        let host = format!("{name}.{}.svc", namespace.name);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{name}-db")},
            "stringData": {
                "host": host, "port": "5432", "user": "postgres", "username": "postgres",
                "password": POSTGRES_PASSWORD, "dbname": database,
                "uri": format!("postgresql://postgres:{POSTGRES_PASSWORD}@{host}:5432/{database}"),
            },
        });
        start_server(namespace, name, 5432, &pod, &secret).await;
        Self {
            namespace,
            name: name.to_owned(),
            secret,
        }
    }

    /// The Secret, for another namespace.
    pub const fn secret(&self) -> &Value {
        &self.secret
    }

    /// Names of the databases that a user made, sorted.
    pub fn databases(&self) -> Vec<String> {
        let sql = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1";
        self.psql("postgres", sql).lines().map(str::to_owned).collect()
    }

    /// Runs SQL in a database as the superuser; rows come back unaligned, `|` between columns.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let arguments = [
            "exec",
            "--stdin",
            &self.name,
            "--",
            "psql",
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
        ];
        let more = [
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--host=/tmp",
            "--username=postgres",
            "--dbname",
            database,
        ];
        let mut command = cluster().kubectl();
        command
            .args(["--namespace", &self.namespace.name])
            .args(arguments)
            .args(more);
        output(&mut command, Some(sql))
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
            .trim_end()
            .to_owned()
    }

    /// The rows of every table and materialized view, the values of every sequence and the definition of every index,
    /// in a line each; rows by their number and a digest. What pgrescue notes in a database is left out.
    pub fn contents(&self, database: &str) -> String {
        self.psql(database, CONTENTS)
    }

    /// Waits until a `COPY` in `database` has moved `bytes` and stops its backend there. Meant to run while an agent
    /// works, which then stands still in the middle of the rows.
    pub fn stall_copy(&self, database: &str, bytes: u64) -> StalledCopy<'_> {
        let seconds = DEADLINE.as_secs();
        let stall = format!(
            "DO $$
             DECLARE backend int; deadline timestamptz := clock_timestamp() + interval '{seconds} s';
             BEGIN
                 LOOP
                     PERFORM pg_stat_clear_snapshot();
                     SELECT pid INTO backend FROM pg_stat_progress_copy
                         WHERE datname = '{database}' AND bytes_processed >= {bytes};
                     EXIT WHEN backend IS NOT NULL;
                     IF clock_timestamp() > deadline THEN
                         RAISE 'no COPY in {database} moved {bytes} bytes in time';
                     END IF;
                     PERFORM pg_sleep(0.002);
                 END LOOP;
                 EXECUTE format('COPY (SELECT %s) TO PROGRAM %L', backend, $stop${STOP}$stop$);
                 PERFORM set_config('e2e.backend', backend::text, false);
             END $$;
             SELECT current_setting('e2e.backend');"
        );
        StalledCopy {
            postgres: self,
            backend: self.psql("postgres", &stall),
        }
    }
}

/// Stops a backend where it holds none of the locks that every other session needs: where it waits for its client
/// (`epoll_wait`, `epoll_pwait` on x86-64, `epoll_pwait` on arm64), or where a session begins, looks at all locks and
/// commits beside it. Elsewhere it goes on for a moment.
const STOP: &str = r#"
read backend
while kill -STOP $backend; do
    read syscall rest < /proc/$backend/syscall
    case $syscall in 232 | 281 | 22) exit 0 ;; esac
    look='SELECT txid_current() FROM pg_locks LIMIT 1'
    timeout 5 psql --no-psqlrc --host=/tmp --username=postgres --command="$look" postgres > /dev/null && exit 0
    kill -CONT $backend
    sleep 0.002
done
exit 1"#;

/// See [`Postgres::contents`].
const CONTENTS: &str = r"
CREATE FUNCTION pg_temp.contents() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE entry record; line text;
BEGIN
    FOR entry IN
        SELECT c.oid::regclass AS name, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'm', 'S', 'i') AND n.nspname !~ '^pg_(temp|toast)'
            AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgrescue')
        ORDER BY n.nspname, c.relname
    LOOP
        EXECUTE CASE entry.relkind
            WHEN 'S' THEN format('SELECT last_value || '' '' || is_called FROM %s', entry.name)
            WHEN 'i' THEN format('SELECT pg_get_indexdef(indexrelid) || '' '' || indisvalid FROM pg_index
                WHERE indexrelid = %L::regclass', entry.name)
            ELSE format('SELECT count(*) || '' rows '' || coalesce(md5(string_agg(digest, '''' ORDER BY digest)), '''')
                FROM (SELECT md5(line::text) AS digest FROM %s AS line) AS lines', entry.name)
        END INTO line;
        RETURN NEXT entry.name || ': ' || line;
    END LOOP;
END $$;
SELECT * FROM pg_temp.contents();";

/// A backend that was stopped in the middle of a `COPY`. It goes on when this value is dropped.
pub struct StalledCopy<'postgres> {
    postgres: &'postgres Postgres<'postgres>,
    backend: String,
}

impl StalledCopy<'_> {
    /// Lets the backend go on.
    pub fn go_on(self) {
        drop(self);
    }
}

impl Drop for StalledCopy<'_> {
    fn drop(&mut self) {
        let go_on = format!(
            "COPY (SELECT {}) TO PROGRAM 'read backend && kill -CONT $backend'",
            self.backend
        );
        self.postgres.psql("postgres", &go_on);
    }
}

/// An S3 server: the pod and the Service `s3` on port 7070, the Secret `s3` with its
/// credentials, and one bucket.
#[derive(Clone)]
pub struct S3<'namespace> {
    namespace: &'namespace Namespace,
    bucket: String,
    secret: Value,
}

impl<'namespace> S3<'namespace> {
    /// Port of the Service: pods of the namespace reach the server at `http://s3:7070`.
    pub const PORT: u16 = 7070;

    /// Starts the server with an empty bucket.
    pub async fn start(namespace: &'namespace Namespace, bucket: &str) -> Self {
        let credentials = [("ROOT_ACCESS_KEY", S3_ACCESS_KEY), ("ROOT_SECRET_KEY", S3_SECRET_KEY)];
        let pod = json!({
            "containers": [{
                "name": "s3", "image": cluster().image("VERSITYGW"),
                "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 65532,
                    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
                "command": ["sh", "-c"],
                "args": [format!("mkdir -p /data/{bucket} && exec versitygw --port :{} posix --sidecar /sidecar /data", Self::PORT)],
                "env": credentials.map(|(name, value)| json!({"name": name, "value": value})),
                "readinessProbe": {"tcpSocket": {"port": Self::PORT}, "periodSeconds": 1},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "sidecar", "mountPath": "/sidecar"}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "sidecar", "emptyDir": {}}],
        });
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"},
            "stringData": {"AWS_ACCESS_KEY_ID": S3_ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": S3_SECRET_KEY},
        });
        start_server(namespace, "s3", Self::PORT, &pod, &secret).await;
        Self {
            namespace,
            bucket: bucket.to_owned(),
            secret,
        }
    }

    /// The Secret, for another namespace.
    pub const fn secret(&self) -> &Value {
        &self.secret
    }

    /// The server's URL in every namespace.
    pub fn endpoint(&self) -> String {
        format!("http://s3.{}.svc:{}", self.namespace.name, Self::PORT)
    }

    /// Keys in the bucket, sorted; parts of unfinished uploads too (below `.sgwtmp`).
    pub fn keys(&self) -> Vec<String> {
        let find = format!("cd /data/{} && find . -type f", self.bucket);
        let found = self
            .namespace
            .kubectl(&["exec", "s3", "--", "sh", "-c", &find])
            .expect("the bucket can be listed");
        let mut keys: Vec<String> = found
            .lines()
            .map(|line| line.trim_start_matches("./").to_owned())
            .collect();
        keys.sort();
        keys
    }

    /// How many parts of unfinished uploads the server holds.
    pub fn unfinished_parts(&self) -> usize {
        self.keys().iter().filter(|key| key.starts_with(".sgwtmp/")).count()
    }

    /// Keys of the objects in the bucket, sorted.
    pub fn objects(&self) -> Vec<String> {
        let mut keys = self.keys();
        keys.retain(|key| !key.starts_with(".sgwtmp/"));
        keys
    }

    /// Whether any byte string in the bucket, object names included, contains `text`.
    pub fn contains(&self, text: &str) -> bool {
        let folder = format!("/data/{}", self.bucket);
        let arguments = [
            "exec",
            "s3",
            "--",
            "grep",
            "--recursive",
            "--quiet",
            "--fixed-strings",
            "--text",
        ];
        let mut command = cluster().kubectl();
        command
            .args(["--namespace", &self.namespace.name])
            .args(arguments)
            .args(["--regexp", text, &folder]);
        output(&mut command, None).is_ok() || self.keys().iter().any(|key| key.contains(text))
    }
}

async fn start_server(namespace: &Namespace, name: &str, port: u16, pod: &Value, secret: &Value) {
    let labels = json!({"app.kubernetes.io/name": name});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": labels, "ports": [{"port": port}]},
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": pod,
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [secret, service, pod]});
    namespace.apply(&list.to_string()).expect("a server can be made");
    namespace.wait::<Pod>(name, "ready", is_ready).await;
    await_service(namespace, name, port).await;
}

/// A pod is ready a moment before every node sends its Service's connections there.
async fn await_service(namespace: &Namespace, name: &str, port: u16) {
    let connect = format!("bash -c ': </dev/tcp/{name}/{port}' || nc -z {name} {port}");
    let end = Instant::now() + DEADLINE;
    while let Err(error) = namespace.kubectl(&["exec", name, "--", "sh", "-c", &connect]) {
        assert!(
            Instant::now() < end,
            "the Service {name} did not answer in time: {error}\n{}",
            namespace.story()
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether a pod says that it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// A port on loopback that leads to a port of a pod, while this value lives.
pub struct PortForward {
    kubectl: Child,
    /// Held open: kubectl ends when it cannot say that a connection came.
    _said: BufReader<ChildStdout>,
    /// The port on 127.0.0.1.
    pub port: u16,
}

impl PortForward {
    /// Opens a free port to a port of `pod`.
    pub fn open(namespace: &Namespace, pod: &str, port: u16) -> Self {
        let mut command: Command = cluster().kubectl();
        command.args(["--namespace", &namespace.name, "port-forward", pod, &format!(":{port}")]);
        let mut kubectl = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("kubectl starts");
        let mut line = String::new();
        let mut said = BufReader::new(kubectl.stdout.take().expect("standard output is a pipe"));
        said.read_line(&mut line).expect("kubectl says where it listens");
        // "Forwarding from 127.0.0.1:40123 -> 7070"
        let address = line.split_whitespace().nth(2).unwrap_or_default();
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
        Self {
            port: port.unwrap_or_else(|| panic!("kubectl port-forward said {line:?}")),
            kubectl,
            _said: said,
        }
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
