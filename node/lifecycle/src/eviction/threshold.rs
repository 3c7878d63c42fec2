//! Thresholds as the kubelet's flags write them: `memory.available<100Mi,nodefs.available<10%`.

use std::time::Duration;

use objects::Quantity;

use super::Pressure;

/// What is measured. In the order in which pods are evicted for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Bytes of memory: capacity without the working set.
    MemoryAvailable,
    /// Bytes of the file system of volumes and logs.
    NodefsAvailable,
    /// Files that can still be made there.
    NodefsInodesFree,
    /// Bytes of the file system of images and containers.
    ImagefsAvailable,
    /// Files that can still be made there.
    ImagefsInodesFree,
    /// Processes that can still be made.
    PidAvailable,
}

impl Signal {
    const ALL: [(Signal, &'static str); 6] = [
        (Signal::MemoryAvailable, "memory.available"),
        (Signal::NodefsAvailable, "nodefs.available"),
        (Signal::NodefsInodesFree, "nodefs.inodesFree"),
        (Signal::ImagefsAvailable, "imagefs.available"),
        (Signal::ImagefsInodesFree, "imagefs.inodesFree"),
        (Signal::PidAvailable, "pid.available"),
    ];

    fn parse(text: &str) -> Option<Self> {
        let known = Signal::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(signal, _)| *signal)
    }

    /// What the node is short of when there is too little.
    pub fn pressure(self) -> Pressure {
        match self {
            Signal::MemoryAvailable => Pressure::Memory,
            Signal::PidAvailable => Pressure::Pids,
            _ => Pressure::Disk,
        }
    }

    /// As messages name it.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodefsAvailable | Signal::ImagefsAvailable => "ephemeral-storage",
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => "inodes",
            Signal::PidAvailable => "pids",
        }
    }

    /// An amount of it, as messages write it.
    pub(super) fn told(self, amount: u64) -> String {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        match self {
            Signal::MemoryAvailable | Signal::NodefsAvailable | Signal::ImagefsAvailable => {
                Quantity::from_bytes(amount / 1024 * 1024).to_string()
            }
            _ => Quantity::from_units(amount).to_string(),
        }
    }
}

/// How much must be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So much.
    Units(u64),
    /// So many thousandths of all.
    PerMille(u64),
}

impl Amount {
    /// In units.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Amount::Units(units) => units,
            Amount::PerMille(share) => {
                u64::try_from(u128::from(capacity) * u128::from(share) / 1000).unwrap_or(u64::MAX)
            }
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent = Quantity::parse(percent).ok()?;
            let per_mille = u64::try_from(percent.milli()).ok()? / 100;
            return (per_mille <= 1000).then_some(Amount::PerMille(per_mille));
        }
        let units = Quantity::parse(text).ok()?.units();
        u64::try_from(units).ok().map(Amount::Units)
    }
}

/// A signal with the least that must be left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// What is measured.
    pub signal: Signal,
    /// The least.
    pub value: Amount,
    /// How long it must be met before pods go: a soft threshold. None for a hard one, which waits for nothing.
    pub grace: Option<Duration>,
}

/// A flag is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// A part of it is unreadable.
    #[error(
        "{0:?} is no eviction threshold: write SIGNAL<AMOUNT with one of memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree, pid.available and an amount like 100Mi or 10%"
    )]
    Malformed(String),
    /// A soft threshold without its grace, or a grace without its threshold.
    #[error("{0} has a soft eviction threshold or a grace period, and not the other: give both")]
    Lonely(String),
}

impl Threshold {
    /// Reads hard thresholds; an empty text has none.
    pub fn hard(text: &str) -> Result<Vec<Threshold>, ThresholdError> {
        parts(text)
            .map(|part| Threshold::parse(part, None))
            .collect()
    }

    /// Reads soft thresholds and their graces, which are written `memory.available=90s`.
    pub fn soft(
        text: &str,
        graces: &[(String, Duration)],
    ) -> Result<Vec<Threshold>, ThresholdError> {
        let grace_of = |part: &str| {
            let signal = part.split('<').next().unwrap_or_default();
            let grace = graces.iter().find(|(name, _)| name == signal);
            grace
                .map(|(_, grace)| *grace)
                .ok_or_else(|| ThresholdError::Lonely(signal.to_owned()))
        };
        let thresholds: Vec<Threshold> = parts(text)
            .map(|part| Threshold::parse(part, Some(grace_of(part)?)))
            .collect::<Result<_, _>>()?;
        let is_used = |name: &String| {
            let signal = Signal::parse(name);
            thresholds.iter().any(|it| Some(it.signal) == signal)
        };
        match graces.iter().find(|(name, _)| !is_used(name)) {
            Some((name, _)) => Err(ThresholdError::Lonely(name.clone())),
            None => Ok(thresholds),
        }
    }

    fn parse(part: &str, grace: Option<Duration>) -> Result<Threshold, ThresholdError> {
        let malformed = || ThresholdError::Malformed(part.to_owned());
        let (signal, amount) = part.split_once('<').ok_or_else(malformed)?;
        Ok(Threshold {
            signal: Signal::parse(signal).ok_or_else(malformed)?,
            value: Amount::parse(amount).ok_or_else(malformed)?,
            grace,
        })
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_the_kubelet_reads_them() {
        let hard =
            Threshold::hard("memory.available<100Mi,nodefs.available<12.5%").expect("well-formed");
        let shown: Vec<_> = hard.iter().map(|it| (it.signal, it.value)).collect();
        assert_eq!(
            shown,
            [
                (Signal::MemoryAvailable, Amount::Units(100 << 20)),
                (Signal::NodefsAvailable, Amount::PerMille(125))
            ]
        );
        assert_eq!(hard[1].value.of(8000), 1000);
        assert!(Threshold::hard("").expect("none").is_empty());
        for wrong in [
            "memory.available>1Gi",
            "memory<1Gi",
            "memory.available<much",
            "nodefs.available<200%",
        ] {
            assert!(Threshold::hard(wrong).is_err(), "{wrong}");
        }
        let grace = [("memory.available".to_owned(), Duration::from_secs(90))];
        let soft = Threshold::soft("memory.available<1Gi", &grace).expect("well-formed");
        assert_eq!(soft[0].grace, Some(Duration::from_secs(90)));
        assert!(Threshold::soft("memory.available<1Gi", &[]).is_err());
        assert!(Threshold::soft("", &grace).is_err());
    }
}
