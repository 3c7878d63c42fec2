//! Replays what kubectl asks, as it was recorded (`testdata/contract.txt`), and checks codes and shapes: a table is a table,
//! a list is a list, a refusal is a `Status`.

use crate::rig::{Reply, Rig};
use http::Method;

const CONTRACT: &str = include_str!("../../testdata/contract.txt");
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// A recorded request.
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    accepts: &'a str,
    code: u16,
    /// The body's type and the body.
    body: Option<(&'a str, &'a str)>,
}

fn recorded() -> Vec<Asked<'static>> {
    let mut all: Vec<Asked<'static>> = Vec::new();
    for line in CONTRACT.lines() {
        if let Some(body) = line.strip_prefix("  ") {
            let asked = all.last_mut().expect("a request first");
            asked.body = body.split_once(' ');
        } else if let [method, path, accepts, code] = line.split(' ').collect::<Vec<_>>()[..]
            && path.starts_with('/')
        {
            all.push(Asked {
                method,
                path,
                accepts,
                code: code.parse().expect("a code"),
                body: None,
            });
        }
    }
    all
}

impl Asked<'_> {
    async fn send(&self, client: &crate::rig::Client) -> Reply {
        let accept = match self.accepts {
            "J" => "application/json",
            "J*" => "application/json, */*",
            "PB" => "application/vnd.kubernetes.protobuf,application/json",
            "Table" => TABLE,
            "AGG" => AGGREGATED,
            other => panic!("accepts {other}"),
        };
        let method: Method = self.method.parse().expect("a method");
        let mut headers = vec![("accept", accept)];
        let (kind, body) = self.body.unwrap_or_default();
        if !kind.is_empty() {
            headers.push(("content-type", kind));
        }
        client
            .call(method, self.path, &headers, body.to_owned())
            .await
    }

    /// What is wrong with the answer.
    fn fault(&self, reply: &Reply) -> Option<String> {
        if reply.code != self.code {
            return Some(format!(
                "{} instead of {}: {}",
                reply.code,
                self.code,
                reply.text()
            ));
        }
        if self.path.starts_with("/readyz") {
            return None; // A text.
        }
        let answer = reply.json();
        let kind = answer["kind"].as_str().unwrap_or_default();
        let wanted = match self.accepts {
            _ if self.code >= 400 => kind == "Status" && answer["code"] == self.code,
            "Table" => {
                let columns = answer["columnDefinitions"].as_array();
                kind == "Table" && columns.is_some_and(|columns| !columns.is_empty())
            }
            "AGG" => {
                let told = reply
                    .header("content-type")
                    .contains("as=APIGroupDiscoveryList");
                kind == "APIGroupDiscoveryList" && told && reply.header("vary") == "Accept"
            }
            _ if self.is_list() => kind.ends_with("List") && answer["items"].is_array(),
            _ => {
                self.path.starts_with("/version")
                    || self.path.starts_with("/openapi")
                    || !kind.is_empty()
            }
        };
        (!wanted).then(|| format!("not the shape that is expected: {}", reply.text()))
    }

    fn is_list(&self) -> bool {
        let selects = self.path.contains("Selector=") || self.path.contains("limit=");
        self.method == "GET" && selects
    }
}

#[tokio::test]
async fn the_recorded_requests_are_answered_as_expected() {
    let rig = Rig::start().await;
    let client = rig.admin();
    let asked = recorded();
    assert!(asked.len() >= 80, "{} requests", asked.len());
    let mut wrong = Vec::new();
    for asked in &asked {
        let reply = asked.send(&client).await;
        if let Some(fault) = asked.fault(&reply) {
            wrong.push(format!("{} {}: {fault}", asked.method, asked.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
