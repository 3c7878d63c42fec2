//! The checks, a file a subject.

mod admission;
mod apps;
mod auth;
mod chunking;
mod crd;
mod crd_openapi;
mod discovery;
mod garbage;
mod namespaces;
mod network;
mod node;
mod quota;
mod scheduling;
mod storage;
mod validation;
mod watching;
mod written;

use crate::run::Check;

/// A check by its name and the function that asks.
macro_rules! check {
    ($name:literal, $ask:expr) => {
        $crate::run::Check {
            name: $name,
            ask: |context| Box::pin($ask(context)),
        }
    };
}

/// A check that plays a resource's story.
macro_rules! story {
    ($name:literal, $story:expr) => {
        $crate::run::Check {
            name: $name,
            ask: |context| {
                Box::pin(async move {
                    let story: $crate::lifecycle::Story = $story;
                    story.play(context).await
                })
            },
        }
    };
}
pub(crate) use {check, story};

/// Every check, by area.
pub fn all() -> Vec<Check> {
    [
        watching::CHECKS,
        chunking::CHECKS,
        discovery::CHECKS,
        crd::CHECKS,
        crd_openapi::CHECKS,
        validation::CHECKS,
        written::CHECKS,
        garbage::CHECKS,
        namespaces::CHECKS,
        quota::CHECKS,
        admission::CHECKS,
        apps::CHECKS,
        auth::CHECKS,
        network::CHECKS,
        node::CHECKS,
        scheduling::CHECKS,
        storage::CHECKS,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_have_areas() {
        let mut names: Vec<&str> = all().iter().map(|check| check.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(all().iter().all(|check| check.area() != "other"));
        assert!(count >= 120, "{count} checks");
    }
}
