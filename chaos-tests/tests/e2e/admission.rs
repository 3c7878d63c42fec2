//! Rules of a namespace and webhooks, as kubectl's users meet them: quotas that hold on every master, limit ranges, pod security,
//! and a webhook behind a service.

use crate::manifests::{documents, pod};
use crate::site::Site;
use crate::told::{Told, assert_words, timed, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

#[test]
fn namespaces_have_rules_and_webhooks_a_word() {
    let site = Site::cluster("admission", 27, 3, 1);
    let kubectl = Kubectl::new(&site);
    timed("quotas", || quotas(&site, &kubectl));
    timed("limit ranges", || limit_ranges(&kubectl));
    timed("pod security", || pod_security(&kubectl));
    timed("webhooks", || webhooks(&site, &kubectl));
}

/// The newest kubectl of the machine.
struct Kubectl {
    program: PathBuf,
    home: PathBuf,
    config: PathBuf,
}

impl Kubectl {
    fn new(site: &Site) -> Self {
        Kubectl {
            program: kubectls::all().pop().expect("at least one").program,
            home: site.home().to_owned(),
            config: site.kubeconfig(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("HOME", &self.home);
        command.arg("--kubeconfig").arg(&self.config);
        command.args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Told {
        Told::of(self.command(arguments), b"")
    }

    fn create(&self, namespace: &str, object: &Value) -> Told {
        let arguments = ["-n", namespace, "create", "-f", "-"];
        Told::of(self.command(&arguments), object.to_string().as_bytes())
    }

    fn namespace(&self, name: &str) {
        self.run(&["create", "namespace", name]).ok();
    }

    fn used(&self, namespace: &str, quota: &str, what: &str) -> String {
        let path = format!("jsonpath={{.status.used.{what}}}");
        self.run(&["-n", namespace, "get", "quota", quota, "-o", &path])
            .ok()
    }
}

fn quotas(site: &Site, kubectl: &Kubectl) {
    kubectl.namespace("counted");
    kubectl
        .run(&[
            "-n",
            "counted",
            "create",
            "quota",
            "team",
            "--hard=pods=2,configmaps=6",
        ])
        .ok();
    let known = |what: &str, wanted: &str| {
        until(&format!("{what} used: {wanted}"), 10, || {
            match kubectl.used("counted", "team", what) {
                used if used == wanted => Ok(()),
                used => Err(used),
            }
        });
    };
    // The root CA's configmap may be there already, and counts.
    known("pods", "0");
    for name in ["a", "b"] {
        kubectl.create("counted", &pod(name, "sleep 1000")).ok();
    }
    assert_eq!(
        kubectl.used("counted", "team", "pods"),
        "2",
        "charged with the write"
    );
    assert_words(
        &kubectl.create("counted", &pod("c", "sleep 1000")).fails(1),
        &["exceeded quota: team, requested: pods=1, used: pods=2, limited: pods=2"],
    );
    kubectl
        .run(&[
            "-n",
            "counted",
            "delete",
            "pod",
            "a",
            "--grace-period=0",
            "--force",
        ])
        .ok();
    known("pods", "1");

    // Three masters at once give out no more than there is.
    let made: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..12)
            .map(|index| {
                let url = site.url(&format!("m{}", index % 3 + 1));
                let name = format!("cm{index}");
                scope.spawn(move || {
                    let asked = [
                        "-n",
                        "counted",
                        "--server",
                        &url,
                        "create",
                        "configmap",
                        &name,
                    ];
                    usize::from(kubectl.run(&asked).code == Some(0))
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().expect("no panic"))
            .sum()
    });
    let there = kubectl
        .run(&["-n", "counted", "get", "configmaps", "-o", "name"])
        .ok();
    assert_eq!(there.lines().count(), 6, "{there}");
    assert!(made <= 6, "{made} were made");
}

fn limit_ranges(kubectl: &Kubectl) {
    kubectl.namespace("bounded");
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "bounds"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "200m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]}});
    kubectl.create("bounded", &range).ok();
    kubectl.create("bounded", &pod("plain", "sleep 1000")).ok();
    let path = "jsonpath={.spec.containers[0].resources}";
    let given = kubectl
        .run(&["-n", "bounded", "get", "pod", "plain", "-o", path])
        .ok();
    assert_eq!(
        given,
        r#"{"limits":{"cpu":"200m"},"requests":{"cpu":"100m"}}"#
    );
    let mut large = pod("large", "sleep 1000");
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    assert_words(
        &kubectl.create("bounded", &large).fails(1),
        &["maximum cpu usage per Container is 1, but limit is 2"],
    );
}

fn pod_security(kubectl: &Kubectl) {
    kubectl.namespace("plain");
    let mut reaching = pod("reaching", "sleep 1000");
    reaching["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    assert_words(
        &kubectl.create("plain", &reaching).fails(1),
        &["violates PodSecurity \"baseline:latest\"", "privileged"],
    );
    kubectl
        .run(&[
            "label",
            "ns",
            "plain",
            "pod-security.kubernetes.io/enforce=privileged",
        ])
        .ok();
    kubectl.create("plain", &reaching).ok();
    let told = kubectl.run(&[
        "label",
        "--overwrite",
        "ns",
        "plain",
        "pod-security.kubernetes.io/enforce=restricted",
    ]);
    assert_words(
        &told.err,
        &["existing pods in namespace \"plain\" violate the new PodSecurity enforce level"],
    );
}

fn webhooks(site: &Site, kubectl: &Kubectl) {
    let hook = Hook::serve(&site.host_address());
    kubectl.namespace("hooks");
    let (host, port) = hook.address.rsplit_once(':').expect("host:port");
    let port: u16 = port.parse().expect("a number");
    site.apply(&documents(&[
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook", "namespace": "hooks"},
            "spec": {"ports": [{"port": 443, "targetPort": port}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "hook", "namespace": "hooks", "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4", "endpoints": [{"addresses": [host]}], "ports": [{"name": "", "port": port, "protocol": "TCP"}]}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "marks"}, "webhooks": [{
                "name": "marks.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"service": {"namespace": "hooks", "name": "hook", "path": "/review"}, "caBundle": hook.bundle},
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "hooks"}},
            }]}),
    ]));
    kubectl
        .run(&["-n", "hooks", "create", "configmap", "fine"])
        .ok();
    let path = "jsonpath={.metadata.labels.marked}";
    let label = kubectl
        .run(&["-n", "hooks", "get", "configmap", "fine", "-o", path])
        .ok();
    assert_eq!(label, "yes");
    assert_words(
        &kubectl
            .run(&["-n", "hooks", "create", "configmap", "forbidden"])
            .fails(1),
        &["admission webhook \"marks.example.com\" denied the request: no such name here"],
    );
    drop(hook);
    assert_words(
        &kubectl
            .run(&["-n", "hooks", "create", "configmap", "later"])
            .fails(1),
        &["failed calling webhook \"marks.example.com\""],
    );
    kubectl
        .run(&["delete", "mutatingwebhookconfiguration", "marks"])
        .ok();
    kubectl
        .run(&["-n", "hooks", "create", "configmap", "later"])
        .ok();
}

/// A webhook that marks what it sees and refuses one name.
struct Hook {
    address: String,
    bundle: String,
    _tokio: Runtime,
}

impl Hook {
    fn serve(address: &str) -> Hook {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("a CA");
        let params = CertificateParams::new(vec!["hook.hooks.svc".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &authority).expect("signed");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .expect("fits");
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let listener = tokio
            .block_on(TcpListener::bind((address, 0)))
            .expect("the address is this machine's");
        let address = listener.local_addr().expect("it is bound").to_string();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        tokio.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        // A master that goes away is not the webhook's fault.
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service_fn(answer))
                            .await;
                    }
                });
            }
        });
        Hook {
            address,
            bundle: STANDARD.encode(authority.pem()),
            _tokio: tokio,
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.expect("a body");
    let review: Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
    let asked = &review["request"];
    let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"marked": "yes"}}]);
    let response = match asked["name"].as_str() {
        Some("forbidden") => json!({"allowed": false, "status": {"message": "no such name here"}}),
        _ => {
            json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
        }
    };
    let mut answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
    answer["response"]["uid"] = asked["uid"].clone();
    Ok(Response::new(Full::new(answer.to_string().into())))
}
