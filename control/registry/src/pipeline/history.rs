//! The past of objects: the versions of one, and which revision was when. How the past of a whole list is read stands in `read`.

use super::Pipeline;
use super::store::status_of;
use crate::Target;
use mvcc::{At, KeyVersion, Moment, StoreError, VersionsRequest};
use objects::past::{self, HistoryKeep, HistoryStatus, ObjectHistory, ObjectVersion};
use objects::{Revision, Status, Timestamp, splice_revision};

/// The versions of an object, the newest first; 404 when none is kept.
pub async fn versions(
    pipeline: &Pipeline,
    target: &Target,
    before: Option<Revision>,
    limit: usize,
) -> Result<ObjectHistory, Status> {
    let key = target.key()?;
    let request = VersionsRequest {
        key: key.to_store_key().into(),
        before,
        limit,
    };
    let found = pipeline.store.versions(request).await.map_err(status_of)?;
    if found.versions.is_empty() && before.is_none() {
        return Err(Status::not_found(&key.resource, &key.name));
    }
    Ok(ObjectHistory {
        versions: found
            .versions
            .into_iter()
            .map(version)
            .collect::<Result<_, _>>()?,
        more: found.more,
    })
}

fn version(version: KeyVersion) -> Result<ObjectVersion, Status> {
    let created = version.kv.as_ref().is_some_and(|kv| kv.version == 1);
    let object = match version.kv {
        None => None,
        Some(kv) => {
            let json = splice_revision(&kv.value, kv.mod_revision);
            Some(serde_json::from_slice(&json).map_err(Status::internal)?)
        }
    };
    let author = version.author.unwrap_or_default();
    Ok(ObjectVersion {
        revision: version.revision.0,
        time: version.at_ms.map(time),
        user: author.user,
        manager: author.manager,
        action: author.action,
        created,
        object,
    })
}

/// What of the past is kept, and the point in it that was asked for.
pub async fn past(pipeline: &Pipeline, at: Option<At>) -> Result<HistoryStatus, Status> {
    let kept = pipeline.store.past().await.map_err(status_of)?;
    let at = match at {
        None => None,
        Some(at) => match pipeline.store.moment(at).await {
            Ok(moment) => Some(moment),
            Err(StoreError::Compacted { .. }) => {
                return Err(Status::expired(forgotten(kept.oldest)));
            }
            Err(error) => return Err(status_of(error)),
        },
    };
    let limits = kept.limits.unwrap_or_default();
    Ok(HistoryStatus {
        at: at.map(told),
        oldest: told(kept.oldest),
        newest: told(kept.newest),
        bytes: kept.bytes,
        keep: HistoryKeep {
            seconds: Some(limits.keep_ms / 1000),
            bytes: Some(limits.keep_bytes),
        },
    })
}

/// A 410 that also says what can be asked.
pub async fn told_since_when(pipeline: &Pipeline, mut status: Status) -> Status {
    if let Ok(kept) = pipeline.store.past().await {
        status.message = format!("{}; {}", status.message, since_when(kept.oldest));
    }
    status
}

fn forgotten(oldest: Moment) -> String {
    format!("that is too long ago: {}", since_when(oldest))
}

fn since_when(oldest: Moment) -> String {
    let when = oldest
        .at_ms
        .map_or(String::new(), |at_ms| format!(" of {}", time(at_ms)));
    format!(
        "the oldest revision that is kept is {}{when}",
        oldest.revision
    )
}

fn told(moment: Moment) -> past::Moment {
    past::Moment {
        revision: moment.revision.0,
        time: moment.at_ms.map(time),
    }
}

fn time(at_ms: u64) -> String {
    Timestamp::from_unix_ms(i64::try_from(at_ms).unwrap_or(i64::MAX)).to_milli_time()
}
