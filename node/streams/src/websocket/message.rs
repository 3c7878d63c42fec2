//! One message of the WebSocket subprotocols: a byte that names the channel, then that channel's bytes.
//! Pure: never reads or writes a socket. The table is that of k8s.io/apimachinery `remotecommand`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::accept::Version;
use crate::command::Channel;
use crate::drive::Incoming;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// The fifth version's: the byte after it is the channel that the client ends.
const CLOSE: u8 = 255;

/// What a client's message means; None for one without meaning here, which is passed over as the kubelet does.
pub(crate) fn parse(version: Version, message: Bytes) -> Option<Incoming> {
    let payload = message.get(1..).map(|_| message.slice(1..))?;
    match (message[0], version) {
        (STDIN, _) => Some(Incoming::Stdin(payload)),
        (RESIZE, _) => serde_json::from_slice(&payload).ok().map(Incoming::Resize),
        (CLOSE, Version::V5) if payload.first() == Some(&STDIN) => Some(Incoming::StdinEnd),
        _ => None,
    }
}

/// A message with output.
pub(crate) fn output(channel: Channel, bytes: &[u8]) -> Bytes {
    let channel = match channel {
        Channel::Stdout => STDOUT,
        Channel::Stderr => STDERR,
    };
    message(channel, bytes)
}

/// The message with the command's Status.
pub(crate) fn status(bytes: &[u8]) -> Bytes {
    message(ERROR, bytes)
}

fn message(channel: u8, bytes: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.put_slice(bytes);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::Size;

    #[test]
    fn messages_mean_what_the_table_says() {
        let parse5 = |bytes: &'static [u8]| parse(Version::V5, Bytes::from_static(bytes));
        assert_eq!(
            parse5(b"\x00abc"),
            Some(Incoming::Stdin(Bytes::from_static(b"abc")))
        );
        assert_eq!(parse5(b"\x00"), Some(Incoming::Stdin(Bytes::new())));
        assert_eq!(parse5(b"\xff\x00"), Some(Incoming::StdinEnd));
        assert_eq!(parse5(b"\xff\x01"), None);
        assert_eq!(
            parse5(b"\x04{\"Width\":80,\"Height\":24}"),
            Some(Incoming::Resize(Size {
                width: 80,
                height: 24
            }))
        );
        assert_eq!(parse5(b"\x04{"), None);
        assert_eq!(parse5(b""), None);
        let v4 = parse(Version::V4, Bytes::from_static(b"\xff\x00"));
        assert_eq!(v4, None, "the fourth version cannot end standard input");
    }

    #[test]
    fn output_is_prefixed_by_its_channel() {
        assert_eq!(output(Channel::Stdout, b"x"), &b"\x01x"[..]);
        assert_eq!(output(Channel::Stderr, b""), &b"\x02"[..]);
        assert_eq!(status(b"{}"), &b"\x03{}"[..]);
    }

    proptest! {
        #[test]
        fn random_messages_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            parse(Version::V5, bytes.clone().into());
            parse(Version::V4, bytes.into());
        }
    }
}
