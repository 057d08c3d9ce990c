//! A small API server behind a kube client: it keeps objects, knows the three kinds of patch, and notes every call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// Verb, group, and resource with its subresource.
pub type Call = (String, String, String);

/// The server. Cheap to clone.
#[derive(Clone, Default)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    applied: BTreeMap<(String, String), Value>,
    version: u64,
    calls: Vec<Call>,
    refusals: BTreeMap<(String, String), Value>,
    watch_events: BTreeMap<String, Vec<Value>>,
}

/// What a path addresses.
struct Target {
    group: String,
    resource: String,
    collection: String,
    name: Option<String>,
    subresource: Option<String>,
}

type Answer = Result<Value, (u16, Value)>;

impl ApiServer {
    /// A client of this server.
    pub fn client(&self) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a body in memory");
                send.send_response(server.answer(&parts, &body));
            }
        });
        Client::new(service, "default")
    }

    /// Every call so far.
    pub fn calls(&self) -> BTreeSet<Call> {
        self.lock().calls.iter().cloned().collect()
    }

    /// How often a verb was used on a resource.
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        let state = self.lock();
        let matching = state.calls.iter().filter(|(v, _, r)| v == verb && r == resource);
        matching.count()
    }

    /// Refuses a verb on a resource from now on, or no longer.
    pub fn refuse(&self, verb: &str, resource: &str, status: Option<Value>) {
        let key = (verb.to_owned(), resource.to_owned());
        match status {
            Some(status) => self.lock().refusals.insert(key, status),
            None => self.lock().refusals.remove(&key),
        };
    }

    /// Events that every watch of a resource begins with.
    pub fn watch_events(&self, resource: &str, events: Vec<Value>) {
        self.lock().watch_events.insert(resource.to_owned(), events);
    }

    /// Stores an object as if a user or another controller had created it.
    pub fn put(&self, collection: &str, object: Value) -> Value {
        let mut state = self.lock();
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        state.store(&format!("{collection}/{name}"), object)
    }

    /// An object, if it is there.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// Names in a collection.
    pub fn names(&self, collection: &str) -> Vec<String> {
        let prefix = format!("{collection}/");
        let state = self.lock();
        let paths = state.objects.keys().filter_map(|path| path.strip_prefix(&prefix));
        paths.map(str::to_owned).collect()
    }

    /// Changes an object as another controller would.
    pub fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.lock();
        let mut object = state.objects.get(path).cloned().unwrap_or_else(|| panic!("no {path}"));
        change(&mut object);
        state.store(path, object);
    }

    /// Deletes an object as a user does: one that has finalizers is marked and stays.
    pub fn delete(&self, path: &str) {
        let mut state = self.lock();
        let mut object = state.objects.get(path).cloned().unwrap_or_else(|| panic!("no {path}"));
        object["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now());
        object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
        state.store(path, object);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }

    fn answer(&self, request: &http::request::Parts, body: &[u8]) -> Response<Body> {
        let target = Target::of(request.uri.path());
        let query: BTreeMap<String, String> = url::form_urlencoded::parse(request.uri.query().unwrap_or("").as_bytes())
            .into_owned()
            .collect();
        let watches = query.get("watch").is_some_and(|watch| watch == "true");
        let verb = match (&request.method, &target.name) {
            (&Method::POST, _) => "create",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, _) => "delete",
            (_, Some(_)) => "get",
            (_, None) if watches => "watch",
            (_, None) => "list",
        };
        let mut state = self.lock();
        let resource = target.resource_with_subresource();
        if !target.resource.is_empty() {
            state.calls.push((verb.into(), target.group.clone(), resource.clone()));
        }
        if let Some(status) = state.refusals.get(&(verb.to_owned(), resource)) {
            return respond(Err((
                u16::try_from(status["code"].as_u64().unwrap_or(500)).unwrap_or(500),
                status.clone(),
            )));
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match verb {
            _ if target.resource.is_empty() => respond(state.served()),
            "get" => respond(state.read(&target)),
            "list" => respond(Ok(state.list(&target, query.get("labelSelector")))),
            "watch" => state.watch(&target),
            "create" => respond(state.create(&target, body)),
            "patch" => {
                let kind = request.headers["content-type"]
                    .to_str()
                    .expect("a content type")
                    .to_owned();
                respond(state.patch(&target, &kind, query.get("fieldManager"), body))
            }
            other => panic!("{other} {}", request.uri),
        }
    }
}

impl Target {
    /// `/api/v1/namespaces/{ns}/{resource}/{name}/{sub}`, `/apis/{group}/{version}/…`, and both without a namespace.
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, rest) = match parts.as_slice() {
            ["api", _, rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => panic!("{path} is not of the API"),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let resource = rest.first().copied().unwrap_or_default();
        let collection = match namespace {
            Some(namespace) => format!("{namespace}/{resource}"),
            None => resource.to_owned(),
        };
        Self {
            group: group.into(),
            resource: resource.into(),
            collection,
            name: rest.get(1).map(|name| (*name).to_owned()),
            subresource: rest.get(2).map(|name| (*name).to_owned()),
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection, self.name.as_deref().unwrap_or_default())
    }

    fn resource_with_subresource(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.clone(),
        }
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        for (field, value) in [
            ("uid", json!(format!("uid-{}", self.version))),
            ("generation", json!(1)),
            ("creationTimestamp", json!("2026-01-02T03:04:05Z")),
        ] {
            if metadata[field].is_null() {
                metadata[field] = value;
            }
        }
        let finalizers = metadata["finalizers"].as_array().is_some_and(|names| !names.is_empty());
        if metadata["deletionTimestamp"].is_null() || finalizers {
            self.objects.insert(path.into(), object.clone());
        } else {
            self.objects.remove(path);
        }
        object
    }

    fn read(&self, target: &Target) -> Answer {
        self.objects
            .get(&target.path())
            .cloned()
            .ok_or_else(|| (404, status(404, "NotFound", "it is not there")))
    }

    /// Discovery: the kinds whose CRDs are there.
    fn served(&self) -> Answer {
        let names = self
            .objects
            .keys()
            .filter_map(|path| path.strip_prefix("customresourcedefinitions/"));
        let resources: Vec<Value> = names
            .map(|name| json!({"name": name, "singularName": "", "namespaced": true, "kind": "", "verbs": []}))
            .collect();
        if resources.is_empty() {
            return Err((
                404,
                status(404, "NotFound", "the server could not find the requested resource"),
            ));
        }
        Ok(json!({"kind": "APIResourceList", "groupVersion": "pgrescue.dev/v1alpha1", "resources": resources}))
    }

    fn list(&self, target: &Target, selector: Option<&String>) -> Value {
        let wanted: Vec<(String, String)> = selector
            .iter()
            .flat_map(|selector| selector.split(','))
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let prefix = format!("{}/", target.collection);
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(&prefix) || target.collection == path.rsplit('/').nth(1).unwrap_or(""))
            .map(|(_, object)| object)
            .filter(|object| {
                wanted
                    .iter()
                    .all(|(key, value)| object["metadata"]["labels"][key] == *value)
            })
            .collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    fn watch(&self, target: &Target) -> Response<Body> {
        let events = self.watch_events.get(&target.resource).cloned().unwrap_or_default();
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        Response::new(Body::from(lines.into_bytes()))
    }

    fn create(&mut self, target: &Target, object: Value) -> Answer {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let path = format!("{}/{name}", target.collection);
        if self.objects.contains_key(&path) {
            return Err((409, status(409, "AlreadyExists", "it exists")));
        }
        if target.resource == "rolebindings" {
            // Escalation prevention asks for this verb.
            let role = object["roleRef"]["name"].as_str().expect("a role");
            let resource = format!("clusterroles:{role}");
            self.calls.push(("bind".into(), target.group.clone(), resource));
        }
        Ok(self.store(&path, object))
    }

    fn patch(&mut self, target: &Target, kind: &str, manager: Option<&String>, patch: Value) -> Answer {
        let path = target.path();
        let Some(mut object) = self.objects.get(&path).cloned() else {
            return Err((404, status(404, "NotFound", "it is not there")));
        };
        let before = object.clone();
        match kind {
            "application/json-patch+json" => {
                let patch: json_patch::Patch = serde_json::from_value(patch).expect("a JSON patch");
                if json_patch::patch(&mut object, &patch).is_err() {
                    return Err((422, status(422, "Invalid", "the test failed")));
                }
            }
            "application/apply-patch+yaml" => {
                let version = &patch["metadata"]["resourceVersion"];
                if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
                    return Err((409, status(409, "Conflict", "the object has been modified")));
                }
                let key = (path.clone(), manager.cloned().unwrap_or_default());
                let last = self.applied.insert(key, patch.clone()).unwrap_or_default();
                let part = if target.subresource.is_some() { "status" } else { "spec" };
                apply(&mut object[part], &last[part], &patch[part]);
            }
            _ => json_patch::merge(&mut object, &patch),
        }
        let terminal = ["Succeeded", "AlreadyApplied", "Failed", "Deleting"];
        let phase = |object: &Value| object["status"]["phase"].as_str().unwrap_or_default().to_owned();
        if target.group == "pgrescue.dev"
            && terminal.contains(&phase(&before).as_str())
            && ![phase(&before).as_str(), "Deleting"].contains(&phase(&object).as_str())
        {
            return Err((422, status(422, "Invalid", "the outcome of a run is final")));
        }
        if object == before {
            return Ok(object);
        }
        Ok(self.store(&path, object))
    }
}

/// Server-side apply of one manager's fields: what it no longer names goes; conditions are merged by type.
fn apply(object: &mut Value, last: &Value, patch: &Value) {
    if object.is_null() {
        *object = json!({});
    }
    let no_fields = serde_json::Map::new();
    for field in last.as_object().unwrap_or(&no_fields).keys() {
        if patch[field].is_null() && field != "conditions" {
            object.as_object_mut().expect("an object").remove(field);
        }
    }
    for (field, value) in patch.as_object().unwrap_or(&no_fields) {
        if field != "conditions" {
            object[field] = value.clone();
            continue;
        }
        let mut conditions = object["conditions"].as_array().cloned().unwrap_or_default();
        for condition in value.as_array().expect("conditions") {
            conditions.retain(|other| other["type"] != condition["type"]);
            conditions.push(condition.clone());
        }
        object["conditions"] = json!(conditions);
    }
}

/// A `Status` of the API server.
pub fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn respond(answer: Answer) -> Response<Body> {
    let (code, value) = match answer {
        Ok(value) => (200, value),
        Err((code, status)) => (code, status),
    };
    let mut response = Response::new(Body::from(value.to_string().into_bytes()));
    *response.status_mut() = StatusCode::from_u16(code).expect("a status code");
    response
}
