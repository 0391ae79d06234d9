//! What was promised, against what is on the disks.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use node::{blobs::BlobStatus, membership::Seat, sliver_store::sliver_in_image};
use protocol::{
    BlobId, Epoch, NodeIndex, SegmentIndex, ShardIndex,
    commitment::VerifiedHeader,
    encoding::{BlobShape, SegmentEncoder},
    message::SliverAt,
    quorum::{max_faulty, quorum},
};
use rand::seq::SliceRandom as _;
use storage::{Store, disk::Disk as _};
use swarm::Offence;
use tokio::time::Instant;

use super::{
    model::Acknowledged,
    workload::User,
    world::{World, durable_image},
};

/// Name of the log file that every store begins with.
const FIRST_LOG: &str = "0000000001.log";

/// The slivers of a blob that go with a place on a committee.
fn slivers(seat: &Seat, blob_id: BlobId, shape: &BlobShape) -> Vec<SliverAt> {
    shape.segments().flat_map(|segment| slivers_of_segment(seat, (blob_id, segment), shape)).collect()
}

fn slivers_of_segment(
    seat: &Seat,
    (blob_id, segment): (BlobId, SegmentIndex),
    shape: &BlobShape,
) -> Vec<SliverAt> {
    let shape = shape.segment(segment).expect("a segment of the blob");
    seat.slivers(blob_id, segment, shape).collect()
}

/// The slivers of a blob that a node owes now.
fn owed(world: &World, blob_id: BlobId, shape: &BlobShape, node: NodeIndex) -> Vec<SliverAt> {
    world.seat(node).map_or_else(Vec::new, |seat| slivers(&seat, blob_id, shape))
}

fn shape_of(world: &World, data: &[u8]) -> BlobShape {
    let length = u64::try_from(data.len()).expect("a blob in memory");
    BlobShape::new(world.n_shards(), length).expect("a blob in memory")
}

fn holds(world: &World, image: &Store, at: &SliverAt) -> bool {
    sliver_in_image(image, world.n_shards(), at).is_some()
}

/// D2: a certificate has the weight of a quorum, by a count of its own, and those who signed it and are honest hold
/// durably what they vouched for.
pub(super) fn certificate_is_backed(world: &World, blob_id: BlobId) {
    let Some(Acknowledged { data, epoch, signers }) = world.model().acknowledged.get(&blob_id).cloned()
    else {
        return;
    };
    if signers.is_empty() {
        return;
    }
    let shape = shape_of(world, &data);
    let n = world.n_shards();
    super::operators::look(world);
    let Some((_, committee)) = world.model().committees.get(&epoch).cloned() else {
        world
            .model()
            .violation("D2", format!("{blob_id} was certified in epoch {epoch}, which no node knows"));
        return;
    };
    let weight: usize = signers.iter().map(|signer| committee.shards(*signer).len()).sum();
    world.model().check("D2", 3 * weight > 2 * usize::from(n) && weight >= usize::from(quorum(n)), || {
        format!("{blob_id} was certified with a weight of {weight} of {n}")
    });
    for signer in signers {
        let seat = Seat { committee: Arc::clone(&committee), node: signer };
        let Some(signer) = committee.member(signer).and_then(|member| world.place_of(&member.peer)) else {
            continue;
        };
        if !world.is_answerable(signer) || world.plan.flips {
            continue;
        }
        // What has moved since need not be there any more, even if it has come back.
        let kept: BTreeSet<ShardIndex> =
            seat.shards().iter().copied().filter(|shard| world.has_kept(signer, *shard, epoch)).collect();
        let shard = |at: &SliverAt| committee.shard_of(&at.blob_id, at.segment, at.pair);
        let Some(image) = durable_image(&world.disk(signer)) else {
            world.model().violation("D4", format!("node {signer}: the durable image does not open"));
            continue;
        };
        let vouched_for = slivers(&seat, blob_id, &shape);
        let lacks = |at: &&SliverAt| kept.contains(&shard(at)) && !holds(world, &image, at);
        let missing = vouched_for.iter().filter(lacks).count();
        world.model().check("D2", missing == 0, || {
            format!("node {signer} vouched for {blob_id} and lacks {missing} slivers on disk")
        });
    }
}

/// D4: what a node vouched for is still there after it lost power.
pub(super) fn nothing_acknowledged_was_lost(world: &World, node: NodeIndex) {
    if world.plan.flips || !world.is_answerable(node) {
        return;
    }
    let committees = world.model().committees.clone();
    let blobs: Vec<BlobId> = world
        .model()
        .acknowledged
        .iter()
        .filter(|(_, acknowledged)| acknowledged.is_signed_by(&world.peer(node), &committees))
        .map(|(blob_id, _)| *blob_id)
        .collect();
    for blob_id in blobs {
        certificate_is_backed(world, blob_id);
    }
}

/// D5: no honest node was blamed for bytes that do not verify, so none served what its disk had damaged.
pub(super) fn no_honest_node_was_blamed(world: &World, ever_faulty: &BTreeSet<protocol::PeerId>) {
    let members: BTreeSet<_> = world.all().into_iter().map(|node| world.peer(node)).collect();
    for (by, peer, offence) in world.peers.blamed() {
        let is_honest = members.contains(&peer) && !ever_faulty.contains(&peer);
        let is_grave = matches!(offence, Offence::Unverifiable | Offence::Malformed);
        world.model().check("D5", !(is_honest && is_grave), || {
            format!("{by} blamed the honest {peer} for {offence:?}")
        });
    }
}

/// The certified blobs that a node knows.
fn certified(world: &World, node: NodeIndex) -> Option<Vec<VerifiedHeader>> {
    let blobs = &world.handles(node)?.blobs;
    let listed = blobs.list(None, usize::MAX).ok()?;
    let statuses = listed.into_iter().map(|blob_id| blobs.status(blob_id).ok());
    let header = |status| match status {
        BlobStatus::Certified { header, .. } => Some(header),
        _ => None,
    };
    Some(statuses.collect::<Option<Vec<_>>>()?.into_iter().filter_map(header).collect())
}

/// What a node still lacks, or `None` if it is whole: it knows what all others know, and holds all that it owes.
fn lacks(world: &World, node: NodeIndex) -> Option<String> {
    let Some(handles) = world.handles(node) else { return Some("it is down".to_owned()) };
    if world.is_let_down(node) {
        return None;
    }
    let height = handles.ledger.view().height();
    for other in world.running() {
        let theirs = world.handles(other).map_or(0, |handles| handles.ledger.view().height());
        if height < theirs {
            return Some(format!("its ledger is behind that of node {other}: {height} of {theirs}"));
        }
    }
    let Some(headers) = certified(world, node) else {
        return Some("its ledger cannot be read".to_owned());
    };
    for header in headers {
        let owed = owed(world, header.blob_id(), header.shape(), node);
        let missing = owed.iter().filter(|at| !handles.store.has_sliver(at)).count();
        if missing > 0 {
            return Some(format!("{missing} slivers of {}", header.blob_id()));
        }
    }
    None
}

/// D7: what a node lacks of what was certified before an epoch began, and is certified still.
pub(super) fn lacks_of_old(world: &World, node: NodeIndex, epoch: Epoch) -> Option<String> {
    let (handles, seat) = (world.handles(node)?, world.seat(node)?);
    let image = durable_image(&world.disk(node))?;
    let state = handles.ledger.view().state;
    // What is certified while the node looks, it need not have found.
    let before = world.model().heights.range(..epoch).map(|(_, height)| *height).max().unwrap_or_default();
    for entry in state.blobs_from(&BlobId([0; 32])) {
        let (blob_id, blob) = entry.ok()?;
        let is_old = blob.available.is_some_and(|available| available.height <= before);
        if !is_old || blob.invalid.is_some() {
            continue;
        }
        let header = blob.header.verify_for(blob_id).ok()?;
        let owed = slivers(&seat, blob_id, header.shape());
        let missing = owed.iter().filter(|at| !holds(world, &image, at)).count();
        if missing > 0 {
            return Some(format!("{missing} slivers of {blob_id}"));
        }
    }
    None
}

/// True if the node is whole.
pub(super) fn is_whole(world: &World, node: NodeIndex) -> bool {
    lacks(world, node).is_none()
}

/// D3 and L4: within `limit` of healing, every node holds every sliver that it owes. Returns the time it took.
pub(super) async fn becomes_whole(world: &mut World, limit: Duration) -> Option<Duration> {
    let start = Instant::now();
    loop {
        let mut lacking = None;
        for node in world.all() {
            if let Some(what) = lacks(world, node) {
                lacking = Some(format!("node {node} lacks after {:?}: {what}", start.elapsed()));
                break;
            }
        }
        match lacking {
            None => {
                for node in world.all() {
                    world.set_whole(node);
                }
                return Some(start.elapsed());
            }
            Some(what) if start.elapsed() > limit => {
                world.model().violation("D3", what);
                return None;
            }
            Some(what) => {
                tracing::debug!(what, "not whole yet");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        for node in world.reap().await {
            world.restart(node).await;
        }
    }
}

/// D6: every sliver on every disk is the one that an honest encoder makes. With `D5`, bits that were flipped on the
/// disks are gone.
pub(super) fn slivers_are_the_encoders(world: &World) {
    let n = world.n_shards();
    let acknowledged: Vec<_> = world
        .model()
        .acknowledged
        .iter()
        .map(|(id, blob)| (*id, std::sync::Arc::clone(&blob.data)))
        .collect();
    let mut encoder = SegmentEncoder::new(n);
    let images: Vec<_> =
        world.all().into_iter().map(|node| (node, durable_image(&world.disk(node)))).collect();
    for (blob_id, data) in acknowledged {
        let shape = shape_of(world, &data);
        for index in shape.segments() {
            let range = shape.range(index).expect("a segment of the blob");
            let range = [range.start, range.end].map(|at| usize::try_from(at).expect("a blob in memory"));
            let segment_shape = shape.segment(index).expect("a segment of the blob");
            let segment = encoder.encode(segment_shape, &data[range[0]..range[1]]);
            for (node, image) in &images {
                let Some(image) = image else {
                    world.model().violation("D4", format!("node {node}: the durable image does not open"));
                    continue;
                };
                let Some(seat) = world.seat(*node) else { continue };
                for at in slivers_of_segment(&seat, (blob_id, index), &shape) {
                    let stored = sliver_in_image(image, n, &at);
                    let is_right = stored.as_deref() == Some(segment.sliver_of_pair(at.axis, at.pair));
                    world.model().check("D6", is_right, || {
                        let what = if stored.is_some() { "another sliver" } else { "nothing" };
                        format!("node {node} holds {what} for {at:?}")
                    });
                }
            }
        }
    }
}

/// Counts the nodes whose first log file was compacted away: names begin at one and are never used again.
pub(super) fn count_compacted(world: &World) {
    for node in world.all() {
        let names = world.disk(node).list().unwrap_or_default();
        if names.iter().min().is_some_and(|first| *first != FIRST_LOG) {
            world.model().operation("compacted");
        }
    }
}

/// D1: with any `f` shards down, every acknowledged blob is read as the bytes that were stored.
pub(super) async fn all_read_with_f_down(world: &mut World, user: &User) {
    let mut nodes = world.all();
    nodes.shuffle(&mut world.rng(4));
    let f = max_faulty(world.n_shards());
    let (mut down, mut weight) = (Vec::new(), 0);
    for node in nodes {
        if weight + world.weight(node) <= f {
            weight += world.weight(node);
            world.kill(node).await;
            down.push(node);
        }
    }
    let blobs: Vec<BlobId> = world.model().acknowledged.keys().copied().collect();
    for blob_id in blobs {
        let is_read = user.read(blob_id).await;
        world.model().check("D1", is_read, || format!("{blob_id} cannot be read with {weight} shards down"));
    }
    for node in down {
        world.restart(node).await;
    }
}

/// H1: every blob that any node lists can be read, or is invalid for everyone.
pub(super) async fn what_is_listed_is_readable(world: &World, user: &User) {
    let mut listed = BTreeSet::new();
    for node in world.running() {
        if let Some(headers) = certified(world, node) {
            listed.extend(headers.iter().map(VerifiedHeader::blob_id));
        }
    }
    for blob_id in listed {
        let known = world.model().acknowledged.contains_key(&blob_id);
        if known {
            continue;
        }
        // Certified although its writer was not told so: as good as any other.
        let result = user.client.read(blob_id, Vec::new(), super::workload::silent()).await;
        world.model().check("H1", result.is_ok(), || format!("{blob_id} is listed and cannot be read"));
    }
}

/// H5: within `limit`, every node that runs knows that a blob is invalid. False if not.
pub(super) async fn becomes_invalid(world: &World, blob_id: BlobId, limit: Duration) -> bool {
    let start = Instant::now();
    loop {
        let mut unaware = Vec::new();
        for node in world.running() {
            let Some(handles) = world.handles(node) else { continue };
            if handles.blobs.status(blob_id) != Ok(BlobStatus::Invalid) {
                unaware.push(node);
            }
        }
        if unaware.is_empty() {
            return true;
        }
        if start.elapsed() > limit {
            let detail = format!("nodes {unaware:?} do not know that {blob_id} is invalid");
            world.model().violation("H5", detail);
            return false;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// H5: within `limit`, no node that runs keeps anything of an invalid blob of one segment.
pub(super) async fn is_let_go(world: &World, blob_id: BlobId, limit: Duration) {
    let start = Instant::now();
    // Only coded blobs can be encoded wrongly; how long this one is makes no difference to who owes what.
    let n = world.n_shards();
    let coded = BlobShape::new(n, 65 * u64::from(n)).expect("a small blob");
    loop {
        let keeping = world.running().into_iter().find(|node| {
            let owed = owed(world, blob_id, &coded, *node);
            let keeps = |handles: &node::node::Handles| owed.iter().any(|at| handles.store.has_sliver(at));
            world.handles(*node).is_some_and(keeps)
        });
        match keeping {
            None => return,
            Some(node) if start.elapsed() > limit => {
                let detail = format!("node {node} keeps slivers of the invalid {blob_id}");
                world.model().violation("H5", detail);
                return;
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}
