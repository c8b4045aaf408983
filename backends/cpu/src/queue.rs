//! Submission: wait, load the step, run, advance the timeline.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use biga_hal::{Error, FencePoint, Result, STEP_TIMEOUT, Timeline};

use crate::{
    DEVICE,
    buffer::Registry,
    executable::{CpuExecutable, Program},
    fence::CpuTimeline,
    pool::{Job, Pool},
    sys::run::StepBuffer,
};

/// The one queue of the device: a submission is finished when it returns.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Also keeps submissions from running side by side.
    pool: Mutex<Pool>,
    /// Workers of the pool.
    pub(crate) workers: usize,
    timeline: Arc<CpuTimeline>,
}

impl Queue {
    /// Starts the workers.
    pub(crate) fn new(threads: usize) -> Queue {
        let pool = Pool::new(threads);
        Queue { workers: pool.size(), pool: Mutex::new(pool), timeline: Arc::default() }
    }

    /// Acts while no program runs.
    ///
    /// Whoever wants to write what the workers read-lock must come through here: a writer that waits for a
    /// read lock keeps further readers out, and a worker kept out never reaches the barrier at which the
    /// readers before it wait.
    pub(crate) fn between_runs<T>(&self, act: impl FnOnce() -> T) -> T {
        let _pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        act()
    }

    /// Runs a program after `waits`.
    pub(crate) fn submit(
        &self,
        executable: &CpuExecutable,
        registry: &Registry,
        waits: &[FencePoint],
    ) -> Result<FencePoint> {
        for wait in waits {
            wait.wait(STEP_TIMEOUT)?;
        }
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        // Held until the run is over: no buffer that a block table names is freed under it.
        let ranges = registry.ranges();
        let program: &Arc<Program> = &executable.program;
        {
            let mut frame = program.frame.write().unwrap_or_else(PoisonError::into_inner);
            frame.load(&StepBuffer(program), &program.needs, &ranges)?;
        }
        for step in &program.steps {
            step.next.store(0, Ordering::Relaxed);
            step.prepared.store(0, Ordering::Relaxed);
        }
        let job: Arc<dyn Job> = program.clone();
        if !pool.run(&job) {
            return Err(Error::DeviceLost { device: DEVICE, cause: "a worker thread failed".into() });
        }
        let timeline: Arc<dyn Timeline> = self.timeline.clone();
        Ok(FencePoint { timeline, value: self.timeline.advance() })
    }
}
