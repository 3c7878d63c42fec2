//! The stories in `testdata/`: each reads as what happens in a cluster, with every plan in full.

mod sim;

use sim::script::check;

macro_rules! stories {
    ($($controller:ident: $($story:ident),+;)+) => {$(
        mod $controller {
            $(
                #[test]
                fn $story() {
                    super::check(concat!("testdata/", stringify!($controller), "/", stringify!($story), ".txt"));
                }
            )+
        }
    )+};
}

stories! {
    deployment: surge, unavailable, rollback, pause, recreate, resize, history, deadline, adoption;
    replicaset: scale_up, scale_down, failed, release, refused;
    endpointslice: life, headless, hints;
    endpoints: life;
    quota: used;
    protection: claims;
    namespace: terminating;
    customresource: life;
    garbage: background, namesake, foreground, orphan, circle;
    podgc: lost;
    nodelifecycle: silent, new_leader, all_silent, taints;
    nodeipam: assign;
    serviceaccount: default_account;
    replicationcontroller: life;
    statefulset: ordered, parallel, claims;
    daemonset: nodes, update, surge;
    job: completes, fails, indexed, suspended, late, queue;
    cronjob: due, policies;
    ttl: forgotten;
    disruption: budget;
    horizontal: up_and_down, rules, unknown, missing, bounds;
}
