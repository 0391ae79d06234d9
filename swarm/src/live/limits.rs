//! The limits of libp2p itself, each with its reason; those of Floe's own are in [`crate::limits`].

use std::time::Duration;

/// Streams of one connection and direction that bulk requests may use.
///
/// Beyond it an arriving stream is dropped without a word (read in the source), so it must exceed what a well-behaved
/// peer opens: 128 of ours, 128 of theirs, and as many again being refused.
pub(super) const BULK_STREAMS_MAX: usize = 512;

/// As [`BULK_STREAMS_MAX`], for control requests.
pub(super) const CONTROL_STREAMS_MAX: usize = 384;

/// Streams of one connection. One more closes the connection (measured), so this must exceed what both channels, gossip,
/// identify and ping may open together. Each can hold 256 KiB of unread data.
pub(super) const CONNECTION_STREAMS_MAX: usize = 1_024;

/// The same for QUIC, which counts in 32 bits and merely lets further streams wait.
pub(super) const QUIC_STREAMS_MAX: u32 = 1_024;

/// Unread bytes that one QUIC stream may hold: a frame and a half, as on TCP.
pub(super) const QUIC_STREAM_BYTES_MAX: u32 = 384 * 1024;

/// Unread bytes that one QUIC connection may hold: 64 frames, which fills 100 ms at a gigabit.
pub(super) const QUIC_CONNECTION_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Incoming streams whose protocol is not agreed on yet: as many as there can be. With lazy negotiation this takes no round
/// trip, so there are hardly any; and a stream that is looked at holds no more than the line that is read, while up to 256
/// that are not (fixed in libp2p) hold 256 KiB each, for as long as others are left in the middle of agreeing.
pub(super) const NEGOTIATING_MAX: usize = CONNECTION_STREAMS_MAX;

/// The whole exchange, on both sides. Callers give up earlier; this only clears away what was forgotten.
pub(super) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(65);

/// Connecting, securing and multiplexing together: ten round trips of a satellite link.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection without open streams is closed after this time. Gossip keeps streams open with whoever follows a
/// topic, so this concerns clients that asked something once; the default of 10 s would have them reconnect all day.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// A peer that lost power is noticed within the interval and the timeout together. Nothing else would notice: TCP itself
/// waits a quarter of an hour.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A ping waits behind at most a socket buffer of data (4 MiB): 20 s allow for 2 Mbit/s.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What signatures, keys and names add to a message on a topic; some 200 bytes, generously.
pub(super) const GOSSIP_OVERHEAD_BYTES: usize = 4 * 1024;

/// What a packet of gossip may have beyond the longest message. libp2p compares the limit with all that was read from
/// the stream so far (read in the source), which may include the start of the next packet: at least its read buffer of
/// 8 KiB must fit, or the longest message breaks the stream now and then.
pub(super) const GOSSIP_PACKET_SLACK_BYTES: usize = 64 * 1024;

/// Messages that wait for one slow peer before they are dropped. With block proposals of 2 MiB this is 256 MiB at worst,
/// for the few seconds that a message is kept.
pub(super) const GOSSIP_QUEUE_MAX: usize = 128;

/// A message is recognised for this long; as long as it could still travel.
pub(super) const GOSSIP_REMEMBERED: Duration = Duration::from_secs(120);

/// Messages in one packet of gossip; every one costs a signature check.
pub(super) const GOSSIP_MESSAGES_MAX: usize = 256;

/// How long to wait for a listener to say where it listens.
pub(super) const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Peers whose rates are remembered after they left, so that a new connection is not a new allowance.
pub(super) const RATES_REMEMBERED: usize = 1_024;

/// Addresses that are taken from one entry of the hash table: a host seldom has more, and the entry may be forged.
pub(super) const FOUND_ADDRESSES_MAX: usize = 4;

/// How long a node that stops waits for its connections to close: a round trip to the far side of the world.
pub(super) const HANG_UP_TIMEOUT: Duration = Duration::from_millis(300);
