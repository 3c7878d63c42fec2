//! The eight verbs on resources: request in, one call of the pipeline, answer out.
//!
//! Never knows a kind: what is served is what the row says. The order of checks is apiserver's: the resource exists, the
//! caller may, the verb is served.

use crate::answer::Answer;
use crate::audit::Note;
use crate::body::{self, Format, Held, Upload};
use crate::handler::method_not_allowed;
use crate::negotiate::{View, accepts_gzip, object_view, plain_view};
use crate::path::ResourcePath;
use crate::present::Presenter;
use crate::query::Query;
use crate::reviews::{self, Review};
use crate::{ApiServer, cluster, list, metrics, options, proxy, watch};
use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use objects::Status;
use registry::flow::Class;
use registry::rbac::Request as Asked;
use registry::{
    Caller, Deleted, Patch, PatchKind, Registry, Remarks, Target, Verb, Written,
    parse_resource_version,
};
use serde_json::Value;

const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Answers a request for a resource.
pub async fn answer(
    server: &ApiServer,
    caller: &Caller,
    class: &Class,
    path: &ResourcePath,
    query: &Query,
    request: Request<Upload>,
) -> Result<Answer, Status> {
    let target = target(&server.pipeline().registry(), path)?;
    server.allow_on(caller, path, &target, query).await?;
    if proxy::is_proxied(path) {
        let place = server.flow().stream(class)?;
        if let Some(options) = proxy::connect_options(path, query) {
            let remarks = Remarks::default();
            if let Some(note) = request.extensions().get::<Note>() {
                note.remarks(&remarks);
            }
            let pipeline = server.pipeline();
            let asked = pipeline.admit_connection(caller, &target, options, remarks);
            server.within_deadline(asked).await?;
        }
        return proxy::answer(server, path, query, request, place).await;
    }
    if !target
        .resource
        .serves(path.verb, target.subresource.as_deref())
    {
        return Err(method_not_allowed());
    }
    if path.verb == Verb::Watch {
        let place = server.flow().stream(class)?;
        return watch::answer(server, target, query, request, place).await;
    }
    let (parts, body) = request.into_parts();
    // A body that comes slowly holds no seat.
    let body = body::read(body, body::REQUEST_BYTES_MAX, server.flow());
    let body = server.within_deadline(body).await?;
    let seats = seats(server, path.verb, &target, query);
    let turn = server.flow().request(class, &parts.method, seats).await?;
    let call = Call {
        server,
        caller,
        target: &target,
        query,
        parts: &parts,
        body,
    };
    let answer = server.within_deadline(call.run(path.verb)).await?;
    Ok(answer.holding(turn))
}

/// How many seats a request takes: as many as it is work.
fn seats(server: &ApiServer, verb: Verb, target: &Target, query: &Query) -> u32 {
    match verb {
        Verb::List | Verb::DeleteCollection => {
            let limit = query.number("limit").ok().flatten();
            let limit = limit.and_then(|limit| usize::try_from(limit).ok());
            let limit = limit.filter(|limit| *limit > 0);
            let resource = target.resource.group_resource();
            server.flow().seats_of_list(&resource, limit)
        }
        _ => 1,
    }
}

/// The row and object that a path names; 404 and 405 as apiserver's routes give them.
fn target(registry: &Registry, path: &ResourcePath) -> Result<Target, Status> {
    let row = registry
        .find(&path.group, &path.version, &path.resource)
        .ok_or_else(cluster::not_found)?;
    let is_served = match (row.namespaced, &path.namespace) {
        (true, Some(_)) | (false, None) => true,
        (true, None) => path.name.is_none(), // Lists over all namespaces.
        (false, Some(_)) => false,
    };
    let subresource = path.subresource.as_deref();
    let is_known = subresource.is_none_or(|name| row.subresource(name).is_some());
    if !is_served || !(is_known || proxy::is_proxied(path)) {
        return Err(cluster::not_found());
    }
    let over_all = row.namespaced && path.namespace.is_none();
    if over_all && !matches!(path.verb, Verb::List | Verb::Watch) {
        return Err(method_not_allowed());
    }
    Ok(Target {
        resource: row.clone(),
        namespace: path.namespace.clone(),
        name: path.name.clone(),
        subresource: path.subresource.clone(),
    })
}

/// A request about to be done.
struct Call<'a> {
    server: &'a ApiServer,
    caller: &'a Caller,
    target: &'a Target,
    query: &'a Query,
    parts: &'a Parts,
    body: Held,
}

impl Call<'_> {
    async fn run(self, verb: Verb) -> Result<Answer, Status> {
        match verb {
            Verb::Get => self.get().await,
            Verb::List => self.list().await,
            Verb::Create | Verb::Update => self.write(verb).await,
            Verb::Patch => self.patch().await,
            Verb::Delete => self.delete().await,
            Verb::DeleteCollection => self.delete_collection().await,
            Verb::Watch => Err(method_not_allowed()),
        }
    }

    async fn get(self) -> Result<Answer, Status> {
        let presenter = self.presenter()?;
        let version = self.query.get("resourceVersion").unwrap_or_default();
        let version = parse_resource_version(version)?;
        let object = match self.target.resource.computed {
            true => metrics::get(self.server, self.target).await?,
            false => self.server.pipeline().get(self.target, version).await?,
        };
        Ok(Answer::json(StatusCode::OK, presenter.object(&object)?))
    }

    async fn list(self) -> Result<Answer, Status> {
        let presenter = self.presenter()?;
        let options = options::list(self.query, None)?;
        if self.target.resource.computed {
            let list = metrics::list(self.server, self.target, &options).await?;
            return Ok(Answer::json(StatusCode::OK, presenter.list(list).await?));
        }
        let is_page = options.limit.is_some() || options.continue_token.is_some();
        if presenter.is_plain() && !is_page && !accepts_gzip(&self.parts.headers) {
            let told = self.note_list();
            return list::answer(self.server, self.target, options, presenter, told).await;
        }
        let list = self.server.pipeline().list(self.target, &options).await?;
        let more = usize::try_from(list.remaining.unwrap_or(0)).unwrap_or(0);
        self.note_list()(list.items.len() + more);
        Ok(Answer::json(StatusCode::OK, presenter.list(list).await?))
    }

    /// What tells how many objects there are, of which follows how much work the next list is.
    fn note_list(&self) -> impl FnOnce(usize) + Send + use<> {
        let selectors = ["labelSelector", "fieldSelector", "continue"];
        let is_of_all = selectors
            .iter()
            .all(|name| self.query.get(name).is_none_or(str::is_empty));
        let resource = is_of_all.then(|| self.target.resource.group_resource());
        let server = self.server.clone();
        move |count| {
            if let Some(resource) = resource {
                server.flow().note_list(&resource, count);
            }
        }
    }

    async fn write(self, verb: Verb) -> Result<Answer, Status> {
        let is_review = verb == Verb::Create && Review::of(self.target).is_some();
        let presenter = match is_review {
            true => self.presenter_of(plain_view(&self.parts.headers)?)?,
            false => self.presenter()?,
        };
        let mut options = options::write(self.query, &self.parts.headers, false)?;
        self.note_remarks(&options.remarks);
        let format = body::format(&self.parts.headers)?;
        let decoded = body::decode(format, &self.body, body_kind(self.target)).await?;
        self.note(&decoded.value);
        options.duplicate_fields = decoded.duplicates;
        let pipeline = self.server.pipeline();
        if verb == Verb::Create
            && let Some(review) = Review::of(self.target)
        {
            let mut body = decoded.value;
            let warnings = pipeline.accept(self.target, &mut body, &options)?;
            let (server, caller) = (self.server, self.caller);
            let answered = reviews::answer(server, caller, self.target, review, body, &options);
            let answered = Bytes::from(answered.await?.to_string());
            let answer = Answer::json(StatusCode::CREATED, presenter.object(&answered)?);
            return Ok(answer.with_warnings(&warnings));
        }
        let written = if verb == Verb::Create {
            pipeline
                .create(self.caller, self.target, decoded.value, &options)
                .await?
        } else {
            pipeline
                .update(self.caller, self.target, decoded.value, &options)
                .await?
        };
        answer_written(&presenter, &written)
    }

    async fn patch(self) -> Result<Answer, Status> {
        let presenter = self.presenter()?;
        let kind = match body::media_type(&self.parts.headers) {
            Some("application/json-patch+json") => PatchKind::Json,
            Some("application/merge-patch+json") => PatchKind::Merge,
            Some("application/strategic-merge-patch+json") => PatchKind::Strategic,
            Some("application/apply-patch+yaml") => PatchKind::Apply,
            _ => return Err(body::unsupported(PATCH_TYPES)),
        };
        let is_apply = kind == PatchKind::Apply;
        let mut options = options::write(self.query, &self.parts.headers, is_apply)?;
        self.note_remarks(&options.remarks);
        if is_apply {
            let create = Asked::on(Verb::Create, self.target);
            options.create_refused = self.server.allow(self.caller, &create).await.err();
        }
        let decoded = body::decode_patch(&self.body, is_apply).await?;
        self.note(&decoded.value);
        options.duplicate_fields = decoded.duplicates;
        let patch = Patch {
            kind,
            value: decoded.value,
        };
        let pipeline = self.server.pipeline();
        let written = pipeline
            .patch(self.caller, self.target, &patch, &options)
            .await?;
        answer_written(&presenter, &written)
    }

    async fn delete(self) -> Result<Answer, Status> {
        let presenter = self.presenter()?;
        let body = delete_body(self.parts, &self.body).await?;
        if let Some(body) = &body {
            self.note(body);
        }
        let options = options::delete(self.query, &self.parts.headers, body)?;
        self.note_remarks(&options.remarks);
        let pipeline = self.server.pipeline();
        let answer = match pipeline.delete(self.caller, self.target, &options).await? {
            Deleted::Object(object) => Answer::json(StatusCode::OK, presenter.object(&object)?),
            Deleted::Status(status) => Answer::status(&status),
        };
        Ok(answer.with_warnings(&options.remarks.warnings()))
    }

    async fn delete_collection(self) -> Result<Answer, Status> {
        let presenter = self.presenter()?;
        let list = options::list(self.query, None)?;
        let body = delete_body(self.parts, &self.body).await?;
        if let Some(body) = &body {
            self.note(body);
        }
        let options = options::delete(self.query, &self.parts.headers, body)?;
        self.note_remarks(&options.remarks);
        let pipeline = self.server.pipeline();
        let deleted = pipeline
            .delete_collection(self.caller, self.target, &list, &options)
            .await?;
        let answer = Answer::json(StatusCode::OK, presenter.list(deleted).await?);
        Ok(answer.with_warnings(&options.remarks.warnings()))
    }

    /// Keeps the request's object for the audit log.
    fn note(&self, object: &Value) {
        if let Some(note) = self.parts.extensions.get::<Note>() {
            note.object(object);
        }
    }

    /// Keeps what admission will say for the audit log.
    fn note_remarks(&self, remarks: &Remarks) {
        if let Some(note) = self.parts.extensions.get::<Note>() {
            note.remarks(remarks);
        }
    }

    fn presenter(&self) -> Result<Presenter, Status> {
        self.presenter_of(object_view(&self.parts.headers)?)
    }

    fn presenter_of(&self, view: View) -> Result<Presenter, Status> {
        let now = self.server.pipeline().shell().now();
        Presenter::new(&self.target.resource, view, self.query, now)
    }
}

fn answer_written(presenter: &Presenter, written: &Written) -> Result<Answer, Status> {
    let code = if written.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let answer = Answer::json(code, presenter.object(&written.json)?);
    Ok(answer.with_warnings(&written.warnings))
}

/// The kind that a body should hold, for the fault when it does not.
fn body_kind(target: &Target) -> &str {
    let subresource = target.subresource.as_deref();
    match subresource.and_then(|name| target.resource.subresource(name)) {
        Some(subresource) => &subresource.kind.kind,
        None => &target.resource.kind,
    }
}

/// A delete's options; None for an empty body.
async fn delete_body(parts: &Parts, bytes: &Bytes) -> Result<Option<Value>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    // Clients that send no options' type still send JSON.
    let format = body::format(&parts.headers).unwrap_or(Format::Json);
    let decoded = body::decode(format, bytes, "DeleteOptions").await?;
    Ok(Some(decoded.value).filter(|value| !value.is_null()))
}
