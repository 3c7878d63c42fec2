//! A member that was started with another address tells the others, so that they find it again.

use super::change::{Change, change_at};
use super::members;
use crate::store::Inner;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Until the members know this one as it was configured. Without hearing them it knows no leader, so it asks each.
pub(crate) async fn tell_own_address(inner: Arc<Inner>) {
    let own = inner.identity.member_id;
    let config = &inner.config;
    loop {
        let members = members(&inner.raft);
        let known = members.iter().find(|member| member.id == own);
        let Some(known) = known else {
            // It still learns who the members are.
            sleep(RETRY_AFTER).await;
            continue;
        };
        if known.peer_address == config.peer_address && known.api_url == config.api_url {
            return;
        }
        let change = Change::Update {
            id: own,
            peer_address: config.peer_address.clone(),
            api_url: Some(config.api_url.clone()),
        };
        for member in &members {
            match change_at(&inner, member.id, &change).await {
                Ok(_) => return,
                Err(Some(err)) => {
                    tracing::warn!(error = %err, asked = member.name, "the members do not know this member's new address yet");
                }
                Err(None) => {}
            }
        }
        sleep(RETRY_AFTER).await;
    }
}
