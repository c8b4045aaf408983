//! What can go wrong between a model file and a token.

/// Result of a runtime call.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed runtime call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A device call failed.
    #[error(transparent)]
    Device(#[from] biga_hal::Error),
    /// A model did not load.
    #[error(transparent)]
    Load(#[from] crate::load::error::LoadError),
    /// The wishes for a plan contradict each other, the model or the machine.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
    /// The KV cache refused.
    #[error(transparent)]
    Kv(#[from] biga_kv::KvError),
    /// Sampling refused.
    #[error(transparent)]
    Sample(#[from] crate::sample::SampleError),
    /// More was asked of a step or a sequence than the engine was planned for.
    #[error("{what}: {asked} asked, at most {most}")]
    Limit {
        /// What.
        what: &'static str,
        /// Asked.
        asked: usize,
        /// The bound.
        most: usize,
    },
    /// A value that makes no sense by itself.
    #[error("{0}")]
    Invalid(String),
}

/// How a caller should treat an error; the command line's exit codes follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It failed (exit code 1).
    Failed,
    /// The request was wrong (2).
    Usage,
    /// The input file is at fault (3).
    Input,
    /// A device that was asked for is not available (4).
    DeviceUnavailable,
}

impl Error {
    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Plan(error) => error.kind(),
            Error::Limit { .. } | Error::Invalid(_) => ErrorKind::Usage,
            Error::Load(_) => ErrorKind::Input,
            Error::Sample(crate::sample::SampleError::OutOfRange { .. }) => ErrorKind::Usage,
            Error::Device(_) | Error::Kv(_) | Error::Sample(_) => ErrorKind::Failed,
        }
    }
}
