//! From a question to what shall be done about it. Pure: neither sockets nor upstream are known here.

use std::net::Ipv4Addr;
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Entry, Lookup, Zone};

/// How long answers may be remembered, in seconds: CoreDNS' value for the cluster's names.
const TTL_S: u32 = 5;

/// What we tell clients to send at most by UDP, and send at most ourselves; fits every path without fragments.
const UDP_PAYLOAD_MAX: u16 = 1232;

/// What a client that says nothing takes by UDP.
const UDP_PAYLOAD_MIN: u16 = 512;

/// What shall be done about a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send this.
    Reply(Message),
    /// Ask upstream, and send what it says.
    Forward(Message),
    /// Ask upstream for `target`, add its answers to `reply`, and send that.
    Chase {
        /// The reply so far: the alias.
        reply: Message,
        /// The name that the alias leads to.
        target: Name,
        /// What is asked for.
        kind: RecordType,
    },
    /// Not a request: say nothing.
    Ignore,
}

/// Decides about the request in `bytes`. `rotation` turns the order of addresses, so that clients spread.
pub fn answer(zone: &Zone, bytes: &[u8], rotation: usize) -> Action {
    let Ok(request) = Message::from_vec(bytes) else {
        return unreadable(bytes);
    };
    if request.metadata.message_type != MessageType::Query {
        return Action::Ignore;
    }
    let [query] = request.queries.as_slice() else {
        return Action::Reply(refusal(&request, ResponseCode::FormErr));
    };
    if request.metadata.op_code != OpCode::Query {
        return Action::Reply(refusal(&request, ResponseCode::NotImp));
    }
    if query.query_class() != DNSClass::IN {
        return Action::Reply(refusal(&request, ResponseCode::Refused));
    }
    let name = query.name().to_lowercase().to_ascii();
    match zone.lookup(name.trim_end_matches('.')) {
        Lookup::Foreign => Action::Forward(request),
        Lookup::Missing => {
            let mut reply = reply_to(&request);
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(soa(zone));
            Action::Reply(reply)
        }
        Lookup::Reverse(names) => Action::Reply(reverse(zone, &request, query, names)),
        Lookup::Found(entry) => found(zone, &request, query, &entry, rotation),
    }
}

/// A reply that carries nothing but a code.
pub fn refusal(request: &Message, code: ResponseCode) -> Message {
    let mut reply = reply_to(request);
    reply.metadata.authoritative = false;
    reply.metadata.response_code = code;
    reply
}

/// The bytes of a reply by UDP: without its records and marked as truncated, if the client could not take it.
pub fn encode_udp(reply: &Message, payload_max: u16) -> Vec<u8> {
    let bytes = encode(reply);
    if bytes.len() <= usize::from(payload_max) {
        bytes
    } else {
        encode(&reply.truncate())
    }
}

/// The bytes of a reply.
pub fn encode(reply: &Message) -> Vec<u8> {
    reply.to_vec().unwrap_or_else(|_| {
        let mut failure = Message::response(reply.metadata.id, OpCode::Query);
        failure.metadata.response_code = ResponseCode::ServFail;
        failure.to_vec().expect("a header alone can be written")
    })
}

/// How much the sender of `request` takes by UDP.
pub fn payload_max(request: &Message) -> u16 {
    request.edns.as_ref().map_or(UDP_PAYLOAD_MIN, |edns| {
        edns.max_payload().clamp(UDP_PAYLOAD_MIN, UDP_PAYLOAD_MAX)
    })
}

fn unreadable(bytes: &[u8]) -> Action {
    let [high, low, flags, ..] = bytes else {
        return Action::Ignore;
    };
    if flags & 0x80 != 0 {
        return Action::Ignore; // A reply; answering it could go on for ever.
    }
    let mut reply = Message::response(u16::from_be_bytes([*high, *low]), OpCode::Query);
    reply.metadata.response_code = ResponseCode::FormErr;
    Action::Reply(reply)
}

fn reply_to(request: &Message) -> Message {
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&request.metadata);
    reply.metadata.authoritative = true;
    reply.metadata.recursion_available = true;
    reply.queries.clone_from(&request.queries);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD_MAX);
        reply.set_edns(edns);
    }
    reply
}

fn found(zone: &Zone, request: &Message, query: &Query, entry: &Entry, rotation: usize) -> Action {
    let mut reply = reply_to(request);
    let kind = query.query_type();
    let any = kind == RecordType::ANY;
    if let Some(alias) = entry.alias.as_deref().and_then(absolute) {
        reply.add_answer(record(query.name(), RData::CNAME(CNAME(alias.clone()))));
        return if kind == RecordType::CNAME || any {
            Action::Reply(reply)
        } else {
            chase(zone, reply, alias, kind, rotation)
        };
    }
    if kind == RecordType::A || any {
        add_addresses(&mut reply, query.name(), &entry.addresses, rotation);
    }
    if kind == RecordType::SRV || any {
        add_services(zone, &mut reply, query.name(), entry);
    }
    if let (RecordType::TXT | RecordType::ANY, Some(text)) = (kind, &entry.text) {
        reply.add_answer(record(
            query.name(),
            RData::TXT(TXT::new(vec![text.clone()])),
        ));
    }
    let is_apex = query.name().num_labels() == labels(zone.domain());
    if is_apex && (kind == RecordType::SOA || any) {
        reply.add_answer(soa(zone));
    }
    if is_apex && (kind == RecordType::NS || any) {
        reply.add_answer(record(
            query.name(),
            RData::NS(NS(in_zone(zone, "ns.dns."))),
        ));
    }
    if reply.answers.is_empty() {
        reply.add_authority(soa(zone));
    }
    Action::Reply(reply)
}

/// Follows an alias one step; a service inside the cluster is known here, any other name upstream.
fn chase(
    zone: &Zone,
    mut reply: Message,
    target: Name,
    kind: RecordType,
    rotation: usize,
) -> Action {
    match zone.lookup(target.to_lowercase().to_ascii().trim_end_matches('.')) {
        Lookup::Foreign => Action::Chase {
            reply,
            target,
            kind,
        },
        Lookup::Found(entry) if kind == RecordType::A => {
            add_addresses(&mut reply, &target, &entry.addresses, rotation);
            Action::Reply(reply)
        }
        _ => Action::Reply(reply),
    }
}

fn add_addresses(reply: &mut Message, name: &Name, addresses: &[Ipv4Addr], rotation: usize) {
    let count = addresses.len();
    for n in 0..count {
        reply.add_answer(record(
            name,
            RData::A(A(addresses[(n + rotation % count) % count])),
        ));
    }
}

fn add_services(zone: &Zone, reply: &mut Message, name: &Name, entry: &Entry) {
    let weight = u16::try_from(100 / entry.services.len().max(1))
        .unwrap_or(1)
        .max(1);
    for (port, target) in &entry.services {
        let Some(target_name) = absolute(target) else {
            continue;
        };
        reply.add_answer(record(
            name,
            RData::SRV(SRV::new(0, weight, *port, target_name.clone())),
        ));
        if let Lookup::Found(entry) = zone.lookup(target) {
            for address in &entry.addresses {
                let additional = record(&target_name, RData::A(A(*address)));
                if !reply.additionals.contains(&additional) {
                    reply.add_additional(additional);
                }
            }
        }
    }
}

fn reverse(zone: &Zone, request: &Message, query: &Query, names: &[String]) -> Message {
    let mut reply = reply_to(request);
    if matches!(query.query_type(), RecordType::PTR | RecordType::ANY) {
        for name in names.iter().filter_map(|name| absolute(name)) {
            reply.add_answer(record(query.name(), RData::PTR(PTR(name))));
        }
    }
    if reply.answers.is_empty() {
        reply.add_authority(soa(zone));
    }
    reply
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_S, data)
}

/// The start of authority that bounds how long "no" may be remembered.
fn soa(zone: &Zone) -> Record {
    let data = SOA::new(
        in_zone(zone, "ns.dns."),
        in_zone(zone, "hostmaster."),
        1,
        7200,
        1800,
        86400,
        TTL_S,
    );
    record(&in_zone(zone, ""), RData::SOA(data))
}

fn in_zone(zone: &Zone, prefix: &str) -> Name {
    absolute(&format!("{prefix}{}", zone.domain())).unwrap_or_else(Name::root)
}

fn absolute(name: &str) -> Option<Name> {
    Name::from_str(&format!("{name}."))
        .or_else(|_| Name::from_ascii(format!("{name}.")))
        .ok()
}

fn labels(domain: &str) -> u8 {
    u8::try_from(domain.split('.').count()).unwrap_or(u8::MAX)
}
