//! Bytes on the wire, written by hand, so that they can be wrong.
//!
//! Sources: the libp2p specifications "multistream-select 1.0" (agreement on a protocol), "identify", and "pubsub".

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use rand::{Rng as _, RngCore as _};
use rand_chacha::ChaCha8Rng;

use crate::frame::{HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// The protocol by which a node says what it speaks.
pub(super) const IDENTIFY: &str = "/ipfs/id/1.0.0";
/// The protocol of encryption.
pub(super) const NOISE: &str = "/noise";
/// The protocol of streams.
pub(super) const YAMUX: &str = "/yamux/1.0.0";

const MULTISTREAM: &str = "/multistream/1.0.0";
/// The longest line or message that is read; a node sends less.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// A number as in protocol buffers.
pub(super) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low & 0x7f);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A message with its length before it.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = varint(u64::try_from(message.len()).unwrap_or(u64::MAX));
    bytes.extend_from_slice(message);
    bytes
}

/// A line of the agreement on a protocol.
pub(super) fn line(text: &str) -> Vec<u8> {
    framed(format!("{text}\n").as_bytes())
}

/// What proposes a protocol.
pub(super) fn proposal(protocol: &str) -> Vec<u8> {
    [line(MULTISTREAM), line(protocol)].concat()
}

/// Reads a number as in protocol buffers.
async fn read_varint<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<usize> {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let mut byte = [0];
        io.read_exact(&mut byte).await?;
        value |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(io::Error::from(io::ErrorKind::InvalidData))
}

/// Reads a message with its length before it.
pub(super) async fn read_message<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<Vec<u8>> {
    let length = read_varint(io).await?;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    io.read_exact(&mut message).await?;
    Ok(message)
}

async fn read_line<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<String> {
    let message = read_message(io).await?;
    let text = String::from_utf8(message).map_err(io::Error::other)?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// Proposes a protocol, and waits until it is agreed on.
pub(super) async fn agree<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T, protocol: &str) -> io::Result<()> {
    io.write_all(&proposal(protocol)).await?;
    io.flush().await?;
    for expected in [MULTISTREAM, protocol] {
        let got = read_line(io).await?;
        if got != expected {
            return Err(io::Error::other(format!("{expected} was answered by {got:?}")));
        }
    }
    Ok(())
}

/// Takes whatever protocol the node proposes; returns its name.
pub(super) async fn accept<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T) -> io::Result<String> {
    read_line(io).await?;
    let protocol = read_line(io).await?;
    io.write_all(&proposal(&protocol)).await?;
    io.flush().await?;
    Ok(protocol)
}

/// The protocols in what a node says of itself: field 3, repeated.
pub(super) fn identified_protocols(info: &[u8]) -> io::Result<impl Iterator<Item = String> + use<>> {
    const LENGTH_DELIMITED: u64 = 2;
    const PROTOCOLS: u64 = 3;
    let mut protocols = Vec::new();
    let mut rest = info;
    while !rest.is_empty() {
        let malformed = || io::Error::other("the node identifies itself in a form that is not understood");
        let key = take_varint(&mut rest).ok_or_else(malformed)?;
        if key & 7 != LENGTH_DELIMITED {
            return Err(malformed());
        }
        let length = take_varint(&mut rest).and_then(|length| usize::try_from(length).ok());
        let (value, behind) =
            length.and_then(|length| rest.split_at_checked(length)).ok_or_else(malformed)?;
        if key >> 3 == PROTOCOLS {
            protocols.push(String::from_utf8_lossy(value).into_owned());
        }
        rest = behind;
    }
    Ok(protocols.into_iter())
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Random bytes.
pub(super) fn random(dice: &mut ChaCha8Rng, bytes: usize) -> Vec<u8> {
    let mut random = vec![0; bytes];
    dice.fill_bytes(&mut random);
    random
}

/// The beginning of the longest request, or of one that is longer still.
fn announcement(header: usize, payload: usize) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    [length(header), length(payload)].concat()
}

/// The beginning of the longest message that a protocol may carry.
pub(super) fn beginning(is_channel: bool) -> Vec<u8> {
    if is_channel {
        announcement(HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX)
    } else {
        // Two megabytes, which is what gossip takes; others refuse it, and are told of less.
        varint(2 << 20)
    }
}

/// The longest request but for its last byte.
pub(super) fn hoarded() -> Vec<u8> {
    let mut bytes = announcement(HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX);
    bytes.resize(bytes.len() + HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX - 1, 7);
    bytes
}

/// A request.
pub(super) fn request(header: &[u8]) -> Vec<u8> {
    [announcement(header.len(), 0), header.to_vec()].concat()
}

/// Garbage: of another kind each time.
pub(super) fn garbage(dice: &mut ChaCha8Rng, is_channel: bool) -> Vec<u8> {
    let bytes = dice.random_range(1..4_096);
    match dice.random_range(0..6) {
        0 => random(dice, bytes),
        // In the form of the protocol, with garbage for content.
        1 if is_channel => request(&random(dice, bytes)),
        1 => framed(&random(dice, bytes)),
        // More than may be sent.
        2 if is_channel => [announcement(usize::MAX, usize::MAX), random(dice, bytes)].concat(),
        2 => [varint(u64::MAX), random(dice, bytes)].concat(),
        3 => vec![0; bytes],
        // A message within a message within a message, as deep as it goes.
        4 => framed(&[0x0a; 2_048]),
        // Cut off.
        _ => {
            let mut message = framed(&random(dice, bytes));
            message.truncate(bytes);
            message
        }
    }
}

/// A packet of gossip that subscribes to topics that nobody else knows.
pub(super) fn subscriptions(dice: &mut ChaCha8Rng, n: usize) -> Vec<u8> {
    const SUBSCRIPTIONS: u8 = 0x0a;
    const SUBSCRIBE: [u8; 2] = [0x08, 0x01];
    const TOPIC: u8 = 0x12;
    let mut packet = Vec::new();
    for _ in 0..n {
        let topic: String = random(dice, 32).iter().map(|byte| format!("{byte:02x}")).collect();
        let subscription = [&SUBSCRIBE[..], &[TOPIC], &framed(topic.as_bytes())].concat();
        packet.push(SUBSCRIPTIONS);
        packet.extend(framed(&subscription));
    }
    framed(&packet)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, io::Cursor};

    use super::*;

    #[test]
    fn numbers_and_lines_have_the_form_of_the_specification() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(line("/noise"), b"\x07/noise\n");
        let read = read_message(&mut Cursor::new(framed(&[7; 300]))).now_or_never();
        assert_eq!(read.unwrap().unwrap(), [7; 300]);
    }

    #[test]
    fn protocols_are_found_in_what_a_node_says() {
        let info =
            [&[0x2a][..], &framed(b"version"), &[0x1a], &framed(b"/a"), &[0x1a], &framed(b"/b")].concat();
        assert_eq!(identified_protocols(&info).unwrap().collect::<Vec<_>>(), ["/a", "/b"]);
        assert!(identified_protocols(&[0x1a, 9, 1]).is_err());
    }
}
