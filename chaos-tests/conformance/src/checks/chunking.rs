//! Lists in pieces, and lists as tables.

use super::check;
use crate::context::{Asked, Context, ensure, items, name, refused, shown, text, version};
use crate::run::Check;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls [Conformance]",
        chunks
    ),
    check!(
        "[sig-api-machinery] Servers with support for Table transformation should return pod details",
        pod_details
    ),
    check!(
        "[sig-api-machinery] Servers with support for Table transformation should return chunks of table results for list calls",
        table_chunks
    ),
    check!(
        "[sig-api-machinery] Servers with support for Table transformation should return generic metadata details across all namespaces for nodes",
        nodes
    ),
    check!(
        "[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata [Conformance]",
        no_table
    ),
];

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const OBJECTS: usize = 47;

async fn templates(context: &Context) -> Asked<String> {
    let path = context.of("v1", "podtemplates").await?;
    for number in 0..OBJECTS {
        let template = json!({
            "kind": "PodTemplate", "apiVersion": "v1", "metadata": {"name": format!("template-{number:04}")},
            "template": {"spec": {"containers": [{"name": "test", "image": "test2"}]}},
        });
        context.create(&path, &template).await?;
    }
    Ok(path)
}

async fn chunks(context: &Context) -> Asked<()> {
    let path = templates(context).await?;
    for limit in [1_usize, 7, 20, OBJECTS] {
        let mut seen = Vec::new();
        let mut at = None;
        let mut token = String::new();
        loop {
            let page = context
                .get(&format!("{path}?limit={limit}&continue={token}"))
                .await?;
            ensure!(
                items(&page).len() <= limit,
                "{} objects in a page of {limit}",
                items(&page).len()
            );
            let first = at.get_or_insert_with(|| version(&page).to_owned());
            ensure!(
                *first == version(&page),
                "pages of one list are of {first} and {}",
                version(&page)
            );
            seen.extend(items(&page).iter().map(|it| name(it).to_owned()));
            token = client::encode_segment(text(&page, "/metadata/continue"));
            let left = page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0) as usize;
            ensure!(
                seen.len() + left == OBJECTS,
                "{} seen and {left} left of {OBJECTS}",
                seen.len()
            );
            if token.is_empty() {
                break;
            }
        }
        let wanted: Vec<String> = (0..OBJECTS)
            .map(|number| format!("template-{number:04}"))
            .collect();
        ensure!(seen == wanted, "pages of {limit} held {seen:?}");
    }
    Ok(())
}

async fn pod_details(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "shown"},
        "spec": {"nodeName": "no-such-node", "containers": [{"name": "a", "image": "b"}]}});
    context.create(&pods, &pod).await?;
    let table = context.get_as(&format!("{pods}/shown"), TABLE).await?;
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| text(it, "/name"))
        .collect();
    ensure!(
        table["kind"] == "Table"
            && columns.starts_with(&["Name", "Ready", "Status", "Restarts", "Age"]),
        "{}",
        shown(&table)
    );
    ensure!(
        table["rows"][0]["cells"][0] == "shown"
            && table["rows"][0]["object"]["kind"] == "PartialObjectMetadata",
        "{}",
        shown(&table["rows"])
    );
    Ok(())
}

async fn table_chunks(context: &Context) -> Asked<()> {
    let path = templates(context).await?;
    let first = context.get_as(&format!("{path}?limit=20"), TABLE).await?;
    let rows = |table: &Value| -> Vec<String> {
        table["rows"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| text(row, "/cells/0").to_owned())
            .collect()
    };
    let token = client::encode_segment(text(&first, "/metadata/continue"));
    ensure!(
        rows(&first).len() == 20 && !token.is_empty(),
        "{}",
        shown(&first)
    );
    let rest = context
        .get_as(&format!("{path}?continue={token}"), TABLE)
        .await?;
    ensure!(
        rows(&rest).len() == OBJECTS - 20,
        "{} rows are left",
        rows(&rest).len()
    );
    let all: BTreeSet<String> = rows(&first).into_iter().chain(rows(&rest)).collect();
    ensure!(all.len() == OBJECTS, "{} different rows", all.len());
    Ok(())
}

async fn nodes(context: &Context) -> Asked<()> {
    let table = context.get_as("/api/v1/nodes", TABLE).await?;
    let columns = table["columnDefinitions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    ensure!(
        table["kind"] == "Table"
            && columns.first().is_some_and(|it| it["name"] == "Name")
            && !version(&table).is_empty(),
        "{}",
        shown(&table)
    );
    Ok(())
}

async fn no_table(context: &Context) -> Asked<()> {
    let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    context
        .need("authorization.k8s.io/v1", "selfsubjectaccessreviews")
        .await?;
    let body = review.to_string().into();
    let payload = client::Payload::Bytes("application/json", body);
    let asked = context
        .client()
        .open_with(
            http::Method::POST,
            path,
            payload,
            &[("accept", TABLE.to_owned())],
            client::Deadline::default(),
        )
        .await;
    refused("a review as a table", asked.map(|_| json!("a table")), 406)?;
    Ok(())
}
