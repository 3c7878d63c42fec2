//! Asks the masters how they are.

use client::{Client, Deadline, Payload};
use futures::future::join_all;
use objects::cluster::ClusterStatus;
use std::time::Duration;

/// A master that lives answers within this.
const DEADLINE: Deadline = Deadline(Duration::from_millis(800));

/// A client for each master.
#[derive(Clone)]
pub struct Probe {
    clients: Vec<(String, Client)>,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The master's name.
    pub name: String,
    /// Its term.
    pub term: u64,
}

impl Probe {
    /// Of clients that know one master each.
    pub fn new(clients: Vec<(String, Client)>) -> Self {
        Probe { clients }
    }

    /// The clients, by master.
    pub fn clients(&self) -> &[(String, Client)] {
        &self.clients
    }

    /// The masters' view: of all answers the one with the highest term that knows a leader, else any.
    pub async fn status(&self) -> Option<ClusterStatus> {
        let ask = |client: &Client| {
            let client = client.clone();
            async move {
                let path = "/cluster/v1/status";
                let answer =
                    client.call::<ClusterStatus>(http::Method::GET, path, Payload::Empty, DEADLINE);
                answer.await.ok()
            }
        };
        let answers = join_all(self.clients.iter().map(|(_, client)| ask(client))).await;
        answers
            .into_iter()
            .flatten()
            .max_by_key(|status| (status.leader.is_some(), status.term))
    }

    /// The leader, when one is known.
    pub async fn leader(&self) -> Option<Leader> {
        let status = self.status().await?;
        let id = status.leader?;
        let leader = status.members.iter().find(|known| known.member.id == id)?;
        Some(Leader {
            name: leader.member.name.clone(),
            term: status.term,
        })
    }
}
