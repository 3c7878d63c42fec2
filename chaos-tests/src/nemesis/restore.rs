//! The end of a run: a snapshot is saved while writes run, every member is lost with its disk, and a new cluster is made of the
//! snapshot. What must be true of it is asked here and judged by the checker `restore`.

use super::{Effect, Kind};
use crate::history::{Event, FaultPhase, Recorder, Reply, Request, Told};
use crate::testbed::Testbed;
use crate::workload::Keepers;
use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Writes before the snapshot, and after it.
const WRITES_BEFORE: Duration = Duration::from_secs(3);
const WRITES_AFTER: Duration = Duration::from_millis(1500);

/// Loses everything and restores it. An error is a fault of the harness, or a cluster that cannot be restored.
pub async fn restore(
    bed: &mut Testbed,
    recorder: &Arc<Recorder>,
    number: u32,
    prefix: String,
    seed: u64,
) -> Result<()> {
    let record = |targets: Vec<String>, phase| {
        recorder.add(Event::Fault {
            number,
            kind: Kind::Restore.name().to_owned(),
            targets,
            phase,
        });
    };
    if let Some(reason) = bed.target().restore_problem() {
        record(vec![], FaultPhase::Skipped { reason });
        return Ok(());
    }
    bed.wait_until_whole().await?;
    let mut keepers = Keepers::start(bed.endpoints(), prefix, seed, recorder.clone());
    let names = bed.names();
    let is_lost = || record(names.clone(), FaultPhase::Installed);
    let done = lose_and_restore(bed, &mut keepers, &is_lost).await;
    keepers.stop().await;
    let (phase, done) = match done {
        Ok(effect) => (effect.phase(), Ok(())),
        Err(error) => {
            let reason = format!("{error:#}");
            (FaultPhase::Indeterminate { reason }, Err(error))
        }
    };
    record(names, phase);
    done.context("everything was lost and was to be restored")
}

async fn lose_and_restore(
    bed: &mut Testbed,
    keepers: &mut Keepers,
    is_lost: &dyn Fn(),
) -> Result<Effect> {
    tokio::time::sleep(WRITES_BEFORE).await;
    let archive = bed.folder().join("saved");
    let saving = async {
        let saved = bed.target().save(&archive).await?;
        let (bytes, whole) = (saved.bytes, true);
        anyhow::Ok(Reply::at(saved.revision, Told::Snapshot { bytes, whole }))
    };
    let saved = keepers.record("ctl", Request::Save, saving).await?;
    let revision = saved.revision.context("a saved state has a revision")?;
    let digest = Request::Digest { at: Some(revision) };
    let digest = keepers.insist(|| digest.clone()).await;
    let digest = digest.context("no member told the digest of what was saved")?;
    tokio::time::sleep(WRITES_AFTER).await;

    is_lost();
    bed.lose_everything().await?;
    keepers.stop().await;
    let newest = keepers.newest();
    let began = Instant::now();
    bed.restore_from(&archive).await?;
    let took = began.elapsed().as_secs_f64();

    let members = bed.names().len();
    for request in [
        Request::Follow { from: revision },
        Request::Follow { from: newest + 1 },
        Request::Digest { at: None },
    ] {
        let answered = keepers.ask_all(&request).await;
        ensure!(
            answered == members,
            "{answered} of {members} members answered: {request}"
        );
    }
    let kept = keepers.insist(|| Request::Kept).await;
    kept.context("no member told what was kept")?;
    let mut puts: Vec<Request> = (0..100).map(|_| keepers.put()).collect();
    let put = keepers.insist(|| puts.pop().unwrap_or(Request::Kept)).await;
    put.context("the restored cluster took no write")?;
    Ok(Effect::Seen(format!(
        "{} of revision {revision}; all members served it {took:.1} s after they were lost at revision {newest}",
        digest.told_shortly()
    )))
}
