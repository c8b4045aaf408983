//! What can go wrong at a device.

use crate::{DeviceId, Epoch};

/// Result of a device call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a device cannot run an op. An expected outcome of planning, not a failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op} on {device}: {cause}")]
pub struct Unsupported {
    /// Name of the op.
    pub op: &'static str,
    /// The device asked.
    pub device: DeviceId,
    /// In words that the user reads.
    pub cause: String,
}

/// A failed device call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No memory of the wanted kind is left.
    #[error("out of memory on {device}: {name} asks for {requested_bytes} bytes, {available_bytes} are left")]
    OutOfMemory {
        /// Where.
        device: DeviceId,
        /// The buffer's name.
        name: String,
        /// Asked for.
        requested_bytes: u64,
        /// Left, as far as the device says.
        available_bytes: u64,
    },
    /// A range outside its buffer, or a size that disagrees.
    #[error("range of {size_bytes} bytes at offset {offset} outside {buffer} ({available_bytes} bytes)")]
    OutOfRange {
        /// The buffer's name.
        buffer: String,
        /// Asked offset.
        offset: u64,
        /// Asked size.
        size_bytes: u64,
        /// Size of what it must fit into.
        available_bytes: u64,
    },
    /// A request beyond a fixed bound.
    #[error("{what} larger than {max_bytes} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The bound.
        max_bytes: u64,
    },
    /// The op cannot run here.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Memory of another owner that this device cannot reach.
    #[error("{device} cannot reach {buffer}: {cause}")]
    NotImportable {
        /// The device asked.
        device: DeviceId,
        /// The buffer's name.
        buffer: String,
        /// Why.
        cause: String,
    },
    /// The segment contradicts itself: a wrong count of inputs, a size too small.
    #[error("segment {segment}, op {op}: {cause}")]
    InvalidSegment {
        /// Its name.
        segment: String,
        /// The op.
        op: &'static str,
        /// What is wrong.
        cause: String,
    },
    /// The step buffer holds something that no step may: a token id past the vocabulary, a block address
    /// outside every buffer.
    #[error("step on {device}: {what} {value} in row {row}, the bound is {bound}")]
    InvalidStep {
        /// The device that read it.
        device: DeviceId,
        /// What was read: `token id`, `position`, `slot`, `output row`, `block address`, a count of the header.
        what: &'static str,
        /// Where in its section.
        row: usize,
        /// What stood there.
        value: u64,
        /// The first value that is too large; for addresses the count of bytes that had to be there.
        bound: u64,
    },
    /// A wait ran out.
    #[error("{device} did not reach fence {expected} within {timeout_ms} ms; it stands at {seen}")]
    Timeout {
        /// Whose timeline.
        device: DeviceId,
        /// Waited for.
        expected: u64,
        /// Last seen.
        seen: u64,
        /// How long.
        timeout_ms: u64,
    },
    /// The device is gone.
    #[error("device {device} lost: {cause}")]
    DeviceLost {
        /// Which.
        device: DeviceId,
        /// What the driver said.
        cause: String,
    },
    /// A handle from before a loss.
    #[error("handle of {device} from epoch {handle:?}, the device is in epoch {current:?}")]
    StaleHandle {
        /// Which.
        device: DeviceId,
        /// The handle's.
        handle: Epoch,
        /// The device's.
        current: Epoch,
    },
    /// Not listed by the backend.
    #[error("no device {0}")]
    NoSuchDevice(DeviceId),
    /// A driver call failed otherwise.
    #[error("{device}: {call}: {cause}")]
    Driver {
        /// Which.
        device: DeviceId,
        /// The call.
        call: &'static str,
        /// Its answer.
        cause: String,
    },
}
