//! Long lists, sent while they are read: the first page of the store's answer goes out at once, the next ones follow at the same
//! revision. Whoever reads slowly makes the reading slow, and no list is whole in memory.
//!
//! Only objects as they are stored are so sent; tables and compressed answers are made of the whole list. A list that cannot go on breaks
//! off in the middle, which clients see as a broken connection and repeat.

use crate::ApiServer;
use crate::answer::{Answer, BodyError};
use crate::present::{Presenter, list_head};
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use objects::{Revision, Status};
use registry::{ListOptions, Target, VersionMatch};

/// Objects a page.
const PAGE: usize = 250;

/// Answers a list for which the client set no limit; with it how many objects it is of.
pub async fn answer(
    server: &ApiServer,
    target: &Target,
    options: ListOptions,
    presenter: Presenter,
) -> Result<(Answer, usize), Status> {
    let known = options
        .resource_version
        .filter(|revision| *revision > Revision(0));
    let first = ListOptions {
        limit: Some(PAGE),
        // With a limit a revision alone would mean that very one.
        version_match: options
            .version_match
            .or(known.map(|_| VersionMatch::NotOlderThan)),
        ..options.clone()
    };
    let mut page = server.pipeline().list(target, &first).await?;
    let more = page.remaining.take().unwrap_or(0);
    let count = page.items.len() + usize::try_from(more).unwrap_or(0);
    let Some(token) = page.continue_token.take() else {
        let whole = Answer::json(StatusCode::OK, presenter.list(page).await?);
        return Ok((whole, count));
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
            ..options
        },
        token: Some(token),
    };
    let body = stream::unfold(
        (Some(head.freeze()), Some(rest)),
        |(ready, rest)| async move {
            if let Some(bytes) = ready {
                return Some((Ok(Frame::data(bytes)), (None, rest)));
            }
            let mut rest = rest?;
            match rest.next().await {
                Ok(bytes) => {
                    let left = rest.token.is_some().then_some(rest);
                    Some((Ok(Frame::data(bytes)), (None, left)))
                }
                Err(status) => Some((Err(BodyError::new(status.message)), (None, None))),
            }
        },
    );
    let body = StreamBody::new(body).boxed_unsync();
    Ok((Answer::stream("application/json", body), count))
}

/// What is still to be read.
struct Rest {
    server: ApiServer,
    target: Target,
    options: ListOptions,
    token: Option<String>,
}

impl Rest {
    /// The next page's bytes; the last one's end the list.
    async fn next(&mut self) -> Result<Bytes, Status> {
        let options = ListOptions {
            continue_token: self.token.take(),
            ..self.options.clone()
        };
        let list = self.server.pipeline().list(&self.target, &options);
        let page = self.server.within_deadline(list).await?;
        let mut bytes = BytesMut::new();
        if !page.items.is_empty() {
            bytes.extend_from_slice(b",");
            join(&mut bytes, &page.items);
        }
        self.token = page.continue_token;
        if self.token.is_none() {
            bytes.extend_from_slice(b"]}");
        }
        Ok(bytes.freeze())
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
