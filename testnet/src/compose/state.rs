//! What an engine says of containers, read from its JSON.

use std::{collections::BTreeMap, net::Ipv4Addr};

use node::cli::{Exit, Failure};
use serde::{Deserialize, Serialize};

/// The label by which compose names a service.
const SERVICE_LABEL: &str = "com.docker.compose.service";

/// A container of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Container {
    /// The service.
    pub service: String,
    /// The engine's name for it.
    pub id: String,
    /// What it is doing.
    pub status: Status,
    /// What its health check says; none if it has none.
    pub health: Option<Health>,
    /// The number of its process on this machine, if it has one.
    pub pid: Option<i32>,
    /// How often the engine started it again by itself.
    pub restarts: u32,
    /// How its last process ended; 0 if none has.
    pub exit_code: i32,
    /// Its last process was ended because it took too much memory.
    pub out_of_memory: bool,
    /// Its address on the network; none while it is not connected.
    pub ip: Option<Ipv4Addr>,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was never started.
    Created,
    /// It runs.
    Running,
    /// It runs, and is given no time.
    Paused,
    /// It ended, and is started again soon.
    Restarting,
    /// It ended.
    Exited,
    /// It is being removed.
    Removing,
    /// It could not be removed.
    Dead,
}

impl Status {
    /// True if it has a process.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// The engine's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }
}

/// What a health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// There is no check.
    None,
    /// It did not succeed yet, and need not.
    Starting,
    /// It succeeds.
    Healthy,
    /// It failed several times in a row.
    Unhealthy,
}

impl Container {
    /// True if it runs, and its health check succeeds.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.status == Status::Running && self.health == Some(Health::Healthy)
    }

    /// How it is, in a few words.
    #[must_use]
    pub fn text(&self) -> String {
        let health = match self.health {
            Some(Health::Healthy) => ", healthy",
            Some(Health::Unhealthy) => ", unhealthy",
            Some(Health::Starting) => ", starting",
            Some(Health::None) | None => "",
        };
        let end = match self.status {
            Status::Exited | Status::Restarting => format!(" with code {}", self.exit_code),
            _ => String::new(),
        };
        let why = if self.out_of_memory { ", out of memory" } else { "" };
        format!("{}{end}{why}{}", self.status.name(), if self.status.is_alive() { health } else { "" })
    }
}

/// One of `docker inspect`. Of what an engine says there, this is what all versions have.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    restart_count: u32,
    state: InspectedState,
    config: InspectedConfig,
    network_settings: InspectedNetworks,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    status: Status,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    pid: i32,
    exit_code: i32,
    health: Option<InspectedHealth>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedHealth {
    status: Health,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedNetworks {
    networks: BTreeMap<String, InspectedNetwork>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedNetwork {
    #[serde(rename = "IPAddress")]
    ip_address: String,
}

/// Reads what `docker inspect` says of containers; `network` is the engine's name of the network they are on.
///
/// # Errors
///
/// If it is not what an engine says.
pub(super) fn parse(json: &str, network: &str) -> Result<BTreeMap<String, Container>, Failure> {
    let inspected: Vec<Inspected> = serde_json::from_str(json).map_err(|error| {
        Failure::because(Exit::Other, "the Docker engine's answer is not understood", &error)
    })?;
    let containers = inspected.into_iter().filter_map(|inspected| {
        let Inspected { id, restart_count, state, config, network_settings } = inspected;
        let service = config.labels?.remove(SERVICE_LABEL)?;
        let container = Container {
            service: service.clone(),
            id,
            status: state.status,
            health: state.health.map(|health| health.status).filter(|health| *health != Health::None),
            pid: Some(state.pid).filter(|pid| *pid > 0),
            restarts: restart_count,
            exit_code: state.exit_code,
            out_of_memory: state.oom_killed,
            ip: network_settings.networks.get(network).and_then(|network| network.ip_address.parse().ok()),
        };
        Some((service, container))
    });
    Ok(containers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an engine of version 20.10 says it, but for much that is left out.
    fn inspected(state: &str, networks: &str) -> String {
        format!(
            r#"[{{"Id": "abc", "RestartCount": 2, "Image": "sha256:1", "State": {state},
            "Config": {{"User": "", "Labels": {{"com.docker.compose.service": "node-1", "a": "b"}}}},
            "NetworkSettings": {{"Bridge": "", "Networks": {networks}}}}},
            {{"Id": "def", "RestartCount": 0, "State": {state}, "Config": {{"Labels": null}}, "NetworkSettings": {{"Networks": {{}}}}}}]"#
        )
    }

    const STATE: &str = r#"{"Status": "running", "Running": true, "Paused": false, "OOMKilled": false, "Dead": false,
        "Pid": 4711, "ExitCode": 0, "Health": {"Status": "healthy", "FailingStreak": 0, "Log": []}}"#;

    #[test]
    fn a_container_is_read_with_its_address() {
        let networks = r#"{"p_floe": {"IPAddress": "10.1.2.3", "IPAMConfig": null}}"#;
        let containers = parse(&inspected(STATE, networks), "p_floe").unwrap();
        assert_eq!(containers.len(), 1);
        let container = &containers["node-1"];
        assert_eq!((container.id.as_str(), container.pid, container.restarts), ("abc", Some(4711), 2));
        assert_eq!(container.ip, Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert!(container.is_healthy());
        assert_eq!(container.text(), "running, healthy");
        assert_eq!(parse(&inspected(STATE, networks), "other").unwrap()["node-1"].ip, None);
    }

    #[test]
    fn a_container_that_is_down_has_no_process_and_no_address() {
        let state = r#"{"Status": "exited", "OOMKilled": true, "Pid": 0, "ExitCode": 137, "Health": {"Status": "healthy"}}"#;
        let containers = parse(&inspected(state, r#"{"p_floe": {"IPAddress": ""}}"#), "p_floe").unwrap();
        let container = &containers["node-1"];
        assert_eq!((container.pid, container.ip, container.is_healthy()), (None, None, false));
        assert_eq!(container.text(), "exited with code 137, out of memory");
    }

    #[test]
    fn states_are_told_apart() {
        for (status, health, text) in [
            ("created", "null", "created"),
            ("paused", r#"{"Status": "unhealthy"}"#, "paused, unhealthy"),
            ("running", r#"{"Status": "starting"}"#, "running, starting"),
            ("running", r#"{"Status": "none"}"#, "running"),
            ("restarting", "null", "restarting with code 1"),
            ("removing", "null", "removing"),
            ("dead", "null", "dead"),
        ] {
            let state = format!(
                r#"{{"Status": "{status}", "OOMKilled": false, "Pid": 0, "ExitCode": 1, "Health": {health}}}"#
            );
            let containers = parse(&inspected(&state, "{}"), "p_floe").unwrap();
            assert_eq!(containers["node-1"].text(), text);
            assert!(!containers["node-1"].is_healthy());
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for json in ["", "{}", "[{}]", &inspected(r#"{"Status": "asleep"}"#, "{}")] {
            assert!(parse(json, "p_floe").unwrap_err().to_string().contains("not understood"), "{json}");
        }
        assert!(parse("[]", "p_floe").unwrap().is_empty());
    }
}
