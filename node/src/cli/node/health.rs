//! `floe node health`: whether the node of a directory is well, for whatever starts it again or routes to it.
//!
//! It asks the node itself, on this machine. Nothing needed is outside this program: a container without a shell can run it.

use std::{path::PathBuf, time::Duration};

use crate::{
    cli::{Exit, Failure, Output},
    config::NodeConfig,
    monitor::{Health, ask_health},
};

/// How long a node may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The node's directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(super) async fn execute(args: Args, output: Output) -> Result<(), Failure> {
    // Whatever is wrong, the code is the same: those who check containers know only two.
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(Exit::Other, error);
    let config = NodeConfig::load(&args.dir).map_err(|error| failed(&error))?;
    let Some(listen) = config.metrics.listen else {
        let what = "the node does not show its health: metrics are off";
        let hint = "set listen = \"127.0.0.1:9464\" under [metrics] in its config.toml, and start it again";
        return Err(Failure::new(Exit::Other, what).hint(hint));
    };
    let health = ask_health(listen, ANSWER_MAX).await.map_err(|error| failed(&error))?;
    report(&health, output)
}

fn report(health: &Health, output: Output) -> Result<(), Failure> {
    let Health { name, height, epoch, connected_shards, required_shards, .. } = health;
    let Some(reason) = health.reason.as_deref().filter(|_| !health.is_well) else {
        let text = format!(
            "{name} is well: height {height}, epoch {epoch}, connected to {connected_shards} shards of the {required_shards} needed"
        );
        return output.data(health, text);
    };
    if output.json {
        output.data(health, "")?;
    }
    Err(Failure::new(Exit::Other, format!("{name} is not well: {reason}")))
}

#[cfg(test)]
mod tests {
    use protocol::{Epoch, PeerId};

    use super::*;

    #[test]
    fn who_is_not_well_is_a_failure_with_the_reason_in_one_line() {
        let well = Health {
            is_well: true,
            reason: None,
            name: "a".to_owned(),
            peer: PeerId([1; 32]),
            uptime_seconds: 1,
            height: 2,
            epoch: Epoch(3),
            waiting_seconds: 0,
            connected_shards: 7,
            required_shards: 5,
            slivers_missing: 0,
        };
        report(&well, Output { json: false }).unwrap();
        let ill = Health { is_well: false, reason: Some("it is late".to_owned()), ..well };
        let failure = report(&ill, Output { json: false }).unwrap_err();
        assert_eq!(
            (failure.exit(), failure.to_string().as_str()),
            (Exit::Other, "a is not well: it is late")
        );
    }
}
