//! What is kept: requests in the audit log, secrets in the store.

use super::Kubectl;
use crate::site::Site;
use crate::told::until;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Writes the policy of the story: what of secrets may be told, all of what is done to the config map `told`, and nothing else.
pub fn audit_policy(site: &Site) -> PathBuf {
    let path = site.home().join("audit-policy.yaml");
    let policy = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [create, delete]
  namespaces: [default]
  resources: [{group: \"\", resources: [secrets]}]
- level: RequestResponse
  resources: [{group: \"\", resources: [configmaps], resourceNames: [told]}]
- level: None
";
    fs::write(&path, policy).expect("written");
    path
}

/// Where a master notes requests.
pub fn audit_log(site: &Site, master: &str) -> PathBuf {
    site.home().join(format!("{master}.audit"))
}

/// The log holds the lines of the policy and no other, each on the master that was asked.
pub fn requests_are_noted(site: &Site) {
    let admin = Kubectl::admin(site, "m2");
    let secret = [
        "create",
        "secret",
        "generic",
        "noted",
        "--from-literal=a=hush",
    ];
    admin.ok(&secret);
    admin.ok(&["create", "configmap", "told"]);
    admin.ok(&["label", "configmap", "told", "colour=green"]);
    let refused = ["delete", "configmap", "told", "--as", "ann"];
    admin.run(&refused).fails(1);
    let log = audit_log(site, "m2");
    let events = until("the log", 5, || {
        let text = fs::read_to_string(&log).expect("is there");
        let events: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
            .collect();
        let is_all = events.last().is_some_and(|event| event["verb"] == "delete");
        is_all.then_some(events).ok_or(text)
    });
    let told = |event: &Value| {
        let object = &event["objectRef"];
        json!([
            event["level"],
            event["verb"],
            object["resource"],
            event["responseStatus"]["code"]
        ])
    };
    let wanted = [
        json!(["Metadata", "create", "secrets", 201]),
        json!(["RequestResponse", "get", "configmaps", 200]),
        json!(["RequestResponse", "patch", "configmaps", 200]),
        json!(["RequestResponse", "delete", "configmaps", 403]),
    ];
    let found: Vec<Value> = events.iter().map(told).collect();
    assert_eq!(found, wanted);
    let [secret, _, patch, delete] = &events[..] else {
        panic!("four were found");
    };
    assert_eq!(secret["user"]["username"], "trireme:admin");
    assert_eq!(secret["stage"], "ResponseComplete");
    assert!(!secret.to_string().contains("requestObject"), "{secret}");
    let label = "/metadata/labels/colour";
    assert_eq!(patch["requestObject"].pointer(label), Some(&json!("green")));
    assert_eq!(
        patch["responseObject"].pointer(label),
        Some(&json!("green"))
    );
    assert_eq!(delete["impersonatedUser"]["username"], "ann");
    for other in ["m1", "m3"] {
        let text = fs::read_to_string(audit_log(site, other)).expect("is there");
        assert!(!text.contains("\"told\""), "{text}");
    }
}

/// With new keys every secret is readable on every master as before. The masters' files are not searched for it: they are compressed, so
/// that a search would find nothing in any case; the tests of `control/server/src/keyring/sealed.rs` show what is stored.
pub fn secrets_outlive_their_keys(site: &Site) {
    const MASTERS: [&str; 3] = ["m1", "m2", "m3"];
    let secret = "trireme-hush-5c1fe9a27b";
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "looked-for"}, "stringData": {"text": secret}});
    site.apply(&object.to_string());
    let encoded = STANDARD.encode(secret);
    let is_readable = || {
        for master in MASTERS {
            let admin = Kubectl::admin(site, master);
            let kept = admin.json(&["get", "secret", "looked-for"]);
            assert_eq!(kept["data"]["text"], encoded.as_str(), "on {master}");
            let all = admin.json(&["get", "secrets"]);
            let names: Vec<&Value> = all["items"].as_array().into_iter().flatten().collect();
            assert_eq!(names.len(), 2, "on {master}: {all}");
        }
    };
    is_readable();
    let admin = Kubectl::admin(site, "m1");
    let before = admin.ok(&["create", "token", "robot"]);
    let rotated = site.ctl(&["keys", "rotate"]).ok();
    assert!(rotated.contains("were sealed again"), "{rotated}");
    is_readable();
    // Tokens of the old key and of the new one are taken everywhere, and the new one is published.
    let after = admin.ok(&["create", "token", "robot"]);
    let key_of = |token: &str| token.split('.').next().map(str::to_owned);
    assert_ne!(key_of(&before), key_of(&after));
    for master in MASTERS {
        for token in [&before, &after] {
            let proof = json!({"token": token.trim()});
            Kubectl::user(site, "robot", master, &proof).ok(&["get", "configmaps"]);
        }
        let keys = Kubectl::admin(site, master).ok(&["get", "--raw", "/openid/v1/jwks"]);
        assert_eq!(keys.matches("\"kid\"").count(), 2, "{keys}");
    }
    // What was sealed under the old key is still read from the past.
    let shown = site.ctl(&["get", "secret", "looked-for", "--at", "1s", "-o", "json"]);
    assert!(shown.out.contains(&encoded), "{shown:?}");
}

/// Every master has the levels and schemas of every cluster, puts back those that are mandatory, and counts by them.
pub fn levels_are_kept(site: &Site) {
    let admin = Kubectl::admin(site, "m3");
    let missing = |schema: &str| {
        let shown = admin.ok(&["get", "flowschemas", schema, "--no-headers"]);
        shown.split_whitespace().last().map(str::to_owned)
    };
    until("every schema's level", 20, || {
        let shown = admin.ok(&["get", "flowschemas", "--no-headers"]);
        let has_level = |line: &str| line.ends_with("False");
        shown.lines().all(has_level).then_some(()).ok_or(shown)
    });
    admin.ok(&["delete", "prioritylevelconfiguration", "workload-low"]);
    admin.ok(&["delete", "flowschema", "catch-all"]);
    until("what was deleted", 30, || {
        let found = admin.run(&[
            "get",
            "flowschema/catch-all",
            "prioritylevelconfiguration/workload-low",
        ]);
        (found.code == Some(0) && missing("service-accounts").as_deref() == Some("False"))
            .then_some(())
            .ok_or(format!("{found:?}"))
    });
    for master in ["m1", "m2", "m3"] {
        let metrics = Kubectl::admin(site, master).ok(&["get", "--raw", "/metrics"]);
        let counted = "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"exempt\",priority_level=\"exempt\"}";
        assert!(metrics.contains(counted), "{metrics}");
    }
}
