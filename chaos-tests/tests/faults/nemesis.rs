//! Every kind of fault, each once, on three members of Debian's etcd: all happen but those of the clock, which cannot be had of a Go
//! program and say so, and the members are whole after each.

use chaos::history::{Event, FaultPhase, Recorder};
use chaos::nemesis::{Group, Kind, Nemesis, schedule};
use chaos::testbed::{Choice, Endpoint, Options, Testbed};
use rpc::etcd::etcdserverpb::PutRequest;
use rpc::etcd::etcdserverpb::kv_client::KvClient;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// What became of each kind, as the history tells it.
async fn phases(kinds: &[Kind]) -> BTreeMap<String, Vec<FaultPhase>> {
    chaos::kernel::own_mounts().expect("this needs root");
    let choice = Choice::parse("etcd").expect("a target");
    let mut bed = Testbed::start(Options {
        with_injector: kinds.iter().any(|kind| kind.needs_injector()),
        with_clock: true,
        seed: 3,
        ..Options::of(choice).expect("options")
    })
    .await
    .expect("three members of etcd vote; is Debian's etcd-server installed?");
    let recorder = Arc::new(Recorder::new(None).expect("a recorder"));
    let began = Instant::now();
    let mut nemesis = Nemesis {
        bed: &mut bed,
        recorder: recorder.clone(),
        progress: &|kind| {
            if !kind.is_empty() {
                println!("{:6.1} s {kind}", began.elapsed().as_secs_f64());
            }
        },
    };
    let load = tokio::spawn(load(nemesis.bed.endpoints()));
    let planned = schedule(3, kinds).take(kinds.len()).map(|mut planned| {
        planned.lasts = planned.lasts.min(Duration::from_millis(1500));
        planned.rest = Duration::ZERO;
        planned
    });
    let until = began + Duration::from_secs(3600);
    nemesis
        .run(planned, until)
        .await
        .expect("the members are whole after each fault");
    load.abort();
    drop(bed);
    let mut phases: BTreeMap<String, Vec<FaultPhase>> = BTreeMap::new();
    for record in recorder.finish().expect("a history") {
        if let Event::Fault { kind, phase, .. } = record.event {
            println!("{kind}: {phase:?}");
            phases.entry(kind).or_default().push(phase);
        }
    }
    phases
}

/// Writes without end, so that disks have something to do; what comes of it is not asked.
async fn load(endpoints: Vec<Endpoint>) {
    let channels: Vec<Channel> = endpoints
        .into_iter()
        .map(|endpoint| {
            let channel = Channel::from_shared(endpoint.url).expect("a URL");
            channel.timeout(Duration::from_millis(500)).connect_lazy()
        })
        .collect();
    for number in 0_u64.. {
        let channel = channels[number as usize % channels.len()].clone();
        let put = PutRequest {
            key: format!("key-{}", number % 10).into(),
            value: vec![7; 100].into(),
            ..PutRequest::default()
        };
        let _ = KvClient::new(channel).put(put).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn every_fault_of(group: Group) {
    let kinds: Vec<Kind> = Kind::ALL
        .iter()
        .copied()
        // etcd takes some damaged entries for a torn tail, and then its members disagree for good.
        .filter(|kind| kind.group() == group && !kind.is_last() && *kind != Kind::FlippedEntry)
        .collect();
    let phases = phases(&kinds).await;
    for kind in kinds {
        let of_kind = &phases[kind.name()];
        match group {
            Group::Clock => {
                let skipped = matches!(
                    &of_kind[..],
                    [FaultPhase::Skipped { reason }] if reason.contains("Go program")
                );
                assert!(skipped, "{}: {of_kind:?}", kind.name());
            }
            _ => {
                let happened = matches!(
                    &of_kind[..],
                    [FaultPhase::Installed, FaultPhase::Healed { effect }] if !effect.is_empty()
                );
                assert!(happened, "{}: {of_kind:?}", kind.name());
            }
        }
    }
}

#[tokio::test]
async fn processes_end_and_come_back() {
    every_fault_of(Group::Process).await;
}

#[tokio::test]
async fn the_network_breaks_and_heals() {
    every_fault_of(Group::Network).await;
}

#[tokio::test]
async fn disks_fail_and_are_whole_again() {
    every_fault_of(Group::Disk).await;
}

#[tokio::test]
async fn clocks_that_cannot_be_faked_are_said_so() {
    every_fault_of(Group::Clock).await;
}

#[tokio::test]
async fn administrators_do_their_work() {
    every_fault_of(Group::Admin).await;
}
