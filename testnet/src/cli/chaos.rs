//! `floe-testnet chaos`.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use clap::{ValueEnum, value_parser};
use node::cli::{Failure, Output, duration, interrupted, output::note};

use crate::{
    chaos::{
        containers::Engine,
        fault::Kind,
        page::page,
        plan::{Terms, plan},
        processes::Processes,
        report::Report,
        run::{self, Settings, show},
        target::{NetworkSpec, Target},
    },
    churn::plan::STAKE,
    compose::{IMAGE, check_engine},
};

/// Says that this program has mounts of its own already.
const MOUNTS_VARIABLE: &str = "FLOE_TESTNET_MOUNTS";

/// On what faults are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Place {
    /// Processes of this machine
    Processes,
    /// Containers with addresses of their own, of the image that testnet/image builds
    Compose,
}

/// Arguments of the command.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// On what: a network that this command starts, and ends
    #[arg(long, value_enum, default_value = "processes")]
    target: Place,
    /// Decides what happens, and when
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// For how long faults come
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    duration: Duration,
    /// Kinds of faults [default: all in which fewer nodes are hit than may be faulty]
    #[arg(long, value_enum, value_name = "KIND,...", value_delimiter = ',')]
    faults: Vec<Kind>,
    /// The directory of the network, empty or not there yet; it is left as it is in the end [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 7)]
    nodes: u16,
    /// Number of shards
    #[arg(long, value_name = "N", default_value_t = 13)]
    shards: u16,
    /// How long an epoch takes
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
    epoch: Duration,
    /// Operations of clients a minute, if the network keeps up
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = value_parser!(u32).range(1..=60_000))]
    rate: u32,
    /// Write the report to this directory, as chaos.html and chaos.json
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    plan: bool,
}

impl Args {
    fn settings(&self) -> Settings {
        let within = || Kind::ALL.into_iter().filter(|kind| kind.is_within_model()).collect();
        Settings {
            seed: self.seed,
            duration: self.duration,
            kinds: if self.faults.is_empty() { within() } else { self.faults.clone() },
            pause: Duration::from_secs(60) / self.rate,
            epoch: self.epoch,
        }
    }
}

/// Gives this program mounts of its own, if it may have them: by beginning anew. Those that it makes then are seen by nobody else, and
/// end with it, however that is. Returns why it may not.
pub(super) fn own_mounts(args: &Args) -> Option<String> {
    let may_mount = args.target == Place::Processes && !args.plan;
    if !may_mount
        || !args.settings().kinds.contains(&Kind::Fill)
        || std::env::var_os(MOUNTS_VARIABLE).is_some()
    {
        return None;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]);
        command
    };
    let is_possible = unshare().arg("true").stdin(Stdio::null()).stderr(Stdio::null()).status();
    if !is_possible.is_ok_and(|status| status.success()) {
        return Some("small disks have to be mounted, which takes root and unshare(1)".to_owned());
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return Some(format!("this program is not found: {error}")),
    };
    let error = unshare().arg(program).args(std::env::args_os().skip(1)).env(MOUNTS_VARIABLE, "1").exec();
    Some(format!("this program could not begin anew: {error}"))
}

pub(super) async fn execute(args: Args, no_disks: Option<String>, output: Output) -> Result<(), Failure> {
    let settings = args.settings();
    if args.plan {
        return show_plan(&args, settings, output);
    }
    // Removed when this function ends, after the network in it.
    let temporary;
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => {
            temporary = tempfile::Builder::new()
                .prefix("floe-chaos-")
                .tempdir()
                .map_err(|error| Failure::io("cannot create a temporary directory", &error))?;
            temporary.path().join("testnet")
        }
    };
    let is_wanted = settings.kinds.contains(&Kind::Fill);
    let no_disks = no_disks.or_else(|| (!is_wanted).then(|| "no disk is to be filled".to_owned()));
    let Args { seed, nodes, shards, epoch, .. } = args;
    let made = NetworkSpec { seed, nodes, shards, epoch, stake: STAKE, no_disks };
    let report = match args.target {
        Place::Compose => {
            check_engine().await?;
            let mut target = Engine::start(&dir, &made, IMAGE).await?;
            break_and_close(&mut target, &settings).await?
        }
        Place::Processes => {
            let mut target = Processes::start(&dir, &made).await?;
            break_and_close(&mut target, &settings).await?
        }
    };
    if let Some(dir) = &args.report {
        save(dir, &report)?;
    }
    output.data(&report, report.text())?;
    report.check()
}

/// Whatever comes of it, also if it is interrupted, the network is ended.
async fn break_and_close<T: Target>(target: &mut T, settings: &Settings) -> Result<Report, Failure> {
    let result = tokio::select! {
        result = Box::pin(run::run(target, settings)) => result,
        interrupted = interrupted() => Err(interrupted),
    };
    let closed = target.close().await;
    let report = result?;
    closed?;
    Ok(report)
}

fn show_plan(args: &Args, settings: Settings, output: Output) -> Result<(), Failure> {
    let spread = protocol::committee::spread(args.shards, args.nodes);
    let weights = spread.iter().map(|shards| u16::try_from(shards.len()).unwrap_or(u16::MAX)).collect();
    let Settings { seed, duration, kinds, .. } = settings;
    let max_faulty = protocol::quorum::max_faulty(args.shards);
    let faults = plan(&Terms { seed, duration, kinds, weights, max_faulty });
    if output.json {
        return output.data(&faults, "");
    }
    show(&faults);
    Ok(())
}

fn save(dir: &Path, report: &Report) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("cannot write to {}", dir.display()), &error);
    fs::create_dir_all(dir).map_err(failed)?;
    fs::write(dir.join("chaos.html"), page(report)?).map_err(failed)?;
    let json = serde_json::to_vec_pretty(report).map_err(|error| failed(error.into()))?;
    fs::write(dir.join("chaos.json"), json).map_err(failed)?;
    note(format_args!("the report is in {}", dir.display()));
    Ok(())
}
