//! The device's timeline. Submissions finish before they return, so a wait is almost always over at once.

use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use biga_hal::{DeviceId, Error, Result, Timeline};

use crate::DEVICE;

/// Counts finished submissions.
#[derive(Debug, Default)]
pub(crate) struct CpuTimeline {
    value: AtomicU64,
    waiters: AtomicUsize,
    lock: Mutex<()>,
    reached: Condvar,
}

impl CpuTimeline {
    /// Marks the next value as reached and returns it. Makes a system call only if someone waits.
    pub(crate) fn advance(&self) -> u64 {
        let value = self.value.fetch_add(1, Ordering::SeqCst) + 1;
        if self.waiters.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.reached.notify_all();
        }
        value
    }
}

impl Timeline for CpuTimeline {
    fn device(&self) -> DeviceId {
        DEVICE
    }

    fn value(&self) -> Result<u64> {
        Ok(self.value.load(Ordering::SeqCst))
    }

    fn wait(&self, value: u64, timeout: Duration) -> Result<()> {
        if self.value.load(Ordering::SeqCst) >= value {
            return Ok(());
        }
        let start = Instant::now();
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let outcome = loop {
            let seen = self.value.load(Ordering::SeqCst);
            if seen >= value {
                break Ok(());
            }
            let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
                let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                break Err(Error::Timeout { device: DEVICE, expected: value, seen, timeout_ms });
            };
            guard = self.reached.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use biga_hal::{Error, Timeline};

    use super::CpuTimeline;

    #[test]
    fn a_wait_ends_when_the_value_is_reached_or_passed() {
        let timeline = Arc::new(CpuTimeline::default());
        let other = Arc::clone(&timeline);
        let waiter = std::thread::spawn(move || other.wait(2, Duration::from_secs(60)));
        timeline.advance();
        timeline.advance();
        timeline.advance();
        waiter.join().unwrap().unwrap();
        timeline.wait(1, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_timeout_shows_both_values() {
        let timeline = CpuTimeline::default();
        timeline.advance();
        match timeline.wait(9, Duration::from_millis(1)) {
            Err(Error::Timeout { expected: 9, seen: 1, timeout_ms: 1, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
