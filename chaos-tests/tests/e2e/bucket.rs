//! A bucket of a real S3 server that runs in this test: it checks signatures and keeps its objects in a folder.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The access key.
pub const KEY: &str = "backup-writer";
/// Its secret.
pub const SECRET: &str = "not-for-the-eyes-of-others";
/// The bucket.
pub const NAME: &str = "backups";

/// The server; it ends with this value.
pub struct Bucket {
    endpoint: String,
    folder: PathBuf,
    held: Arc<AtomicBool>,
    _tokio: Runtime,
}

impl Bucket {
    /// Serves the folder at the address.
    pub fn serve(address: &str, folder: &Path) -> Bucket {
        std::fs::create_dir_all(folder.join(NAME)).expect("the folder can be made");
        let files = s3s_fs::FileSystem::new(folder).expect("the folder can be served");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let listener = tokio
            .block_on(TcpListener::bind((address, 0)))
            .expect("the address is this machine's");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let held = Arc::new(AtomicBool::new(false));
        let gate = held.clone();
        tokio.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (service, gate) = (service.clone(), gate.clone());
                let gated = hyper_util::service::TowerToHyperService::new(tower_of(service, gate));
                tokio::spawn(async move {
                    let served = Builder::new(TokioExecutor::new());
                    // A client that was killed is not the server's fault.
                    let _ = served
                        .serve_connection(TokioIo::new(connection), gated)
                        .await;
                });
            }
        });
        Bucket {
            endpoint,
            folder: folder.join(NAME),
            held,
            _tokio: tokio,
        }
    }

    /// Its URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// While it is held, nothing is answered.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// The objects under a prefix.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.join(prefix));
        let entries = entries.into_iter().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| {
                let entry = entry.expect("it can be read");
                entry.file_name().to_string_lossy().into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

type Request = hyper::Request<hyper::body::Incoming>;
type Answer = Result<hyper::Response<s3s::Body>, s3s::HttpError>;

fn tower_of(
    service: s3s::service::S3Service,
    gate: Arc<AtomicBool>,
) -> impl tower::Service<
    Request,
    Response = hyper::Response<s3s::Body>,
    Error = s3s::HttpError,
    Future = futures::future::BoxFuture<'static, Answer>,
> + Clone {
    tower::service_fn(move |request: Request| {
        let (service, gate) = (service.clone(), gate.clone());
        let answer: futures::future::BoxFuture<'static, Answer> = Box::pin(async move {
            while gate.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            service.call(request.map(s3s::Body::from)).await
        });
        answer
    })
}
