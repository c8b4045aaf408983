//! The validation layers: how test executables are put under them, and what the layers say.
//!
//! The layers write each message to standard output as it comes, between the lines of the test harness:
//! a head with the message's name, its text, and an empty line.

use std::collections::BTreeMap;

/// What is validated. One at a time: the layers' own advice, as either doubles the other's cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layers {
    /// Use of the interface, and barriers between transfers.
    CoreAndSync,
    /// Each access of a kernel to memory by address.
    GpuAssisted,
}

impl Layers {
    /// The variables that enable them for every instance of a process.
    pub(crate) fn environment(self) -> Vec<(&'static str, String)> {
        let gpu_assisted = self == Layers::GpuAssisted;
        let settings = [
            ("VK_KHRONOS_VALIDATION_VALIDATE_CORE", !gpu_assisted),
            ("VK_KHRONOS_VALIDATION_VALIDATE_SYNC", !gpu_assisted),
            ("VK_KHRONOS_VALIDATION_SYNCVAL_SUBMIT_TIME_VALIDATION", !gpu_assisted),
            ("VK_KHRONOS_VALIDATION_SYNCVAL_SHADER_ACCESSES_HEURISTIC", !gpu_assisted),
            ("VK_KHRONOS_VALIDATION_GPUAV_ENABLE", gpu_assisted),
            // Asks for a feature that no kernel uses, and warns where it is not.
            ("VK_KHRONOS_VALIDATION_GPUAV_VALIDATE_RAY_QUERY", false),
        ];
        let mut environment: Vec<(&'static str, String)> =
            settings.into_iter().map(|(name, on)| (name, on.to_string())).collect();
        environment.push(("VK_INSTANCE_LAYERS", "VK_LAYER_KHRONOS_validation".to_owned()));
        environment.push(("VK_KHRONOS_VALIDATION_REPORT_FLAGS", "error,warn,perf".to_owned()));
        environment
    }

    /// What they say to the misuses of `backends/vulkan/tests/misuse.rs`; who is silent there is not at work.
    pub(super) fn expected_of_misuse(self) -> &'static [&'static str] {
        match self {
            Layers::CoreAndSync => &["VUID-VkPushConstantRange-size-00298", "SYNC-HAZARD-WRITE-AFTER-WRITE"],
            Layers::GpuAssisted => &["UNASSIGNED-Device address out of bounds"],
        }
    }
}

/// The message in which GPU-assisted validation tells what it switches on for itself. The same name may
/// stand over a complaint, hence the texts.
const OWN_TALK: (&str, [&str; 2]) =
    ("WARNING-GPU-Assisted-Validation", ["Internal Warning: Forcing ", "Internal Warning: Setting "]);

/// Takes the messages out of the lines of an executable.
#[derive(Debug, Default)]
pub(super) struct Messages {
    current: Option<(String, Vec<String>)>,
    shown: bool,
    /// How many came, by name.
    pub(super) counts: BTreeMap<String, u64>,
}

impl Messages {
    /// Prints each message that it takes.
    pub(super) fn shown() -> Messages {
        Messages { shown: true, ..Messages::default() }
    }

    /// Takes a line; true if it belongs to a message.
    pub(super) fn read(&mut self, line: &str) -> bool {
        if let Some(name) = message_name(line) {
            self.end();
            self.current = Some((name.to_owned(), vec![line.to_owned()]));
            return true;
        }
        let Some((_, lines)) = &mut self.current else { return false };
        if line.starts_with("test ") {
            self.end();
            return false;
        }
        if line.is_empty() {
            self.end();
        } else {
            lines.push(line.to_owned());
        }
        true
    }

    /// Counts the message that is over, if one is.
    pub(super) fn end(&mut self) {
        let Some((name, lines)) = self.current.take() else { return };
        let (own_name, own_texts) = OWN_TALK;
        let is_own = |line: &String| own_texts.iter().any(|text| line.contains(text));
        if name == own_name && lines.get(1).is_some_and(is_own) {
            return;
        }
        if self.shown {
            println!("{}", lines.join("\n"));
        }
        *self.counts.entry(name).or_default() += 1;
    }

    /// Names and numbers, or nothing.
    pub(super) fn summary(&self) -> Option<String> {
        let each: Vec<String> = self.counts.iter().map(|(name, n)| format!("{n} of {name}")).collect();
        (!each.is_empty()).then(|| format!("messages of the validation layers: {}", each.join(", ")))
    }
}

/// The name in `Validation Error: [ NAME ] | MessageID = 0x...`, which may follow a test's name.
fn message_name(line: &str) -> Option<&str> {
    let (_, after) = line.split_once("Validation ")?;
    let (severity, rest) = after.split_once(": [ ")?;
    let (name, rest) = rest.split_once(" ]")?;
    let known = ["Error", "Warning", "Performance Warning", "Information"].contains(&severity);
    (known && rest.contains("MessageID = ")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::{Messages, message_name};

    const OUTPUT: &str = "running 2 tests
test a ... Validation Warning: [ WARNING-GPU-Assisted-Validation ] | MessageID = 0x24b5c69f
vkCreateDevice(): Internal Warning: Forcing shaderInt64 to VK_TRUE
Objects: 1

ok
Validation Error: [ SYNC-HAZARD-WRITE-AFTER-WRITE ] | MessageID = 0x5c0ec5d6
vkCmdFillBuffer(): WRITE_AFTER_WRITE hazard detected.
test b ... ok
Validation Warning: [ WARNING-GPU-Assisted-Validation ] | MessageID = 0x24b5c69f
vkCreateDevice(): Internal Warning: a pipeline could not be instrumented";

    #[test]
    fn messages_are_told_from_tests_and_from_the_layers_own_talk() {
        let mut messages = Messages::default();
        let left: Vec<&str> = OUTPUT.lines().filter(|line| !messages.read(line)).collect();
        messages.end();
        assert_eq!(left, ["running 2 tests", "ok", "test b ... ok"]);
        let expected = "messages of the validation layers: 1 of SYNC-HAZARD-WRITE-AFTER-WRITE, \
                        1 of WARNING-GPU-Assisted-Validation";
        assert_eq!(messages.summary().as_deref(), Some(expected));
        assert_eq!(Messages::default().summary(), None);
    }

    #[test]
    fn the_names_of_messages_may_have_spaces() {
        let line = "Validation Error: [ UNASSIGNED-Device address out of bounds ] | MessageID = 0x1a898625";
        assert_eq!(message_name(line), Some("UNASSIGNED-Device address out of bounds"));
        assert_eq!(message_name("Validation Layer Info - Logging validation error to x"), None);
    }
}
