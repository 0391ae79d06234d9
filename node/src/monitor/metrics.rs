//! Every number that a node shows, with its name, its unit and what it means.
//!
//! Names begin with `floe_`, then the part of the node; the unit is at the end, and counters end in `_total`. Labels are of closed
//! sets, so that a stranger cannot make the list longer.

use std::{collections::BTreeSet, fmt, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, NoLabelSet,
        text,
    },
    metrics::MetricType,
    registry::{Registry, Unit},
};
use protocol::{
    PeerId,
    ledger::state::{Corrupt, entry::Stage},
    quorum::quorum,
};
use storage::Stats;
use swarm::{QueueLoad, traffic::Traffic};
use tokio::time::timeout;

use super::{Subject, process::Process};
use crate::{
    ledger::View,
    membership::{Roster, Seat},
    node::Handles,
};

/// What the text is, for whoever asks.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long the disk may take to tell how full it is; without it, there is no word of that.
const DISK_TIMEOUT: Duration = Duration::from_secs(2);

/// The metrics of a node as OpenMetrics text.
///
/// Cancel safe: yes.
///
/// # Errors
///
/// If the text cannot be written, which is a bug.
pub async fn metrics(subject: &Subject) -> Result<String, fmt::Error> {
    let disk = timeout(DISK_TIMEOUT, subject.handles.store.look(|store| store.stats())).await;
    let disk = disk.ok().and_then(Result::ok).flatten();
    let page = Page { subject: subject.clone(), disk, process: Process::of_this() };
    let mut registry = Registry::with_prefix("floe");
    registry.register_collector(Box::new(page));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// A number with a name.
struct Metric {
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
}

const fn number(name: &'static str, help: &'static str) -> Metric {
    Metric { name, unit: None, help }
}

const fn bytes(name: &'static str, help: &'static str) -> Metric {
    Metric { name, unit: Some(Unit::Bytes), help }
}

const fn seconds(name: &'static str, help: &'static str) -> Metric {
    Metric { name, unit: Some(Unit::Seconds), help }
}

/// Writes metrics one after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    /// A number that goes up and down.
    fn gauge(&mut self, metric: &Metric, value: impl EncodeGaugeValue) -> fmt::Result {
        let Metric { name, unit, help } = metric;
        self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        metric: &Metric,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let Metric { name, unit, help } = metric;
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in values {
            encoder.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A number that only grows, from the start of the node on.
    fn counter(&mut self, metric: &Metric, value: impl EncodeCounterValue) -> fmt::Result {
        let Metric { name, unit, help } = metric;
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        metric: &Metric,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let Metric { name, unit, help } = metric;
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in values {
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn info(&mut self, metric: &Metric, labels: &impl EncodeLabelSet) -> fmt::Result {
        let Metric { name, unit, help } = metric;
        self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Info)?.encode_info(labels)
    }
}

/// All metrics at one moment.
#[derive(Debug)]
struct Page {
    subject: Subject,
    disk: Option<Stats>,
    process: Option<Process>,
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        let Self { subject, disk, process } = self;
        let (handles, view) = (&subject.handles, subject.handles.ledger.view());
        // Only a broken ledger has none.
        let roster = Roster::of(&view.state, handles.membership.me()).ok();
        write_node(&mut writer, subject)?;
        if let Some(process) = process {
            write_process(&mut writer, process)?;
        }
        write_mailboxes(&mut writer, subject)?;
        write_ledger(&mut writer, handles, &view)?;
        if let Some(roster) = &roster {
            write_epoch(&mut writer, roster, &view)?;
        }
        write_slivers(&mut writer, handles)?;
        write_disk(&mut writer, handles, disk.as_ref())?;
        write_repair(&mut writer, handles)?;
        write_server(&mut writer, handles)?;
        write_peers(&mut writer, handles, roster.as_ref())?;
        write_traffic(&mut writer, subject.network.as_ref().map(|live| live.traffic()).unwrap_or_default())
    }
}

fn write_node(writer: &mut Writer<'_>, subject: &Subject) -> fmt::Result {
    let peer = subject.handles.membership.me().to_string();
    let labels = [("name", subject.name.as_str()), ("peer", &peer), ("version", env!("CARGO_PKG_VERSION"))];
    writer.info(&number("node", "Name and identity of the node, and the version of its program"), &labels)?;
    writer.gauge(&seconds("uptime", "Time since the node started"), subject.uptime().as_secs_f64())?;
    let is_well = subject.health().is_well;
    writer.gauge(
        &number("healthy", "1 if the node can do its work, 0 if not; /health says why"),
        u32::from(is_well),
    )
}

fn write_process(writer: &mut Writer<'_>, process: &Process) -> fmt::Result {
    let Process { resident_bytes, threads, cpu_seconds, open_files } = *process;
    writer.gauge(&bytes("process_resident_memory", "Memory that the process holds"), resident_bytes)?;
    writer.gauge(&number("process_threads", "Threads of the process"), threads)?;
    writer
        .counter(&seconds("process_cpu", "Processor time of the process, on all its threads"), cpu_seconds)?;
    writer.gauge(&number("process_open_files", "Files and connections that the process has open"), open_files)
}

/// The mailboxes of the actors: the actor, the mailbox, how full it is.
fn mailboxes(subject: &Subject) -> Vec<([(&'static str, &'static str); 2], QueueLoad)> {
    let Handles { store, ledger, repair, encoder, inbound, turns, .. } = &subject.handles;
    let [peers, users] = ledger.load();
    let [control, gossip, bulk] = inbound.queues();
    // The coordinator looks when something has changed; nothing waits for it.
    let turns = QueueLoad { taken: turns.taken(), ..QueueLoad::default() };
    let mut loads = vec![
        ("encoder", "jobs", encoder.load()),
        ("sliver_store", "writes", store.load()),
        ("repair", "hints", repair.load()),
        ("coordinator", "turns", turns),
        ("ledger", "peers", peers),
        ("ledger", "users", users),
        ("server", "control", control),
        ("server", "gossip", gossip),
        ("server", "bulk", bulk),
    ];
    loads.extend(subject.network.as_ref().map(|live| ("network", "commands", live.load())));
    let labelled = |(actor, mailbox, load)| ([("actor", actor), ("mailbox", mailbox)], load);
    loads.into_iter().map(labelled).collect()
}

fn write_mailboxes(writer: &mut Writer<'_>, subject: &Subject) -> fmt::Result {
    let loads = mailboxes(subject);
    // What has no mailbox, as in a simulation the encoder, is never full.
    let real = || loads.iter().filter(|(_, load)| load.capacity > 0);
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    writer.gauges(
        &number("mailbox_messages", "Messages that wait in the mailbox of an actor"),
        real().map(|(labels, load)| (*labels, wide(load.waiting))),
    )?;
    writer.gauges(
        &number("mailbox_capacity_messages", "Messages that may wait in the mailbox of an actor"),
        real().map(|(labels, load)| (*labels, wide(load.capacity))),
    )?;
    writer.counters(
        &number("mailbox_refused_messages", "Messages that the mailbox of an actor had no room for"),
        real().map(|(labels, load)| (*labels, load.refused)),
    )?;
    writer.counters(
        &number("mailbox_handled_messages", "Messages that an actor took up"),
        loads.iter().map(|(labels, load)| (*labels, load.taken)),
    )
}

/// Milliseconds as seconds.
fn from_ms(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

fn write_ledger(writer: &mut Writer<'_>, handles: &Handles, view: &View) -> fmt::Result {
    let (round, waiting) = handles.ledger.pulse();
    writer.gauge(&number("ledger_height", "Height of the last block"), view.height())?;
    writer.gauge(
        &number("ledger_round", "Round of the height that is being decided; 0 also if none is"),
        round.unwrap_or(0),
    )?;
    writer.gauge(
        &seconds("ledger_waiting", "How long a block has been waited for; 0 while there is nothing to order"),
        waiting.as_secs_f64(),
    )?;
    let Ok(head) = view.state.head() else { return Ok(()) };
    writer.gauge(
        &seconds("ledger_last_block_timestamp", "Time of the last block, since 1970; 0 before the first"),
        from_ms(head.time_ms),
    )?;
    writer.gauge(&number("ledger_certified_blobs", "Certified blobs on the ledger"), head.n_available)
}

fn write_epoch(writer: &mut Writer<'_>, roster: &Roster, view: &View) -> fmt::Result {
    let now = match roster.stage {
        Stage::Steady => "steady",
        Stage::Selected { .. } => "selected",
        Stage::Handover { .. } => "handover",
    };
    writer.gauge(&number("epoch", "The epoch, as far as the node knows"), roster.epoch().0)?;
    writer.gauges(
        &number("epoch_stage", "1 for the stage that the epoch is in, 0 for the others"),
        ["steady", "selected", "handover"].map(|stage| ([("stage", stage)], u32::from(stage == now))),
    )?;
    let count = |seat: Option<Seat>| seat.map_or(0, |seat| seat.shards().len());
    let seat_on = |committee| Seat::of(committee, &roster.me);
    let shards = [
        ("current", count(roster.seat())),
        ("next", count(roster.next.as_ref().and_then(seat_on))),
        ("previous", count(roster.previous.as_ref().and_then(seat_on))),
    ];
    writer.gauges(
        &number("epoch_shards", "Shards of the node on a committee; 0 also if that does not matter now"),
        shards.map(|(committee, shards)| {
            ([("committee", committee)], u64::try_from(shards).unwrap_or(u64::MAX))
        }),
    )?;
    writer.gauge(
        &number(
            "epoch_ready",
            "1 if the node has said that it holds its shards, or has nothing to say; 0 if not",
        ),
        u32::from(is_ready(roster, view).unwrap_or(false)),
    )?;
    let ready = match roster.stage {
        Stage::Handover { ready_shards } => ready_shards,
        Stage::Steady | Stage::Selected { .. } => 0,
    };
    writer.gauge(
        &number("epoch_ready_shards", "Shards of members that are ready, in the handover; 0 at other times"),
        u32::from(ready),
    )?;
    writer.gauge(
        &number("epoch_quorum_shards", "Shards that end the handover once their members are ready"),
        u32::from(quorum(roster.n_shards())),
    )?;
    let due_ms = view.state.due_ms().ok().flatten().unwrap_or(0);
    let help = "Time at which the next stage begins, since 1970; 0 if that is not a matter of time";
    writer.gauge(&seconds("epoch_stage_end_timestamp", help), from_ms(due_ms))
}

fn is_ready(roster: &Roster, view: &View) -> Result<bool, Corrupt> {
    match roster.seat() {
        // The members of the genesis begin with nothing to take over.
        Some(seat) if roster.epoch().0 > 0 => view.state.is_ready(roster.epoch(), seat.node),
        _ => Ok(true),
    }
}

fn write_slivers(writer: &mut Writer<'_>, handles: &Handles) -> fmt::Result {
    let counts = handles.store.counts();
    writer.gauge(&number("slivers", "Slivers in the store"), counts.slivers)?;
    writer.gauge(&bytes("sliver", "Bytes of the slivers in the store"), counts.sliver_bytes)?;
    writer.gauge(
        &number("slivers_missing", "Slivers that the node should hold and does not, as of its last look"),
        handles.repair.report().missing,
    )?;
    writer.counter(
        &number(
            "slivers_corrupt",
            "Slivers and commitments that the disk had damaged, or that did not verify",
        ),
        handles.repair.corrupt(),
    )
}

fn write_disk(writer: &mut Writer<'_>, handles: &Handles, disk: Option<&Stats>) -> fmt::Result {
    writer.gauge(
        &bytes("disk_reserve", "Bytes of the disk that stay free in any case"),
        handles.store.reserve_bytes(),
    )?;
    let Some(Stats { live_bytes, log_bytes, n_logs, free_bytes, .. }) = disk else { return Ok(()) };
    writer.gauge(
        &bytes("disk_free", "Bytes free on the disk of the store, the reserve included"),
        *free_bytes,
    )?;
    writer.gauge(&bytes("store_log", "Length of the store's log files"), *log_bytes)?;
    writer.gauge(&bytes("store_live", "Bytes of the store's log files that are needed"), *live_bytes)?;
    writer.gauge(&number("store_log_files", "Log files of the store"), *n_logs)
}

fn write_repair(writer: &mut Writer<'_>, handles: &Handles) -> fmt::Result {
    let repair = &handles.repair;
    writer.counter(
        &bytes("repair_received", "Bytes that repair received from peers"),
        repair.received_bytes(),
    )?;
    writer.counter(
        &bytes("repair_regained", "Bytes of slivers that repair regained"),
        repair.regained_bytes(),
    )?;
    writer.counter(
        &number("repair_regained_slivers", "Slivers that repair regained"),
        repair.regained_slivers(),
    )?;
    writer.counter(
        &bytes("repair_sent", "Bytes of recovery symbols sent to peers that repair"),
        handles.served.symbol_bytes(),
    )?;
    let help = "1 if repair has looked at every blob and nothing waits, 0 if not";
    writer.gauge(&number("repair_settled", help), u32::from(repair.report().is_settled))
}

fn write_server(writer: &mut Writer<'_>, handles: &Handles) -> fmt::Result {
    let help = "Refusals to peers and clients by reason; `no_place`: too many requests were in hand";
    let refusals = handles.served.refusals();
    writer.counters(
        &number("server_refusals", help),
        refusals.into_iter().map(|(reason, count)| ([("reason", reason)], count)),
    )?;
    let help = "How long requests took, by kind, refused ones included";
    let metric = seconds("server_request_duration", help);
    let unit = metric.unit.as_ref();
    let mut encoder = writer.0.encode_descriptor(metric.name, metric.help, unit, MetricType::Histogram)?;
    for (kind, seconds) in handles.served.seconds() {
        seconds.encode(encoder.encode_family(&[("kind", kind)])?)?;
    }
    Ok(())
}

/// What a peer is to this node: its name in metrics.
fn role(roster: Option<&Roster>, bootstrap: &BTreeSet<PeerId>, peer: &PeerId) -> &'static str {
    match peer {
        peer if roster.is_some_and(|roster| roster.is_member(peer)) => "member",
        peer if bootstrap.contains(peer) => "bootstrap",
        _ => "other",
    }
}

fn write_peers(writer: &mut Writer<'_>, handles: &Handles, roster: Option<&Roster>) -> fmt::Result {
    let connected = handles.peers.peers();
    let of_role = |wanted: &str| {
        let peers = connected.iter().filter(|peer| role(roster, &handles.bootstrap, peer) == wanted);
        u64::try_from(peers.count()).unwrap_or(u64::MAX)
    };
    writer.gauges(
        &number("network_peers", "Peers connected, by what they are to the node"),
        ["member", "bootstrap", "other"].map(|role| ([("role", role)], of_role(role))),
    )?;
    let facts = super::Facts::of(roster, |peer| connected.contains(peer), Duration::ZERO);
    let help = "Shards of the committee whose members are connected, the node's own included";
    writer.gauge(&number("network_connected_shards", help), u32::from(facts.connected_shards))?;
    let help = "Shards that must be connected for the node to do its work";
    writer.gauge(&number("network_required_shards", help), u32::from(facts.required_shards))
}

fn write_traffic(writer: &mut Writer<'_>, traffic: Traffic) -> fmt::Result {
    let Traffic { dropped, gossip, offences } = traffic;
    let help = "Requests, answers, messages and connections that a limit of the network kept out, by limit";
    writer.counters(
        &number("network_dropped", help),
        dropped.counts().into_iter().map(|(limit, count)| ([("limit", limit.name())], count)),
    )?;
    let gossip = gossip.counts().into_iter();
    writer.counters(
        &number("network_gossip_messages", "Messages on topics, by topic and by what became of them"),
        gossip
            .map(|((topic, outcome), count)| ([("topic", topic.name()), ("outcome", outcome.name())], count)),
    )?;
    let help = "Rules that peers broke";
    writer.counters(
        &number("network_offences", help),
        offences.counts().into_iter().map(|(offence, count)| ([("offence", offence.name())], count)),
    )
}
