//! One direction of a connection.

use std::io;

use bytes::Bytes;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{IN_FLIGHT_MAX, PART_BYTES, weather::Weather};

/// Passes bytes on until there are no more.
///
/// # Errors
///
/// If either side is gone.
pub(super) async fn pump(
    (mut source, mut sink): (OwnedReadHalf, OwnedWriteHalf),
    (from, to): (Option<usize>, Option<usize>),
    mut weather: watch::Receiver<Weather>,
    (seed, number): (u64, u64),
) -> io::Result<()> {
    let (parts, mut arriving) = mpsc::channel::<(Instant, Bytes)>(IN_FLIGHT_MAX);
    let watched = weather.clone();
    let take = async move {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(number);
        let mut buffer = vec![0; PART_BYTES];
        let mut due = Instant::now();
        loop {
            let len = source.read(&mut buffer).await?;
            // Nothing overtakes what was sent before it.
            due = due.max(Instant::now() + watched.borrow().latency(&mut dice));
            // An empty part is the end. Nobody to take it means that the other half failed, and says so.
            let part = Bytes::copy_from_slice(&buffer[..len]);
            if parts.send((due, part)).await.is_err() || len == 0 {
                return io::Result::Ok(());
            }
        }
    };
    let give = async move {
        while let Some((due, part)) = arriving.recv().await {
            sleep_until(due).await;
            let is_open = weather.wait_for(|weather| !weather.is_cut(from, to)).await.is_ok();
            if !is_open {
                return Ok(());
            }
            if part.is_empty() {
                return sink.shutdown().await;
            }
            sink.write_all(&part).await?;
        }
        Ok(())
    };
    tokio::try_join!(take, give)?;
    Ok(())
}
