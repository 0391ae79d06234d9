//! From what was seen to the rows of the report.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::encoding::BlobShape;
use tokio::time::Instant;

use super::{
    report::{EpochRow, HealRow},
    timeline::Timeline,
    traffic::{bytes_to_gain, bytes_to_move, shards_to_move},
    workload::{BlobRecord, Certified},
};
use crate::figures::Meter;

/// A disk that was wiped.
#[derive(Clone, Debug)]
pub(super) struct Wiped {
    pub(super) node: usize,
    pub(super) epoch: u32,
    /// Shards that the node answered for.
    pub(super) shards: BTreeSet<u16>,
    /// Bytes that it had copied for shards of the next epoch, at most: they have to move once more.
    pub(super) copied_bytes: u64,
    /// When it was started again.
    pub(super) started: Option<Instant>,
    /// How long after that it had everything.
    pub(super) healed: Option<Duration>,
}

/// What was done in an epoch.
#[derive(Clone, Debug, Default)]
pub(super) struct Deeds {
    pub(super) joined: Vec<String>,
    pub(super) left: Vec<String>,
    pub(super) wiped: Vec<String>,
    pub(super) stopped: Vec<String>,
    pub(super) stake_moved: u64,
}

/// All that was seen of the nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) n_shards: u16,
    pub(super) timeline: &'a Timeline,
    pub(super) meter: &'a Meter,
    pub(super) deeds: &'a BTreeMap<u32, Deeds>,
    pub(super) wipes: &'a [Wiped],
    pub(super) blobs: &'a [BlobRecord],
}

impl Seen<'_> {
    /// Blobs that were certified, with their shapes.
    fn certified(&self) -> impl Iterator<Item = (BlobShape, Certified)> {
        self.blobs.iter().filter_map(|blob| {
            let size = u64::try_from(blob.size).ok()?;
            Some((BlobShape::new(self.n_shards, size).ok()?, blob.certified?))
        })
    }

    /// Bytes that were on a disk, as far as its node answered for them, and that it has to regain.
    fn lost_bytes(&self, wiped: &Wiped) -> u64 {
        let lasts = |certified: &Certified| {
            let is_before = wiped.started.is_none_or(|started| certified.at <= started);
            is_before && certified.end > wiped.epoch
        };
        let blobs = self.certified().filter(|(_, certified)| lasts(certified));
        let bytes = blobs.map(|(shape, _)| bytes_to_gain(&shape, &BTreeSet::new(), &wiped.shards));
        bytes.sum::<u64>() + wiped.copied_bytes
    }

    /// Bytes that the members of the epoch after this one had to gain.
    fn handed_bytes(&self, epoch: u32) -> u64 {
        let epochs = self.timeline.epochs();
        let (Some(before), Some(after)) = (epochs.get(&epoch), epochs.get(&(epoch + 1))) else { return 0 };
        let lasts = |certified: &Certified| certified.epoch <= epoch && certified.end > epoch + 1;
        let blobs = self.certified().filter(|(_, certified)| lasts(certified));
        blobs.map(|(shape, _)| bytes_to_move(&shape, &before.shards, &after.shards)).sum()
    }

    /// The epochs. What members gain for the next one counts for the epoch in which that is selected.
    pub(super) fn rows(&self) -> Vec<EpochRow> {
        let epochs = self.timeline.epochs();
        let none = Deeds::default();
        let row = |(epoch, seen): (&u32, &super::timeline::Seen)| {
            let deeds = self.deeds.get(epoch).unwrap_or(&none).clone();
            let next = epochs.get(&(epoch + 1)).map(|next| next.began.saturating_duration_since(seen.began));
            let before = epoch.checked_sub(1).and_then(|before| epochs.get(&before));
            let wiped = self.wipes.iter().filter(|wiped| wiped.epoch == *epoch);
            EpochRow {
                epoch: *epoch,
                seconds: next.map(|next| next.as_secs_f64()),
                handover_seconds: self.timeline.handover(*epoch).map(|took| took.as_secs_f64()),
                members: seen.shards.len(),
                shards_moved: before.map_or(0, |before| shards_to_move(&before.shards, &seen.shards)),
                joined: deeds.joined,
                left: deeds.left,
                wiped: deeds.wiped,
                stopped: deeds.stopped,
                stake_moved: deeds.stake_moved,
                moved_bytes: self.meter.in_epoch(*epoch),
                needed_bytes: self.handed_bytes(*epoch)
                    + wiped.map(|wiped| self.lost_bytes(wiped)).sum::<u64>(),
                operations: 0,
                failed: 0,
            }
        };
        epochs.iter().map(row).collect()
    }

    /// The wiped disks.
    pub(super) fn heals(&self) -> Vec<HealRow> {
        let row = |wiped: &Wiped| HealRow {
            node: format!("node-{}", wiped.node),
            epoch: wiped.epoch,
            bytes: self.lost_bytes(wiped),
            seconds: wiped.healed.map(|healed| healed.as_secs_f64()),
        };
        self.wipes.iter().map(row).collect()
    }

    /// Slivers that a node with these shards is to hold now, of blobs that were certified before `at`.
    pub(super) fn slivers_due(&self, shards: u16, (epoch, at): (u32, Instant)) -> u64 {
        let blobs = self.certified().filter(|(_, blob)| blob.at <= at && blob.end > epoch);
        let of = |shape: &BlobShape| {
            let segments = shape.segments().filter_map(|index| shape.segment(index).ok());
            let slivers =
                segments.map(|segment| if segment.is_replicated() { 1 } else { 2 * u64::from(shards) });
            slivers.sum::<u64>()
        };
        blobs.map(|(shape, _)| of(&shape)).sum()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{BlobId, PeerId, ShardIndex, committee::Member, ledger::state::entry::Stage};

    use super::*;

    const N: u16 = 7;
    const SIZE: usize = 100_000;
    const SECOND: Duration = Duration::from_secs(1);

    fn member(index: u8, shards: std::ops::Range<u16>) -> Member {
        let key = protocol::bls::SecretKey::from_seed(&[index; 32]);
        let peer = PeerId([index; 32]);
        Member {
            name: format!("node-{index}"),
            peer,
            public_key: key.public_key(),
            proof_of_possession: key.prove_possession(&peer),
            addresses: Vec::new(),
            shards: shards.map(ShardIndex).collect(),
        }
    }

    fn blob(number: u64, (epoch, end): (u32, u32), at: Instant) -> BlobRecord {
        let certified = Some(Certified { epoch, at, end });
        BlobRecord { number, size: SIZE, blob_id: BlobId([0; 32]), certified }
    }

    #[tokio::test(start_paused = true)]
    async fn what_had_to_move_is_what_lasts_of_the_shards_that_moved_and_of_the_disks_that_were_lost() {
        let start = Instant::now();
        let mut timeline = Timeline::default();
        let members = [member(1, 0..4), member(2, 4..7)];
        timeline.saw((0, Stage::Steady), &members, (start, Duration::ZERO));
        let members = [member(1, 0..3), member(2, 4..7), member(3, 3..4)];
        let handover = Stage::Handover { ready_shards: 0 };
        timeline.saw((1, handover), &members, (start + 10 * SECOND, Duration::ZERO));
        timeline.saw((1, Stage::Steady), &members, (start + 12 * SECOND, 2 * SECOND));
        let blobs = [
            blob(1, (0, 9), start + SECOND),
            blob(2, (0, 9), start + 6 * SECOND),
            // Over when the shard moves.
            blob(3, (0, 1), start + SECOND),
            // Sent to its new owner at once.
            blob(4, (1, 9), start + 11 * SECOND),
            BlobRecord { certified: None, ..blob(5, (0, 9), start) },
        ];
        let wipes = [Wiped {
            node: 2,
            epoch: 0,
            shards: BTreeSet::from([4, 5, 6]),
            copied_bytes: 7,
            started: Some(start + 5 * SECOND),
            healed: Some(2 * SECOND),
        }];
        let mut meter = Meter::default();
        meter.saw(PeerId([3; 32]), 500, 0);
        let deeds = BTreeMap::from([(0, Deeds { left: vec!["node-1".to_owned()], ..Deeds::default() })]);
        let (timeline, meter, deeds) = (&timeline, &meter, &deeds);
        let seen = Seen { n_shards: N, timeline, meter, deeds, wipes: &wipes, blobs: &blobs };

        let shape = BlobShape::new(N, u64::try_from(SIZE).unwrap()).unwrap();
        let pair = bytes_to_gain(&shape, &BTreeSet::new(), &BTreeSet::from([0]));
        let rows = seen.rows();
        // A shard of two blobs, and three of those two that were there when the node came back.
        assert_eq!(rows[0].needed_bytes, 2 * pair + 2 * 3 * pair + 7);
        assert_eq!((rows[0].moved_bytes, rows[1].moved_bytes, rows[1].needed_bytes), (500, 0, 0));
        assert_eq!((rows[0].seconds, rows[0].handover_seconds, rows[0].shards_moved), (Some(10.0), None, 0));
        assert_eq!((rows[1].seconds, rows[1].handover_seconds, rows[1].shards_moved), (None, Some(2.0), 1));
        assert_eq!((rows[0].members, rows[1].members, rows[0].left.len()), (2, 3, 1));
        let heals = seen.heals();
        assert_eq!((heals[0].bytes, heals[0].seconds), (2 * 3 * pair + 7, Some(2.0)));
        assert_eq!(seen.slivers_due(3, (0, start + 5 * SECOND)), 2 * 3 * 2);
        assert_eq!(seen.slivers_due(3, (1, start + 20 * SECOND)), 3 * 3 * 2);
    }
}
