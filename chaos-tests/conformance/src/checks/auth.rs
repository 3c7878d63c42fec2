//! Who asks, and what they may.

use super::{check, story};
use crate::context::{Asked, Context, ensure, refused, shown, text};
use crate::lifecycle::Story;
use crate::run::Check;
use base64::Engine;
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations [Conformance]",
        signing_requests
    ),
    check!(
        "[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace [Conformance]",
        root_ca
    ),
    story!(
        "[sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount [Conformance]",
        Story::of("v1", "serviceaccounts", "ServiceAccount", json!({}))
    ),
    check!(
        "[sig-auth] ServiceAccounts should update a ServiceAccount [Conformance]",
        update_account
    ),
    check!(
        "[sig-auth] ServiceAccounts should allow opting out of API token automount [Conformance]",
        opts_out
    ),
    check!(
        "[sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer [Conformance]",
        issuer
    ),
    check!(
        "[sig-auth] own: a token that was requested authenticates as its account",
        account_token
    ),
    check!(
        "[sig-auth] SubjectReview should support SubjectReview API operations [Conformance]",
        subject_review
    ),
    check!(
        "[sig-auth] SelfSubjectReview should support SelfSubjectReview API operations [Conformance]",
        self_review
    ),
    check!(
        "[sig-auth] own: SelfSubjectRulesReview tells the rules of the caller",
        rules_review
    ),
    check!(
        "[sig-auth] own: RBAC grants what a role and its binding say, and nothing more",
        roles
    ),
    check!(
        "[sig-auth] own: RBAC refuses to grant more than the grantor has",
        escalation
    ),
    check!(
        "[sig-auth] own: impersonation asks as somebody else",
        impersonation
    ),
    story!(
        "[sig-auth] own: ClusterRole API operations",
        Story::of(
            "rbac.authorization.k8s.io/v1",
            "clusterroles",
            "ClusterRole",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
        )
        .cluster_wide()
    ),
    story!(
        "[sig-auth] own: RoleBinding API operations",
        Story::of(
            "rbac.authorization.k8s.io/v1",
            "rolebindings",
            "RoleBinding",
            json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "nobody"}]})
        )
    ),
];

/// A certificate signing request in PEM.
fn request_pem(user: &str) -> Asked<String> {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, user);
    let made = rcgen::KeyPair::generate().and_then(|key| parameters.serialize_request(&key)?.pem());
    made.map_err(|error| crate::Failure::Wrong(format!("no request could be made here: {error}")))
}

async fn signing_requests(context: &Context) -> Asked<()> {
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    context
        .need("certificates.k8s.io/v1", "certificatesigningrequests")
        .await?;
    let own = context.unique("csr");
    let request =
        base64::engine::general_purpose::STANDARD.encode(request_pem("e2e-example-user")?);
    let object = json!({"kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1", "metadata": {"name": own},
        "spec": {"request": request, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["digital signature", "key encipherment", "client auth"], "expirationSeconds": 3600}});
    let made = context.create(path, &object).await?;
    let one = format!("{path}/{own}");
    context.clean_up(one.clone());
    ensure!(
        !text(&made, "/spec/username").is_empty(),
        "the asker is missing: {}",
        shown(&made)
    );
    let mut approval = context.get(&format!("{one}/approval")).await?;
    approval["status"]["conditions"] =
        json!([{"type": "Approved", "status": "True", "reason": "E2E", "message": "by a check"}]);
    let approved = context
        .replace(&format!("{one}/approval"), &approval)
        .await?;
    ensure!(
        approved["status"]["conditions"][0]["type"] == "Approved",
        "{}",
        shown(&approved)
    );
    let signed = context
        .wait("a certificate", &one, |it| {
            !text(it, "/status/certificate").is_empty()
        })
        .await?;
    let pem =
        base64::engine::general_purpose::STANDARD.decode(text(&signed, "/status/certificate"));
    ensure!(
        pem.is_ok_and(|it| it.starts_with(b"-----BEGIN CERTIFICATE-----")),
        "{}",
        shown(&signed)
    );
    context.delete(&one).await?;
    context.wait_gone(&one).await
}

async fn root_ca(context: &Context) -> Asked<()> {
    let path = format!("{}/kube-root-ca.crt", context.of("v1", "configmaps").await?);
    let question = async || Ok((!context.is_gone(&path).await?).then_some(()));
    context
        .until(
            "the map with the cluster's CA",
            crate::context::SOON,
            question,
        )
        .await?;
    let map = context.get(&path).await?;
    ensure!(
        text(&map, "/data/ca.crt").contains("BEGIN CERTIFICATE"),
        "{}",
        shown(&map)
    );
    context.delete(&path).await?;
    context
        .until("the map, again", crate::context::SOON, question)
        .await?;
    context
        .merge(&path, &json!({"data": {"ca.crt": "changed"}}))
        .await?;
    context
        .wait("the map, mended", &path, |it| {
            text(it, "/data/ca.crt").contains("BEGIN CERTIFICATE")
        })
        .await?;
    Ok(())
}

async fn update_account(context: &Context) -> Asked<()> {
    let accounts = context.of("v1", "serviceaccounts").await?;
    let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "one"}, "automountServiceAccountToken": false});
    let mut made = context.create(&accounts, &account).await?;
    made["automountServiceAccountToken"] = json!(true);
    let updated = context.replace(&format!("{accounts}/one"), &made).await?;
    ensure!(
        updated["automountServiceAccountToken"] == true,
        "{}",
        shown(&updated)
    );
    Ok(())
}

/// The pod's word goes before the account's; without either the token is mounted.
async fn opts_out(context: &Context) -> Asked<()> {
    let (accounts, pods) = (
        context.of("v1", "serviceaccounts").await?,
        context.of("v1", "pods").await?,
    );
    for (own, mount) in [
        ("default-sa", json!(null)),
        ("mount-sa", json!(true)),
        ("nomount-sa", json!(false)),
    ] {
        let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": own}, "automountServiceAccountToken": mount});
        context.create(&accounts, &account).await?;
        for (of_pod, mount) in [
            ("default", json!(null)),
            ("mount", json!(true)),
            ("nomount", json!(false)),
        ] {
            let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": format!("{own}-{of_pod}")},
                "spec": {"serviceAccountName": own, "automountServiceAccountToken": mount, "nodeSelector": {"no-such": "node"}, "containers": [{"name": "c", "image": "none"}]}});
            let made = context.create(&pods, &pod).await?;
            let mounts = made["spec"]["containers"][0]["volumeMounts"].to_string();
            let mounted = mounts.contains("/var/run/secrets/kubernetes.io/serviceaccount");
            let wanted = of_pod == "mount" || (of_pod == "default" && own != "nomount-sa");
            ensure!(
                mounted == wanted,
                "account {own}, pod {of_pod}: the mounts are {mounts}"
            );
        }
    }
    Ok(())
}

async fn issuer(context: &Context) -> Asked<()> {
    let document = context.get("/.well-known/openid-configuration").await?;
    ensure!(
        text(&document, "/issuer").starts_with("https://")
            && !text(&document, "/jwks_uri").is_empty(),
        "{}",
        shown(&document)
    );
    let keys = context.get("/openid/v1/jwks").await?;
    ensure!(
        keys["keys"].as_array().is_some_and(|it| !it.is_empty()
            && it
                .iter()
                .all(|it| it["kid"].is_string() && it["kty"].is_string())),
        "{}",
        shown(&keys)
    );
    Ok(())
}

async fn account_token(context: &Context) -> Asked<()> {
    let namespace = context.namespace().await?;
    let accounts = context.of("v1", "serviceaccounts").await?;
    context
        .create(
            &accounts,
            &json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "one"}}),
        )
        .await?;
    let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"expirationSeconds": 3600}});
    let told = context
        .create(&format!("{accounts}/one/token"), &request)
        .await?;
    let token = text(&told, "/status/token");
    ensure!(token.split('.').count() == 3, "{}", shown(&told));
    let review = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": token}});
    let told = context
        .create("/apis/authentication.k8s.io/v1/tokenreviews", &review)
        .await?;
    let user = format!("system:serviceaccount:{namespace}:one");
    ensure!(
        told["status"]["authenticated"] == true && told["status"]["user"]["username"] == user,
        "{}",
        shown(&told)
    );
    let review = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": format!("{token}x")}});
    let told = context
        .create("/apis/authentication.k8s.io/v1/tokenreviews", &review)
        .await?;
    ensure!(told["status"]["authenticated"] != true, "{}", shown(&told));
    Ok(())
}

async fn access(context: &Context, user: &str, attributes: Value) -> Asked<bool> {
    let review = json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"user": user, "resourceAttributes": attributes}});
    let told = context
        .create(
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            &review,
        )
        .await?;
    Ok(told["status"]["allowed"] == true)
}

async fn subject_review(context: &Context) -> Asked<()> {
    let namespace = context.namespace().await?;
    let user = format!("system:serviceaccount:{namespace}:e2e");
    let attributes =
        json!({"namespace": namespace, "verb": "list", "resource": "configmaps", "version": "v1"});
    ensure!(
        !access(context, &user, attributes.clone()).await?,
        "an account without a role may list"
    );
    let review = json!({"kind": "LocalSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {"namespace": namespace},
        "spec": {"user": user, "resourceAttributes": attributes}});
    let path = context
        .of("authorization.k8s.io/v1", "localsubjectaccessreviews")
        .await?;
    let told = context.create(&path, &review).await?;
    ensure!(told["status"]["allowed"] == false, "{}", shown(&told));
    Ok(())
}

async fn self_review(context: &Context) -> Asked<()> {
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let told = context
        .create("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review)
        .await?;
    ensure!(
        !text(&told, "/status/userInfo/username").is_empty()
            && told["status"]["userInfo"]["groups"].is_array(),
        "{}",
        shown(&told)
    );
    let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}}});
    let told = context
        .create(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            &review,
        )
        .await?;
    ensure!(told["status"]["allowed"] == true, "{}", shown(&told));
    Ok(())
}

async fn rules_review(context: &Context) -> Asked<()> {
    let review = json!({"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"namespace": "default"}});
    let told = context
        .create(
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            &review,
        )
        .await?;
    ensure!(
        told["status"]["resourceRules"]
            .as_array()
            .is_some_and(|it| !it.is_empty())
            && told["status"]["incomplete"].is_boolean(),
        "{}",
        shown(&told)
    );
    Ok(())
}

/// Binds a user of the check to a role in its namespace.
async fn grant(context: &Context, user: &str, rule: Value) -> Asked<()> {
    let api = "rbac.authorization.k8s.io";
    let group_version = "rbac.authorization.k8s.io/v1";
    let role = json!({"kind": "Role", "apiVersion": group_version, "metadata": {"name": "granted"}, "rules": [rule]});
    context
        .create(&context.of(group_version, "roles").await?, &role)
        .await?;
    let binding = json!({"kind": "RoleBinding", "apiVersion": group_version, "metadata": {"name": "granted"},
        "roleRef": {"apiGroup": api, "kind": "Role", "name": "granted"}, "subjects": [{"kind": "User", "apiGroup": api, "name": user}]});
    context
        .create(&context.of(group_version, "rolebindings").await?, &binding)
        .await?;
    Ok(())
}

async fn roles(context: &Context) -> Asked<()> {
    let namespace = context.namespace().await?;
    let user = context.unique("user");
    grant(
        context,
        &user,
        json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}),
    )
    .await?;
    let ask = |namespace: &str, verb: &str, resource: &str| json!({"namespace": namespace, "verb": verb, "resource": resource, "version": "v1"});
    let question = async || {
        Ok(
            access(context, &user, ask(&namespace, "list", "configmaps"))
                .await?
                .then_some(()),
        )
    };
    context
        .until("the grant", crate::context::SOON, question)
        .await?;
    for (namespace, verb, resource) in [
        (namespace.as_str(), "create", "configmaps"),
        (&namespace, "list", "secrets"),
        ("default", "list", "configmaps"),
    ] {
        ensure!(
            !access(context, &user, ask(namespace, verb, resource)).await?,
            "{verb} of {resource} in {namespace} was not granted"
        );
    }
    Ok(())
}

/// A request as somebody else.
async fn as_user(
    context: &Context,
    user: &str,
    method: http::Method,
    path: &str,
    body: Value,
) -> Result<Value, client::Error> {
    use http_body_util::BodyExt;
    let payload = if body.is_null() {
        client::Payload::Empty
    } else {
        client::Payload::json(&body)
    };
    let headers = [("impersonate-user", user.to_owned())];
    let body = context
        .client()
        .open_with(method, path, payload, &headers, client::Deadline::default())
        .await?;
    let bytes = body
        .collect()
        .await
        .map(|it| it.to_bytes())
        .unwrap_or_default();
    Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn escalation(context: &Context) -> Asked<()> {
    let user = context.unique("user");
    let group_version = "rbac.authorization.k8s.io/v1";
    grant(context, &user, json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]})).await?;
    let role = json!({"kind": "Role", "apiVersion": group_version, "metadata": {"name": "more"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}]});
    let path = context.of(group_version, "roles").await?;
    let question =
        async || match as_user(context, &user, http::Method::POST, &path, role.clone()).await {
            Err(client::Error::Api(status))
                if status
                    .message
                    .contains("attempting to grant RBAC permissions not currently held") =>
            {
                Ok(Some(()))
            }
            // The grant has not come yet.
            Err(client::Error::Api(status)) if status.code == 403 => Ok(None),
            asked => refused("a role with more than its maker may", asked, 403).map(|_| Some(())),
        };
    context
        .until("the refusal to grant more", crate::context::SOON, question)
        .await
}

async fn impersonation(context: &Context) -> Asked<()> {
    let namespace = context.namespace().await?;
    let path = format!("/api/v1/namespaces/{namespace}/secrets");
    let status = refused(
        "a list by nobody",
        as_user(
            context,
            "nobody-at-all",
            http::Method::GET,
            &path,
            Value::Null,
        )
        .await,
        403,
    )?;
    ensure!(
        status
            .message
            .contains("User \"nobody-at-all\" cannot list resource \"secrets\""),
        "{}",
        status.message
    );
    Ok(())
}
