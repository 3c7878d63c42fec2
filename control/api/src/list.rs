//! Long lists, sent while they are read: the first page of the store's answer goes out at once, the next ones follow at the same
//! revision, each read while the one before is sent. Whoever reads slowly makes the reading slow, and no list is whole in memory.
//!
//! Only objects as they are stored are so sent; tables and compressed answers are made of the whole list. A list that cannot go on breaks
//! off in the middle, which clients see as a broken connection and repeat.

use crate::ApiServer;
use crate::answer::{Answer, BodyError};
use crate::present::{Presenter, list_head};
use bytes::{Bytes, BytesMut};
use futures::future::ready;
use futures::{StreamExt, stream};
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use objects::{Revision, Status};
use registry::{ListOptions, Target, VersionMatch};
use tokio_util::task::AbortOnDropHandle;

/// Objects of the first page: few, so that its bytes come soon.
const PAGE_FIRST: usize = 100;
/// Objects of each page behind it.
const PAGE: usize = 500;

/// Answers a list for which the client set no limit. `told` is called with how many objects it had, when all were read.
pub async fn answer(
    server: &ApiServer,
    target: &Target,
    options: ListOptions,
    presenter: Presenter,
    told: impl FnOnce(usize) + Send + 'static,
) -> Result<Answer, Status> {
    let known = options
        .resource_version
        .filter(|revision| *revision > Revision(0));
    let first = ListOptions {
        limit: Some(PAGE_FIRST),
        is_uncounted: true,
        // With a limit a revision alone would mean that very one.
        version_match: options
            .version_match
            .or(known.map(|_| VersionMatch::NotOlderThan)),
        ..options.clone()
    };
    let mut page = server.pipeline().list(target, &first).await?;
    let count = page.items.len();
    let Some(token) = page.continue_token.take() else {
        told(count);
        return Ok(Answer::json(StatusCode::OK, presenter.list(page).await?));
    };
    let mut head = BytesMut::from(list_head(&target.resource, &page).as_bytes());
    join(&mut head, &page.items);
    let rest = Rest {
        server: server.clone(),
        target: target.clone(),
        options: ListOptions {
            resource_version: None,
            version_match: None,
            limit: Some(PAGE),
            ..first
        },
        count,
        told: Box::new(told),
    };
    let rest = rest.read(token);
    let first = stream::once(ready(Ok(Frame::data(head.freeze()))));
    let others = stream::try_unfold(Some(rest), |coming| async {
        let Some(coming) = coming else {
            return Ok(None);
        };
        let page = coming.await.map_err(BodyError::new)?;
        let Page { bytes, token, rest } = page.map_err(|status| BodyError::new(status.message))?;
        let coming = match token {
            Some(token) => Some(rest.read(token)),
            None => {
                (rest.told)(rest.count);
                None
            }
        };
        Ok(Some((Frame::data(bytes), coming)))
    });
    let body = StreamBody::new(first.chain(others)).boxed_unsync();
    Ok(Answer::stream("application/json", body))
}

/// What is still to be read.
struct Rest {
    server: ApiServer,
    target: Target,
    options: ListOptions,
    /// Objects that were read.
    count: usize,
    told: Box<dyn FnOnce(usize) + Send>,
}

/// A page behind the first.
struct Page {
    bytes: Bytes,
    token: Option<String>,
    rest: Rest,
}

impl Rest {
    /// Reads the next page beside whatever else is done; the last one's bytes end the list.
    fn read(mut self, token: String) -> AbortOnDropHandle<Result<Page, Status>> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            let options = ListOptions {
                continue_token: Some(token),
                ..self.options.clone()
            };
            let list = self.server.pipeline().list(&self.target, &options);
            let page = self.server.within_deadline(list).await?;
            self.count += page.items.len();
            let mut bytes = BytesMut::new();
            if !page.items.is_empty() {
                bytes.extend_from_slice(b",");
                join(&mut bytes, &page.items);
            }
            if page.continue_token.is_none() {
                bytes.extend_from_slice(b"]}");
            }
            Ok(Page {
                bytes: bytes.freeze(),
                token: page.continue_token,
                rest: self,
            })
        }))
    }
}

fn join(out: &mut BytesMut, items: &[Bytes]) {
    out.reserve(items.iter().map(|item| item.len() + 1).sum());
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(item);
    }
}
