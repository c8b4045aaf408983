//! The team of threads that runs segments: started once, woken once per segment.
//!
//! The caller of [`Pool::run`] takes part as worker 0. Between kernel calls the workers meet at a barrier
//! that spins first and yields later, because a kernel call lasts microseconds. An idle worker spins for
//! a moment and then sleeps, so that segments that follow each other closely pay no wake-up.
//! A worker that panics (a mistake of ours) takes the whole run down instead of leaving the others waiting.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

/// Turns of a spin loop before the barrier starts to yield its core.
const BARRIER_SPINS: u32 = 2_000;
/// Turns of a spin loop before an idle worker goes to sleep.
const IDLE_SPINS: u32 = 4_000;

/// Work for the whole team.
pub(crate) trait Job: Send + Sync {
    /// Does worker `worker`'s share; every worker passes the same barriers.
    fn run(&self, worker: usize, team: &Team);
}

/// What the workers of one pool share while they run.
#[derive(Debug)]
pub(crate) struct Team {
    /// Workers, the caller among them.
    pub(crate) size: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicBool,
}

impl Team {
    /// Waits until every worker is here. False if a worker failed: the run is to be left.
    pub(crate) fn meet(&self) -> bool {
        if self.size == 1 {
            return true;
        }
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.size {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
        } else {
            let mut spins = 0;
            while self.round.load(Ordering::Acquire) == round {
                if self.broken.load(Ordering::Relaxed) {
                    return false;
                }
                spins += 1;
                if spins < BARRIER_SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
            }
        }
        !self.broken.load(Ordering::Relaxed)
    }
}

struct Shared {
    team: Team,
    /// Counts segments; odd and even have no meaning.
    generation: AtomicUsize,
    job: Mutex<Option<Arc<dyn Job>>>,
    wake: Condvar,
    sleepers: AtomicUsize,
    /// Threads that left after a failed run.
    left: AtomicUsize,
    stop: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("team", &self.team).finish_non_exhaustive()
    }
}

/// A team of threads.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `size - 1` threads. If the system refuses some, the team is smaller: its size must be that of
    /// the threads that run, or a barrier would wait for the others forever.
    pub(crate) fn new(size: usize) -> Pool {
        let start = |size: usize| {
            let shared = Arc::new(Shared {
                team: Team {
                    size,
                    arrived: AtomicUsize::new(0),
                    round: AtomicUsize::new(0),
                    broken: AtomicBool::new(false),
                },
                generation: AtomicUsize::new(0),
                job: Mutex::new(None),
                wake: Condvar::new(),
                sleepers: AtomicUsize::new(0),
                left: AtomicUsize::new(0),
                stop: AtomicBool::new(false),
            });
            let mut pool = Pool { shared, threads: Vec::new() };
            for worker in 1..size {
                let shared = Arc::clone(&pool.shared);
                match std::thread::Builder::new()
                    .name(format!("biga-cpu-{worker}"))
                    .spawn(move || serve(&shared, worker))
                {
                    Ok(thread) => pool.threads.push(thread),
                    Err(error) => {
                        tracing::warn!(%error, wanted = size, "fewer threads than wanted");
                        break;
                    }
                }
            }
            pool
        };
        let mut size = size.max(1);
        loop {
            let pool = start(size);
            let started = pool.threads.len() + 1;
            if started == size {
                return pool;
            }
            // Dropping the pool ends its threads before the next attempt; each asks for fewer.
            size = started;
        }
    }

    /// Workers, the caller among them.
    pub(crate) fn size(&self) -> usize {
        self.shared.team.size
    }

    /// Runs a job on every worker and returns when all are done. False if a worker failed; the pool is
    /// of no use afterwards. One caller at a time.
    pub(crate) fn run(&self, job: &Arc<dyn Job>) -> bool {
        let shared = &*self.shared;
        if shared.team.broken.load(Ordering::Relaxed) {
            return false;
        }
        if shared.team.size > 1 {
            let mut slot = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(Arc::clone(job));
            shared.generation.fetch_add(1, Ordering::Release);
            let asleep = shared.sleepers.load(Ordering::Relaxed) > 0;
            drop(slot);
            if asleep {
                shared.wake.notify_all();
            }
        }
        let done = take_part(shared, Arc::clone(job), 0);
        if !done {
            // Others may still be in the middle of a kernel, and what the caller holds for them must outlive it.
            while shared.left.load(Ordering::Acquire) + 1 < shared.team.size {
                std::thread::yield_now();
            }
        }
        // The caller still holds the job, so nothing is freed here.
        shared.job.lock().unwrap_or_else(PoisonError::into_inner).take();
        done
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let slot = self.shared.job.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.stop.store(true, Ordering::Release);
        drop(slot);
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A worker that panicked has already been reported by the run that it broke.
            let _ = thread.join();
        }
    }
}

/// Runs one worker's share and the closing barrier. The job is let go before the barrier: afterwards its
/// last owner may free it, and that must be the caller, never a worker in the middle of the next run.
fn take_part(shared: &Shared, job: Arc<dyn Job>, worker: usize) -> bool {
    if catch_unwind(AssertUnwindSafe(|| job.run(worker, &shared.team))).is_err() {
        shared.team.broken.store(true, Ordering::Release);
        return false;
    }
    drop(job);
    shared.team.meet()
}

/// A worker thread's life.
fn serve(shared: &Shared, worker: usize) {
    let mut seen = 0;
    while let Some(job) = next_job(shared, &mut seen) {
        if !take_part(shared, job, worker) {
            shared.left.fetch_add(1, Ordering::Release);
            return;
        }
    }
}

/// Waits for a generation after `seen`; `None` when the pool ends.
fn next_job(shared: &Shared, seen: &mut usize) -> Option<Arc<dyn Job>> {
    for _ in 0..IDLE_SPINS {
        if shared.generation.load(Ordering::Acquire) != *seen {
            break;
        }
        std::hint::spin_loop();
    }
    let mut slot = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if shared.stop.load(Ordering::Acquire) {
            return None;
        }
        let generation = shared.generation.load(Ordering::Acquire);
        if generation != *seen {
            *seen = generation;
            return slot.clone();
        }
        shared.sleepers.fetch_add(1, Ordering::Relaxed);
        slot = shared.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
        shared.sleepers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::{Job, Pool, Team};

    struct Count {
        before: AtomicUsize,
        after: AtomicUsize,
    }

    impl Job for Count {
        fn run(&self, _worker: usize, team: &Team) {
            self.before.fetch_add(1, Ordering::SeqCst);
            team.meet();
            assert_eq!(self.before.load(Ordering::SeqCst) % team.size, 0, "a worker passed the barrier early");
            team.meet();
            self.after.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn every_worker_runs_every_job_once() {
        for size in [1, 2, 5] {
            let pool = Pool::new(size);
            let count = Arc::new(Count { before: AtomicUsize::new(0), after: AtomicUsize::new(0) });
            let job: Arc<dyn Job> = count.clone();
            for _ in 0..200 {
                assert!(pool.run(&job));
            }
            assert_eq!(count.after.load(Ordering::SeqCst), 200 * size);
        }
    }

    struct Fail;

    impl Job for Fail {
        fn run(&self, worker: usize, team: &Team) {
            assert_eq!(worker, 0, "only worker 0 gets on");
            while team.meet() {}
        }
    }

    #[test]
    fn a_failed_worker_ends_the_run() {
        let pool = Pool::new(3);
        let job: Arc<dyn Job> = Arc::new(Fail);
        assert!(!pool.run(&job));
        assert!(!pool.run(&job));
    }
}
