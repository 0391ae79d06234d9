//! `floe blob-id`.

use std::{num::NonZeroUsize, path::Path, sync::Arc};

use serde::Serialize;

use super::{Exit, Failure, Output, network_file, progress::Bar, shown, store};
use crate::{
    client::{BlobSource as _, blob_id},
    config::ClientFile,
    encoder::Encoder,
};
use protocol::quorum::{N_SHARDS_MAX, N_SHARDS_MIN};

#[derive(Debug, Serialize)]
struct Document {
    blob_id: String,
    size: u64,
    n_shards: u16,
}

pub(super) async fn execute(
    network: Option<&Path>,
    file: &Path,
    shards: Option<u16>,
    output: Output,
) -> Result<(), Failure> {
    let source = Arc::new(store::open(file)?);
    let size = source.len();
    let n_shards = match shards {
        Some(shards) if (N_SHARDS_MIN..=N_SHARDS_MAX).contains(&shards) => shards,
        Some(shards) => {
            let what = format!("a network has {N_SHARDS_MIN} to {N_SHARDS_MAX} shards, not {shards}");
            return Err(Failure::new(Exit::Usage, what));
        }
        None => {
            let network =
                network_file(network).map_err(|failure| failure.hint("give --shards N or --network FILE"))?;
            ClientFile::load(&network)?.load_genesis()?.n_shards()
        }
    };
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let encoder = Encoder::start(n_shards, threads)
        .map_err(|error| Failure::io("cannot start the encoder threads", &error))?;
    let bar = Bar::new(&shown(file));
    let blob_id = blob_id(&encoder, source, n_shards, bar.reports()).await.map_err(|error| {
        Failure::store(&shown(file), &error).doing("compute the blob ID of", &shown(file))
    })?;
    drop(bar);
    output.data(&Document { blob_id: blob_id.to_string(), size, n_shards }, blob_id)
}
