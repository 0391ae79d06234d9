//! What a value must satisfy, checked while it is read, so that the error points at its line.

use std::{net::SocketAddr, time::Duration};

use protocol::committee;
use serde::{Deserialize, Deserializer, de::Error};
use swarm::{Address, limits::REQUEST_TIMEOUT_MAX};

use super::PeerAddress;

/// A log file holds at least one record, and the largest is a commitment of a few MB.
const LOG_FILE_BYTES_MIN: u64 = 16 << 20;
/// Compacting a log file needs as much free room again.
const LOG_FILE_BYTES_MAX: u64 = 64 << 30;
/// Room for the slivers of one segment, whatever the number of shards: a single sliver is at most 16 MiB.
pub(super) const UPLOAD_BYTES_MIN: u64 = 64 << 20;
/// More threads than any machine has cores are a typing error.
const THREADS_MAX: usize = 1024;
/// Each is kept connected, within the limits for strangers; a few that answer are as good as many.
const BOOTSTRAP_MAX: usize = 64;
/// Pauses shorter than this are a busy loop.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Pauses longer than this mean never, and overflow arithmetic on time sooner or later.
const PAUSE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

pub(super) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    committee::check_name(&name).map_err(D::Error::custom)?;
    Ok(name)
}

pub(super) fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Address>, D::Error> {
    let addresses = Vec::<Address>::deserialize(deserializer)?;
    if addresses.is_empty() {
        return Err(D::Error::custom("a node needs at least one address to listen on"));
    }
    match addresses.iter().find(|address| address.ip().is_none()) {
        Some(named) => Err(D::Error::custom(format!("cannot listen on {named}: give an IP address"))),
        None => Ok(addresses),
    }
}

pub(super) fn metrics_listen<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let address = SocketAddr::deserialize(deserializer)?;
    if address.port() == 0 {
        return Err(D::Error::custom("metrics need a port that others know: not 0"));
    }
    Ok(Some(address))
}

pub(super) fn bootstrap<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PeerAddress>, D::Error> {
    let peers = Vec::<PeerAddress>::deserialize(deserializer)?;
    match peers.len() {
        0..=BOOTSTRAP_MAX => Ok(peers),
        got => Err(D::Error::custom(format!("{got} bootstrap addresses, at most {BOOTSTRAP_MAX} allowed"))),
    }
}

pub(super) fn log_file_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(u64::deserialize(deserializer)?, LOG_FILE_BYTES_MIN, LOG_FILE_BYTES_MAX)
}

pub(super) fn upload_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(u64::deserialize(deserializer)?, UPLOAD_BYTES_MIN, u64::MAX)
}

pub(super) fn threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    within(usize::deserialize(deserializer)?, 0, THREADS_MAX)
}

pub(super) fn pause<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration(deserializer, PAUSE_MIN, PAUSE_MAX)
}

pub(super) fn request_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration(deserializer, PAUSE_MIN, REQUEST_TIMEOUT_MAX)
}

fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
    min: Duration,
    max: Duration,
) -> Result<Duration, D::Error> {
    let value: Duration = humantime_serde::deserialize(deserializer)?;
    if value < min || value > max {
        let text = |duration| humantime_serde::re::humantime::format_duration(duration);
        return Err(D::Error::custom(format!(
            "{} is out of range, allowed are {} to {}",
            text(value),
            text(min),
            text(max)
        )));
    }
    Ok(value)
}

fn within<T: PartialOrd + std::fmt::Display, E: Error>(value: T, min: T, max: T) -> Result<T, E> {
    if value < min || value > max {
        return Err(E::custom(format!("{value} is out of range, allowed are {min} to {max}")));
    }
    Ok(value)
}
