//! The conformance suite on the simulated network, and on libp2p over loopback TCP and QUIC.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{net::Ipv4Addr, time::Duration};

use protocol::{NetworkId, PeerId};
use swarm::{
    Address, Limits,
    address::Transport,
    conformance::{self, Factory, Made},
    live::{Live, LiveConfig, LiveNetwork, SecretKey},
    simulated::{Plan, SimulatedNetwork, Simulation},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// No test of the suite takes longer, unless something hangs.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);

struct SimulatedFactory {
    simulation: Option<Simulation>,
    made: u8,
}

impl SimulatedFactory {
    const fn new() -> Self {
        Self { simulation: None, made: 0 }
    }

    fn next(&mut self) -> PeerId {
        self.made += 1;
        PeerId([self.made; 32])
    }
}

impl Factory for SimulatedFactory {
    type Network = SimulatedNetwork;

    async fn make(&mut self, network: NetworkId, limits: Limits) -> Made<SimulatedNetwork> {
        let peer = self.next();
        let simulation = self.simulation.get_or_insert_with(|| Simulation::new(Plan::new(1))).clone();
        let (handle, inbound) = simulation.join(peer, network);
        simulation.set_limits(peer, limits);
        let addresses = vec![simulation.address(peer)];
        Made { network: handle, inbound, addresses, stop: Box::new(move || simulation.crash(peer)) }
    }

    fn nobody(&mut self) -> (PeerId, Address) {
        (self.next(), "/ip4/10.0.0.1/tcp/1".parse().unwrap())
    }
}

struct LiveFactory {
    transport: Transport,
    made: u8,
    loops: JoinSet<()>,
}

impl LiveFactory {
    fn new(transport: Transport) -> Self {
        Self { transport, made: 0, loops: JoinSet::new() }
    }

    fn secret(&mut self) -> SecretKey {
        self.made += 1;
        SecretKey::new([self.made; 32])
    }
}

impl Factory for LiveFactory {
    type Network = LiveNetwork;

    async fn make(&mut self, network: NetworkId, limits: Limits) -> Made<LiveNetwork> {
        let listen = vec![Address::new(Ipv4Addr::LOCALHOST.into(), self.transport, 0)];
        let config = LiveConfig { listen, limits, ..LiveConfig::new(self.secret(), network) };
        let (network, inbound, event_loop) = Live::start(config).await.unwrap();
        let stop = CancellationToken::new();
        self.loops.spawn(event_loop.run(stop.clone()));
        let addresses = network.listen_addresses().to_vec();
        Made { network, inbound, addresses, stop: Box::new(move || stop.cancel()) }
    }

    fn nobody(&mut self) -> (PeerId, Address) {
        // A port that was free a moment ago.
        let port =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        (self.secret().peer(), Address::new(Ipv4Addr::LOCALHOST.into(), self.transport, port))
    }
}

fn simulated(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

fn live(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(TEST_TIMEOUT, test).await.expect("the test ends") });
}

macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod over_the_simulation {
            use super::*;
            $(#[test] fn $test() { simulated(async { conformance::$test(&mut SimulatedFactory::new()).await }); })*
        }
        mod over_tcp {
            use super::*;
            $(#[test] fn $test() { live(async { conformance::$test(&mut LiveFactory::new(Transport::Tcp)).await }); })*
        }
        mod over_quic {
            use super::*;
            $(#[test] fn $test() { live(async { conformance::$test(&mut LiveFactory::new(Transport::Quic)).await }); })*
        }
    };
}

suite!(
    frames_of_every_size_travel,
    many_requests_are_in_flight,
    oversized_frames_are_refused,
    refusals_reach_the_caller,
    nobody_is_unreachable,
    a_request_dials,
    a_stopped_node_closes,
    a_timeout_is_kept,
    gossip_reaches_all_once,
    rejected_gossip_stays,
    another_network_is_not_talked_to,
    a_stuck_node_refuses,
    one_peer_does_not_take_all,
    a_reported_peer_is_refused,
);
