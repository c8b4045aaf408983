//! The contract that every device keeps.
//!
//! Five nouns are enough to drive any of them: a [`Device`] owns [`Buffer`]s, compiles a [`Segment`]
//! of [`Op`]s once into an [`Executable`], and a submission of it ends in a [`FencePoint`] on the
//! device's timeline. This crate holds the nouns only: no unsafe code, no input or output, no policy.
//! Backends implement it (`backends/*`), the runtime calls it (`runtime/core`), and one suite checks
//! every implementation (`backends/conformance`).
//!
//! Units: sizes and offsets are bytes, rates are per second, durations are seconds unless a name says
//! otherwise. Shapes read `[rows, columns]`, row-major.
#![forbid(unsafe_code)]

pub mod dtype;

pub mod op;

pub mod buffer;

pub mod segment;

pub mod sample;

pub mod step;

pub mod fence;

pub mod device;

pub mod error;

pub use buffer::{Access, Accessors, Allocation, Buffer, BufferDesc, BufferSlice, Epoch, HostRange};
pub use device::{
    Backend, Choices, Counters, Device, DeviceId, DeviceInfo, DeviceKind, Finding, LOADED_ROWS, Measurement, Rates,
    Unavailable, check_load,
};
pub use dtype::DType;
pub use error::{Error, Result, Unsupported};
pub use fence::{FencePoint, STEP_TIMEOUT, Timeline};
pub use op::{Activation, Heads, Op, OpClass, OpKind, OpQuery, RopeStyle, Rows, WeightRole, WeightShape};
pub use sample::{Candidate, SampleResult, SampleRow};
pub use segment::{BoundKv, BoundOp, BoundWeight, Bucket, ByteRange, Dispatch, Executable, Segment};
pub use step::{StepHeader, StepLayout, StepLimits};
