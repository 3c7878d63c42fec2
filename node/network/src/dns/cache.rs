//! What upstream said, for as long as it may be remembered: answers, and that there are none. Pure.
//!
//! Rules: an answer lives as long as its shortest-lived record (RFC 1035), a denial as long as the zone's SOA record says
//! (RFC 2308), both at most [`LIFE_MAX`]; failures and truncated replies are not kept. At most [`ENTRIES_MAX`] are kept:
//! at one more those go that have ended, and if there are none, all of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};

/// How long anything is remembered at most: what CoreDNS is told in most clusters.
pub const LIFE_MAX: Duration = Duration::from_secs(30);
/// How many replies are remembered.
pub const ENTRIES_MAX: usize = 4096;

/// What a reply answers. Questions that upstream may answer differently have different keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    name: String,
    kind: RecordType,
    checking_disabled: bool,
    /// With EDNS, and whether that asks for signatures.
    edns: Option<bool>,
}

impl Key {
    /// The key of a question; none for what is not one question.
    pub fn of(question: &Message) -> Option<Self> {
        let [query] = question.queries.as_slice() else {
            return None;
        };
        Some(Self {
            name: query.name().to_lowercase().to_ascii(),
            kind: query.query_type(),
            checking_disabled: question.metadata.checking_disabled,
            edns: question.edns.as_ref().map(|edns| edns.flags().dnssec_ok),
        })
    }
}

/// The replies.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Key, Kept>,
}

#[derive(Debug)]
struct Kept {
    reply: Message,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// The reply to `question`, if it is known and still holds: as if it had been asked for, with what is left of each
    /// record's life.
    pub fn get(&self, question: &Message, now: Instant) -> Option<Message> {
        let kept = self.entries.get(&Key::of(question)?)?;
        if now >= kept.until {
            return None;
        }
        let age = now.saturating_duration_since(kept.since).as_secs();
        let age_s = u32::try_from(age).unwrap_or(u32::MAX);
        let mut reply = kept.reply.clone();
        reply.metadata.id = question.metadata.id;
        reply.metadata.recursion_desired = question.metadata.recursion_desired;
        reply.queries.clone_from(&question.queries);
        let sections = [
            &mut reply.answers,
            &mut reply.authorities,
            &mut reply.additionals,
        ];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age_s);
        }
        Some(reply)
    }

    /// Remembers what upstream said, if it may be.
    pub fn put(&mut self, question: &Message, reply: Message, now: Instant) {
        let (Some(key), Some(life)) = (Key::of(question), life(&reply)) else {
            return;
        };
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.retain(|_, kept| now < kept.until);
            if self.entries.len() >= ENTRIES_MAX {
                self.entries.clear();
            }
        }
        let kept = Kept {
            reply,
            since: now,
            until: now + life,
        };
        self.entries.insert(key, kept);
    }
}

/// How long a reply holds; none if it must not be remembered.
fn life(reply: &Message) -> Option<Duration> {
    if reply.metadata.truncation {
        return None;
    }
    let seconds = match reply.metadata.response_code {
        ResponseCode::NoError if !reply.answers.is_empty() => {
            let all = [&reply.answers, &reply.authorities, &reply.additionals];
            all.into_iter().flatten().map(|record| record.ttl).min()
        }
        ResponseCode::NoError | ResponseCode::NXDomain => {
            reply.authorities.iter().find_map(denial_life_s)
        }
        _ => None,
    }?;
    let life = Duration::from_secs(u64::from(seconds)).min(LIFE_MAX);
    (!life.is_zero()).then_some(life)
}

fn denial_life_s(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, OpCode, Query};
    use hickory_proto::rr::Name;
    use hickory_proto::rr::rdata::{A, SOA};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn question(id: u16, text: &str, kind: RecordType) -> Message {
        let mut question = Message::new(id, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(name(text), kind));
        question
    }

    fn reply(code: ResponseCode, answers_ttl: &[u32], soa: Option<(u32, u32)>) -> Message {
        let mut reply = Message::response(7, OpCode::Query);
        reply.metadata.response_code = code;
        let owner = name("example.org.");
        for ttl in answers_ttl {
            let data = RData::A(A::new(192, 0, 2, 1));
            reply.add_answer(Record::from_rdata(owner.clone(), *ttl, data));
        }
        if let Some((ttl, minimum)) = soa {
            let data = RData::SOA(SOA::new(owner.clone(), owner.clone(), 1, 2, 3, 4, minimum));
            reply.add_authority(Record::from_rdata(owner, ttl, data));
        }
        reply
    }

    #[test]
    fn an_answer_is_given_again_with_what_is_left_of_its_life() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let asked = question(1, "Example.org.", RecordType::A);
        cache.put(&asked, reply(ResponseCode::NoError, &[60, 20], None), start);

        let again = question(2, "example.ORG.", RecordType::A);
        let known = cache.get(&again, after(5)).expect("is remembered");
        assert_eq!((known.metadata.id, &known.queries), (2, &again.queries));
        let ttls: Vec<u32> = known.answers.iter().map(|record| record.ttl).collect();
        assert_eq!(ttls, [55, 15]);
        assert!(cache.get(&again, after(20)).is_none(), "it has ended");

        let other = question(3, "example.org.", RecordType::AAAA);
        assert!(cache.get(&other, after(5)).is_none());
    }

    #[test]
    fn denials_live_as_their_zone_says_and_failures_not_at_all() {
        let life_s = |reply| life(&reply).map(|life| life.as_secs());
        let soa = Some((300, 10));
        assert_eq!(life_s(reply(ResponseCode::NXDomain, &[], soa)), Some(10));
        assert_eq!(life_s(reply(ResponseCode::NoError, &[], soa)), Some(10));
        assert_eq!(life_s(reply(ResponseCode::NXDomain, &[], None)), None);
        assert_eq!(life_s(reply(ResponseCode::ServFail, &[], soa)), None);
        assert_eq!(life_s(reply(ResponseCode::NoError, &[0], None)), None);
        assert_eq!(life_s(reply(ResponseCode::NoError, &[900], None)), Some(30));
        let mut truncated = reply(ResponseCode::NoError, &[60], None);
        truncated.metadata.truncation = true;
        assert_eq!(life_s(truncated), None);
    }

    #[test]
    fn it_does_not_grow_beyond_its_bound() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for n in 0..=ENTRIES_MAX {
            let asked = question(1, &format!("n{n}.example.org."), RecordType::A);
            cache.put(&asked, reply(ResponseCode::NoError, &[60], None), now);
        }
        assert!(cache.entries.len() <= ENTRIES_MAX);
        let last = question(1, &format!("n{ENTRIES_MAX}.example.org."), RecordType::A);
        assert!(cache.get(&last, now).is_some());
    }
}
