//! What an operator should know and do next, from what the masters tell of themselves.

use objects::cluster::{Alarm, ClusterStatus, MemberStatus};

/// A member so many entries behind the leader is told to be behind.
const BEHIND_ENTRIES: u64 = 1_000;

/// One line each; the quorum first.
pub fn lines(status: &ClusterStatus) -> Vec<String> {
    let mut lines = vec![quorum(status)];
    let furthest = status
        .members
        .iter()
        .filter_map(|member| member.applied_index);
    let furthest = furthest.max().unwrap_or(0);
    for member in &status.members {
        lines.extend(of_member(member, furthest));
    }
    lines
}

fn quorum(status: &ClusterStatus) -> String {
    let voters = status.members.iter().filter(|member| member.member.voter);
    let (voters, healthy) = voters.fold((0, 0), |(voters, healthy), member| {
        (voters + 1, healthy + usize::from(member.healthy))
    });
    let needed = voters / 2 + 1;
    let told = format!("{healthy} of {voters} voting masters answer, {needed} are needed");
    match healthy.checked_sub(needed) {
        None => format!(
            "{told}: writes are refused until one more is started; if the others are gone for good, stop one that is left and \
             `ctl recover --from-survivor` on it"
        ),
        Some(0) if voters == 1 => {
            format!(
                "{told}: `control run --join` on two more machines makes it survive the loss of one"
            )
        }
        Some(0) => format!("{told}: no more may be lost"),
        Some(1) => format!("{told}: one may be lost"),
        Some(spare) => format!("{told}: {spare} may be lost"),
    }
}

fn of_member(status: &MemberStatus, furthest: u64) -> Vec<String> {
    let name = &status.member.name;
    if !status.healthy {
        return vec![format!(
            "{name} does not answer: start it; if its machine is gone for good, `ctl member replace {name} NEW`"
        )];
    }
    let mut lines: Vec<String> = status
        .alarms
        .iter()
        .map(|alarm| of_alarm(name, *alarm))
        .collect();
    let behind = furthest.saturating_sub(status.applied_index.unwrap_or(furthest));
    if behind >= BEHIND_ENTRIES {
        lines.push(format!(
            "{name} is {behind} entries behind and catches up by itself"
        ));
    }
    if !status.member.voter {
        lines.push(format!(
            "{name} learns, and votes by itself when it has caught up"
        ));
    }
    lines
}

fn of_alarm(name: &str, alarm: Alarm) -> String {
    match alarm {
        Alarm::NoSpace => format!(
            "the disk of {name} is full: make room or enlarge it; deletes and compaction go on, and the alarm ends by itself"
        ),
        Alarm::Corrupt => format!(
            "the data of {name} are damaged: it is fed again by itself where the others are a quorum; look at its disk"
        ),
        Alarm::SlowDisk => {
            format!(
                "the disk of {name} is slow: what else writes to it? Another leads meanwhile, where one is faster"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use objects::cluster::Member;

    /// `m1+` answers, `m1-` does not, `m1?` answers and learns; an alarm's letter may follow, or how far it has applied.
    fn check(members: &str, expected: &[&str]) {
        let members = members.split(' ').enumerate().map(|(number, text)| {
            let (name, rest) = text.split_at(2);
            let (state, rest) = rest.split_at(1);
            let alarms = match rest {
                "F" => vec![Alarm::NoSpace],
                "C" => vec![Alarm::Corrupt],
                "S" => vec![Alarm::SlowDisk],
                _ => vec![],
            };
            MemberStatus {
                member: Member {
                    id: number as u64,
                    name: name.to_owned(),
                    peer_address: String::new(),
                    api_url: String::new(),
                    voter: state != "?",
                    replaces: None,
                    replaced_by: None,
                },
                leader: false,
                healthy: state != "-",
                last_log_index: None,
                applied_index: rest.parse().ok(),
                revision: None,
                db_size_bytes: None,
                problem: None,
                alarms,
                figures: None,
            }
        });
        let status = ClusterStatus {
            cluster_id: "c".to_owned(),
            term: 1,
            leader: None,
            members: members.collect(),
        };
        let told = lines(&status);
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains(expected), "{told:?} lacks {expected:?}");
        }
    }

    #[test]
    fn it_says_what_may_still_be_lost_and_what_to_do() {
        check(
            "m1+ m2+ m3+",
            &["3 of 3 voting masters answer, 2 are needed: one may be lost"],
        );
        check("m1+ m2+ m3+ m4+ m5+", &["2 may be lost"]);
        check("m1+", &["on two more machines"]);
        check(
            "m1+ m2- m3+",
            &["no more may be lost", "`ctl member replace m2 NEW`"],
        );
        check(
            "m1+ m2- m3-",
            &["ctl recover --from-survivor", "m2 does not", "m3 does not"],
        );
        check(
            "m1+F m2+C m3+S",
            &["one may", "m1 is full", "m2 are damaged", "m3 is slow"],
        );
        check(
            "m1+5000 m2+4999 m3+10 m4?5000",
            &["one may", "m3 is 4990 entries", "m4 learns"],
        );
    }
}
