//! Makes the kernel forget UDP flows to endpoints that are gone.
//!
//! A UDP flow has no end, so a client that keeps its port would be sent to the removed endpoint as long as it asks. TCP
//! flows are left alone: they end by themselves. Never touches a flow that was not to one of our services.
//! Format: the kernel's `nfnetlink_conntrack.h`.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

/// How long the kernel may take for a part of its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

const NETLINK_NETFILTER: isize = 12;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 0x2;
const NLMSG_DONE: u16 = 0x3;
const CT_NEW: u16 = 0x100;
const CT_GET: u16 = 0x101;
const CT_DELETE: u16 = 0x102;
const AF_INET: u8 = 2;
const PROTOCOL_UDP: u8 = 17;
const NESTED: u16 = 0x8000;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const ENOENT: i32 = 2;

/// The endpoints that clients of an address may still be bound to, though they serve it no more. The address 0.0.0.0
/// stands for all of the node's.
pub type Lost = BTreeMap<SocketAddrV4, Vec<SocketAddrV4>>;

/// What `old` had and `new` has not.
pub fn lost(old: &Lost, new: &Lost) -> Lost {
    let mut lost = Lost::new();
    for (service, endpoints) in old {
        let present = new.get(service).map_or(&[][..], Vec::as_slice);
        let gone: Vec<SocketAddrV4> = endpoints
            .iter()
            .filter(|at| !present.contains(at))
            .copied()
            .collect();
        if !gone.is_empty() {
            lost.insert(*service, gone);
        }
    }
    lost
}

/// Deletes the UDP flows to lost endpoints; returns how many there were.
pub async fn forget(lost: &Lost) -> io::Result<usize> {
    if lost.is_empty() {
        return Ok(0);
    }
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    let mut stale = vec![];
    let find = |flow: Flow| {
        if flow.is_stale(lost) {
            stale.push(flow.original);
        }
    };
    ask(&mut socket, CT_GET, NLM_F_REQUEST | NLM_F_DUMP, &[], find).await?;
    for original in &stale {
        match ask(
            &mut socket,
            CT_DELETE,
            NLM_F_REQUEST | NLM_F_ACK,
            original,
            |_| {},
        )
        .await
        {
            Err(error) if error.raw_os_error() == Some(ENOENT) => {}
            other => other?,
        }
    }
    Ok(stale.len())
}

/// A flow that was translated or not.
struct Flow {
    protocol: u8,
    /// Where the client sent.
    service: SocketAddrV4,
    /// Who answers.
    endpoint: SocketAddrV4,
    /// The attribute that names the flow, as the kernel wrote it.
    original: Vec<u8>,
}

impl Flow {
    fn is_stale(&self, lost: &Lost) -> bool {
        let on_all = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, self.service.port());
        let gone = [self.service, on_all]
            .iter()
            .filter_map(|at| lost.get(at))
            .any(|gone| gone.contains(&self.endpoint));
        self.protocol == PROTOCOL_UDP && gone && self.service != self.endpoint
    }
}

async fn ask(
    socket: &mut TokioSocket,
    kind: u16,
    flags: u16,
    attributes: &[u8],
    mut each: impl FnMut(Flow),
) -> io::Result<()> {
    let message = message(kind, flags, attributes);
    socket.send_to(&message, &SocketAddr::new(0, 0)).await?;
    loop {
        let answer = tokio::time::timeout(ANSWER_WITHIN, socket.recv_from_full()).await??;
        let mut rest = answer.0.as_slice();
        while let Some((kind, body, after)) = split_message(rest) {
            rest = after;
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return acknowledgement(body),
                CT_NEW => flow(body).into_iter().for_each(&mut each),
                _ => {}
            }
        }
    }
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(20 + attributes.len()).expect("a flow's name is some dozen bytes");
    let mut message = Vec::with_capacity(20 + attributes.len());
    message.extend(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]); // Sequence and port: one question at a time on this socket.
    message.extend([AF_INET, 0, 0, 0]);
    message.extend(attributes);
    message
}

fn acknowledgement(body: &[u8]) -> io::Result<()> {
    let code = body
        .first_chunk()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(-code))
    }
}

/// The first message's kind and body, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(16..len)?;
    Some((
        kind,
        body,
        bytes.get(len.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

/// The attributes in `bytes`: kind, content, and the whole with its header.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & !NESTED;
        let (content, whole) = (bytes.get(4..len)?, bytes.get(..len.next_multiple_of(4))?);
        bytes = &bytes[whole.len()..];
        Some((kind, content, whole))
    })
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, ..)| *kind == wanted)
        .map(|(_, content, _)| content)
}

fn flow(body: &[u8]) -> Option<Flow> {
    let attributes_of = body.get(4..)?;
    let (_, original, whole) =
        attributes(attributes_of).find(|(kind, ..)| *kind == CTA_TUPLE_ORIG)?;
    let (protocol, _, service) = tuple(original)?;
    let (_, endpoint, _) = tuple(find(attributes_of, CTA_TUPLE_REPLY)?)?;
    Some(Flow {
        protocol,
        service,
        endpoint,
        original: whole.to_vec(),
    })
}

/// Protocol, source and destination.
fn tuple(bytes: &[u8]) -> Option<(u8, SocketAddrV4, SocketAddrV4)> {
    let (addresses, protocol) = (find(bytes, 1)?, find(bytes, 2)?);
    let address = |kind| Some(Ipv4Addr::from(*find(addresses, kind)?.first_chunk::<4>()?));
    // Protocols without ports have other attributes, and are none of ours.
    let port = |kind| Some(u16::from_be_bytes(*find(protocol, kind)?.first_chunk()?));
    let number = *find(protocol, 1)?.first()?;
    Some((
        number,
        SocketAddrV4::new(address(1)?, port(2)?),
        SocketAddrV4::new(address(2)?, port(3)?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_removed_endpoints_are_lost() {
        let at = |n: u8, port| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, n), port);
        let old = Lost::from([
            (at(1, 53), vec![at(2, 53), at(3, 53)]),
            (at(9, 53), vec![at(4, 53)]),
        ]);
        let new = Lost::from([(at(1, 53), vec![at(3, 53), at(5, 53)])]);
        let expected = Lost::from([(at(1, 53), vec![at(2, 53)]), (at(9, 53), vec![at(4, 53)])]);
        assert_eq!(lost(&old, &new), expected);
    }

    #[test]
    fn damaged_messages_are_not_flows() {
        assert!(flow(&[]).is_none());
        assert!(flow(&[2, 0, 0, 0, 255, 255, 1, 128, 1]).is_none());
        assert!(split_message(&[3, 0, 0, 0, 1, 1]).is_none());
    }
}
