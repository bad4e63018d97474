//! What a variant runs with, as far as that is its own business.

use sraft_core::{Protocol, TimingKnobs};

use super::Backend;
use crate::{
    experiment::{Experiment, Variant},
    fault::list,
    system::{self, System},
};

/// The system of a variant; else the key that is to blame, and why.
pub(super) fn system(
    variant: &Variant,
    backend: Backend,
) -> Result<&'static dyn System, (&'static str, String)> {
    let name = &variant.system;
    let Some(system) = system::named(name) else {
        let known: Vec<&str> = system::names().collect();
        return Err(("system", format!("there is no system `{name}`; there are {}", list(&known))));
    };
    if backend == Backend::Sim && !system.simulated() {
        let message = format!("{name} cannot be simulated; write backend = \"local\"");
        return Err(("system", message));
    }
    Ok(system)
}

/// The protocol of a variant.
pub(super) fn protocol(variant: &Variant, system: &dyn System) -> Result<Protocol, String> {
    match (system.only(), variant.protocol) {
        (None, Some(protocol)) => Ok(protocol),
        (None, None) => {
            Err("protocol is missing; add protocol = \"raft\" or \"s-raft\"".to_owned())
        }
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => {
            Err(format!("{} has no choice of protocols; remove protocol", system.name()))
        }
    }
}

/// The knobs that a variant sets itself; else the key that is to blame, and why.
pub(super) fn timing(
    experiment: &Experiment,
    variant: &Variant,
    system: &dyn System,
) -> Result<TimingKnobs, (&'static str, String)> {
    let mut own = variant.timing.clone();
    let mut key = "timing";
    let chosen = experiment.timings.as_ref().and_then(|chosen| variant.timings.get(chosen));
    if let Some(timings) = chosen {
        own = own.overridden_by(timings);
        key = "timings";
    }
    let known = system.knobs();
    let given = serde_json::to_value(&own).expect("plain data can be written as JSON");
    let given = given.as_object().into_iter().flat_map(|knobs| knobs.keys());
    let unknown: Vec<&String> =
        given.filter(|knob| !known.is_empty() && !known.contains(&knob.as_str())).collect();
    if let Some(knob) = unknown.first() {
        let message = format!("{} has no {knob}; it has {}", system.name(), list(known));
        return Err((key, message));
    }
    Ok(own)
}
