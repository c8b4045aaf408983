//! Placement rules and policies: what is wanted where, before anything is known of what is possible.

use std::{fmt, str::FromStr};

use biga_hal::{DeviceInfo, DeviceKind, OpClass, OpKind};

use super::{
    request::{PlaceRule, PlaceTarget, PlanError, Policy, kind_word},
    types::Phase,
};
use crate::{load::graph::OpNode, probe::Topology};

/// A set of devices, by index in the topology.
pub(super) type DeviceSet = u16;

/// Where an op is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    /// Any of these; empty if the machine has none.
    pub(super) devices: DeviceSet,
    /// The word for them.
    pub(super) word: String,
    /// Index of the rule that wants it; `None` for the policy.
    pub(super) rule: Option<usize>,
}

impl FromStr for PlaceRule {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<PlaceRule, PlanError> {
        let bad = |cause: &str| PlanError::BadRule { rule: text.to_owned(), cause: cause.to_owned() };
        let (left, device) =
            text.trim().split_once('=').ok_or_else(|| bad("no `=` between op and device, as in ffn:0-10=gpu"))?;
        let device = device.trim();
        if device.is_empty() {
            return Err(bad("no device after `=`"));
        }
        if device.contains('=') {
            return Err(bad("one `=` is wanted; rules are parted by commas"));
        }
        let (left, phase) = match left.trim().split_once('@') {
            None => (left.trim(), None),
            Some((left, "prefill")) => (left, Some(Phase::Prefill)),
            Some((left, "decode")) => (left, Some(Phase::Decode)),
            Some(_) => return Err(bad("after `@` comes prefill or decode")),
        };
        let (target, layers) = match left.split_once(':') {
            None => (left, None),
            Some((target, range)) => {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let number = |digits: &str| digits.trim().parse::<usize>().ok();
                match (number(first), number(last)) {
                    (Some(first), Some(last)) if first <= last => (target, Some(first..=last)),
                    (Some(_), Some(_)) => return Err(bad("the layer range runs backwards")),
                    _ => return Err(bad("after `:` comes a layer or a range such as 0-10")),
                }
            }
        };
        let target = match target.trim() {
            "" => return Err(bad("no op before `=`")),
            "all" | "*" => PlaceTarget::All,
            word => match (OpClass::ALL.into_iter().find(|class| class.name() == word), word.strip_prefix("op.")) {
                (Some(class), _) => PlaceTarget::Class(class),
                (None, Some(op)) => PlaceTarget::Op(op.to_owned()),
                (None, None) => PlaceTarget::Op(word.to_owned()),
            },
        };
        Ok(PlaceRule { target, layers, phase, device: device.to_owned() })
    }
}

impl fmt::Display for PlaceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            PlaceTarget::All => f.write_str("all")?,
            PlaceTarget::Class(class) => f.write_str(class.name())?,
            PlaceTarget::Op(op) if OpClass::ALL.iter().any(|class| class.name() == op) => write!(f, "op.{op}")?,
            PlaceTarget::Op(op) => f.write_str(op)?,
        }
        match &self.layers {
            Some(layers) if layers.start() == layers.end() => write!(f, ":{}", layers.start())?,
            Some(layers) => write!(f, ":{}-{}", layers.start(), layers.end())?,
            None => {}
        }
        if let Some(phase) = self.phase {
            write!(f, "@{phase}")?;
        }
        write!(f, "={}", self.device)
    }
}

impl PlaceRule {
    /// Reads a comma-separated list, as after `--place`.
    ///
    /// # Errors
    /// [`PlanError::BadRule`] for the first that cannot be read.
    pub fn parse_list(text: &str) -> Result<Vec<PlaceRule>, PlanError> {
        text.split(',').filter(|rule| !rule.trim().is_empty()).map(str::parse).collect()
    }

    /// True if the rule names this op in this phase.
    pub fn matches(&self, node: &OpNode, phase: Phase) -> bool {
        let target = match &self.target {
            PlaceTarget::All => true,
            PlaceTarget::Class(class) => node.class == *class,
            PlaceTarget::Op(name) => node.op.kind.name() == name,
        };
        let layer = match (&self.layers, node.op.layer) {
            (None, _) => true,
            (Some(layers), Some(layer)) => layers.contains(&layer),
            (Some(_), None) => false,
        };
        target && layer && self.phase.is_none_or(|wanted| wanted == phase)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        })
    }
}

/// The devices that a word of a rule stands for: a kind (`cpu`, `gpu`, `npu`), a backend, an id such as
/// `vulkan:1`, or a part of a name or driver in any case; `lavapipe` is Mesa's CPU driver.
pub(super) fn devices_named(topology: &Topology, word: &str) -> DeviceSet {
    let word = word.to_lowercase();
    let answers = |info: &DeviceInfo| {
        let described = format!("{} {}", info.name, info.driver).to_lowercase();
        match word.as_str() {
            "cpu" | "gpu" | "npu" => kind_word(info.kind) == word,
            "lavapipe" => info.kind == DeviceKind::SoftwareGpu,
            _ => info.id.backend == word || info.id.to_string() == word || described.contains(&word),
        }
    };
    set_of(topology, answers)
}

fn set_of(topology: &Topology, taken: impl Fn(&DeviceInfo) -> bool) -> DeviceSet {
    topology.devices.iter().enumerate().filter(|(_, info)| taken(info)).fold(0, |set, (index, _)| set | 1 << index)
}

/// Why no device answers to a word.
pub(super) fn why_missing(topology: &Topology, word: &str) -> String {
    let about = topology.unavailable.iter().filter(|(backend, _)| match word {
        "gpu" => !matches!(*backend, "cpu" | "npu"),
        _ => word.split(':').next() == Some(*backend),
    });
    let causes: Vec<&str> = about.map(|(_, unavailable)| unavailable.cause.as_str()).collect();
    let name = match word {
        "gpu" => "GPU",
        "npu" => "NPU",
        "cpu" => "CPU",
        _ => {
            return format!(
                "no device {word:?} takes part{}{}",
                if causes.is_empty() { "" } else { ": " },
                causes.join("; ")
            );
        }
    };
    if causes.is_empty() { format!("no {name} takes part") } else { format!("no {name}: {}", causes.join("; ")) }
}

/// Where a policy wants an op; `None` leaves it to cost.
///
/// Under `hybrid` attention itself and its KV belong on the NPU; the norms and projections around it go
/// to whichever of NPU and GPU is cheaper, everything else to the GPU. Sampling follows no policy but the
/// single-device ones, and there only where the device can do it.
pub(super) fn policy_want(topology: &Topology, policy: Policy, node: &OpNode) -> Option<Want> {
    let want = |word: &str, devices| Some(Want { devices, word: word.to_owned(), rule: None });
    let named = |word: &str| want(word, devices_named(topology, word));
    match (policy, node.class) {
        (Policy::Auto, _) | (Policy::Hybrid, OpClass::Sample) => None,
        (Policy::Cpu, _) => named("cpu"),
        (Policy::Gpu, _) => named("gpu"),
        (Policy::Hybrid, OpClass::Attention)
            if matches!(node.op.kind, OpKind::KvAppend { .. } | OpKind::Attention { .. }) =>
        {
            named("npu")
        }
        (Policy::Hybrid, OpClass::Attention) => {
            let either = devices_named(topology, "npu") | devices_named(topology, "gpu");
            want(if either == 0 { "gpu" } else { "npu or gpu" }, either)
        }
        (Policy::Hybrid, OpClass::Embed | OpClass::Ffn | OpClass::Head) => named("gpu"),
    }
}

#[cfg(test)]
mod tests {
    use super::{PlaceRule, PlanError};

    fn check(text: &str, shown: &str) {
        let rule: PlaceRule = text.parse().unwrap();
        assert_eq!(rule.to_string(), shown);
        assert_eq!(shown.parse::<PlaceRule>().unwrap(), rule);
    }

    #[test]
    fn rules_read_and_print() {
        check("attention=cpu", "attention=cpu");
        check(" ffn:0-10 = gpu", "ffn:0-10=gpu");
        check("ffn:3@decode=vulkan:1", "ffn:3@decode=vulkan:1");
        check("op.attention@prefill=npu", "op.attention@prefill=npu");
        check("*=cpu", "all=cpu");
        check("rope=Radeon 780M", "rope=Radeon 780M");
        assert_eq!(PlaceRule::parse_list("attention=npu,ffn=gpu,,head=cpu").unwrap().len(), 3);
    }

    #[test]
    fn bad_rules_say_what_is_wrong() {
        for text in [
            "",
            "ffn",
            "ffn=",
            "=cpu",
            "ffn:=cpu",
            "ffn:3-1=cpu",
            "ffn:a=cpu",
            "ffn@now=cpu",
            "ffn:1-2-3=cpu",
            "a=b=cpu",
        ] {
            assert!(matches!(text.parse::<PlaceRule>(), Err(PlanError::BadRule { .. })), "{text:?}");
        }
    }
}
