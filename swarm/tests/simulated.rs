//! The simulated network: determinism, faults, cost.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bytes::Bytes;
use protocol::{NetworkId, PeerId};
use swarm::{
    Channel, Frame, Inbound, InboundReceiver, Network as _, PeerRole, RequestError, Topic,
    simulated::{Link, Plan, SimulatedNetwork, Simulation, Trace},
};
use tokio::{task::JoinSet, time::Instant};

const NETWORK: NetworkId = NetworkId([9; 32]);
const SECOND: Duration = Duration::from_secs(1);

fn peer(i: u8) -> PeerId {
    PeerId([i; 32])
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test)
}

/// Answers every request with its own frame, and accepts all gossip; returns how much gossip it got.
async fn serve(mut inbound: InboundReceiver) -> usize {
    let mut gossip = 0;
    while let Some(inbound) = inbound.recv().await {
        match inbound {
            Inbound::Request { frame, reply, .. } => reply.send(frame).unwrap(),
            Inbound::Gossip { verdict, .. } => {
                gossip += 1;
                verdict.accept();
            }
            Inbound::Connected(_) | Inbound::Disconnected(_) => {}
        }
    }
    gossip
}

struct Cluster {
    simulation: Simulation,
    networks: Vec<SimulatedNetwork>,
    servers: JoinSet<usize>,
}

async fn cluster(plan: Plan, n: u8) -> Cluster {
    let simulation = Simulation::new(plan);
    let mut servers = JoinSet::new();
    let mut networks = Vec::new();
    for i in 0..n {
        let (network, inbound) = simulation.join(peer(i), NETWORK);
        servers.spawn(serve(inbound));
        networks.push(network);
    }
    for network in &networks {
        for i in 0..n {
            network.add_peer(peer(i), vec![simulation.address(peer(i))], PeerRole::Member);
        }
    }
    for network in &networks {
        assert!(network.connected().wait_until(|peers| peers.len() == usize::from(n) - 1).await);
    }
    Cluster { simulation, networks, servers }
}

fn frame(bytes: usize) -> Frame {
    Frame::new(vec![1], vec![2; bytes])
}

async fn busy_run(seed: u64) -> Trace {
    let mut plan = Plan::new(seed);
    plan.link.loss = 0.05;
    plan.duplicate = 0.1;
    let Cluster { simulation, networks, servers: _servers } = cluster(plan, 7).await;
    let mut tasks = JoinSet::new();
    for (i, network) in networks.iter().enumerate() {
        let network = network.clone();
        tasks.spawn(async move {
            for round in 0..20_usize {
                let to = peer(u8::try_from((i + 1 + round % 6) % 7).unwrap());
                let _ = network.request(to, Channel::Bulk, frame(round), SECOND).await;
                let _ = network.publish(Topic::Ledger, Bytes::from(vec![0; round])).await;
            }
        });
    }
    tokio::time::sleep(SECOND / 10).await;
    simulation.partition(&[&[peer(0), peer(1)], &[peer(2), peer(3), peer(4)]]);
    tokio::time::sleep(2 * SECOND).await;
    simulation.crash(peer(6));
    simulation.heal();
    while tasks.join_next().await.is_some() {}
    simulation.trace()
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..10 {
        let trace = run(busy_run(seed));
        assert!(trace.events > 500, "{trace:?}");
        assert_eq!(run(busy_run(seed)), trace, "seed {seed}");
        assert_ne!(run(busy_run(seed + 1)).hash, trace.hash, "seed {seed}");
    }
}

#[test]
fn a_crash_closes_requests_and_a_new_start_is_found_again() {
    run(async {
        let Cluster { simulation, networks, mut servers } = cluster(Plan::new(1), 4).await;
        let asks = networks[0].request(peer(1), Channel::Bulk, frame(1), SECOND);
        let crashes = async { simulation.crash(peer(1)) };
        assert_eq!(futures::join!(asks, crashes).0, Err(RequestError::Closed));
        assert_eq!(servers.join_next().await.unwrap().unwrap(), 0, "its receiver ends");
        assert_eq!(
            networks[1].request(peer(0), Channel::Bulk, frame(1), SECOND).await,
            Err(RequestError::Stopped)
        );
        assert_eq!(
            networks[0].request(peer(1), Channel::Bulk, frame(1), SECOND).await,
            Err(RequestError::Unreachable)
        );
        let (_network, inbound) = simulation.join(peer(1), NETWORK);
        servers.spawn(serve(inbound));
        assert!(networks[0].connected().wait_until(|peers| peers.contains(&peer(1))).await);
        assert!(networks[0].request(peer(1), Channel::Bulk, frame(1), SECOND).await.is_ok());
    });
}

#[test]
fn a_one_way_cut_times_out_and_is_noticed() {
    run(async {
        let Cluster { simulation, networks, servers: _servers } = cluster(Plan::new(2), 2).await;
        simulation.cut(peer(1), peer(0));
        let asked = Instant::now();
        let answer = networks[0].request(peer(1), Channel::Control, frame(1), SECOND).await;
        assert_eq!(answer, Err(RequestError::Timeout));
        assert_eq!(asked.elapsed(), SECOND);
        assert!(networks[0].connected().wait_until(|peers| peers.is_empty()).await);
        simulation.heal();
        assert!(networks[1].connected().wait_until(|peers| !peers.is_empty()).await);
        assert!(networks[0].request(peer(1), Channel::Control, frame(1), SECOND).await.is_ok());
    });
}

#[test]
fn a_slow_link_delays_by_its_rate() {
    run(async {
        let Cluster { simulation, networks, servers: _servers } = cluster(Plan::new(3), 2).await;
        simulation.set_link(peer(0), peer(1), Link { bytes_per_second: Some(1_000), ..Link::default() });
        let asked = Instant::now();
        networks[0].request(peer(1), Channel::Bulk, frame(3_999), 10 * SECOND).await.unwrap();
        assert!(asked.elapsed() >= 4 * SECOND && asked.elapsed() < 5 * SECOND, "{:?}", asked.elapsed());
    });
}

#[test]
fn gossip_outlasts_losses() {
    run(async {
        let mut plan = Plan::new(4);
        plan.link.loss = 0.3;
        let Cluster { simulation, networks, mut servers } = cluster(plan, 10).await;
        for _ in 0..20 {
            networks[0].publish(Topic::Epoch, Bytes::from_static(b"epoch")).await.unwrap();
        }
        tokio::time::sleep(10 * SECOND).await;
        for i in 0..10 {
            simulation.crash(peer(i));
        }
        let mut got = Vec::new();
        while let Some(count) = servers.join_next().await {
            got.push(count.unwrap());
        }
        got.sort_unstable();
        assert_eq!(got, [0, 20, 20, 20, 20, 20, 20, 20, 20, 20]);
    });
}

#[test]
fn requests_are_cheap() {
    run(async {
        let Cluster { simulation: _kept, networks, servers: _servers } = cluster(Plan::new(5), 10).await;
        let payload = Bytes::from(vec![0; 240 * 1024]);
        for round in 0..2_000_u16 {
            let to = peer(u8::try_from(1 + round % 9).unwrap());
            let frame = Frame::new(vec![0; 64], payload.clone());
            networks[0].request(to, Channel::Bulk, frame, 10 * SECOND).await.unwrap();
        }
    });
}
