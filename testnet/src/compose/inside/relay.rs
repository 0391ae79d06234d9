//! What networks have that are made for chaos: a relay between their nodes, and a keeper of disks that are in memory.

use node::cli::{Exit, Failure, interrupted};

use crate::{
    compose::Spec,
    relay::{Behind, Relays, Sources, control},
};

/// Stands for each node of a network before the others, until this process is asked to end.
///
/// # Errors
///
/// If the network has no relay, or a port is taken.
pub async fn relay(spec: &Spec) -> Result<(), Failure> {
    let seed = spec
        .relay_seed()
        .ok_or_else(|| Failure::new(Exit::Usage, "this network has no relay").hint("give --relay-seed"))?;
    let relays = Relays::start(&behind(spec), sources(spec), seed).await?;
    tokio::select! {
        failed = control::obey(spec.control(), &relays) => failed,
        _ = interrupted() => Ok(()),
    }
}

/// Uses the volumes that are mounted until this process is asked to end, and does nothing.
pub async fn keep() {
    interrupted().await;
}

fn behind(spec: &Spec) -> Vec<Behind> {
    let of =
        |node| Behind { node: usize::from(node), relay: spec.relay_of(node), address: spec.address(node) };
    (0..spec.n_all()).map(of).collect()
}

fn sources(spec: &Spec) -> Sources {
    Sources::Addresses((0..spec.n_all()).map(|node| (spec.ip(node).into(), usize::from(node))).collect())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::compose::spec::tests::spec;

    #[test]
    fn what_others_are_told_of_a_node_leads_to_it() {
        let spec = spec("--nodes 10 --operators 2 --relay-seed 3").unwrap();
        let (behind, Sources::Addresses(sources)) = (behind(&spec), sources(&spec)) else { panic!() };
        assert_eq!((behind.len(), sources.len()), (12, 12));
        for (node, relayed) in (0..12).zip(&behind) {
            let place = spec.place(node);
            assert_eq!(place.external.port(), relayed.relay.port());
            assert_eq!(place.external.ip(), Some(spec.relay_ip().into()));
            assert_eq!(place.listen.ip(), Some(relayed.address.ip()));
            assert_eq!(place.listen.port(), relayed.address.port());
            assert_eq!(sources[&relayed.address.ip()], relayed.node);
        }
        assert!(!sources.contains_key(&IpAddr::from(spec.relay_ip())));
        assert!(behind.iter().all(|relayed| relayed.relay.port() != spec.control().port()));
    }
}
