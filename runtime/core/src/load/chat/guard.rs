//! A thread for the template engine: a stack that is deep enough, an end to waiting, panics that stay
//! inside.

use std::{sync::mpsc::RecvTimeoutError, time::Duration};

use super::ChatError;
use crate::load::guard::contained;

/// The engine's parser and its values recurse without a bound of their own (`not not not ...`, a list in
/// a list in a list). With a template of at most 128 KiB and so many steps, this stack is deep enough for
/// the worst of them; only what is touched of it takes memory.
const STACK_BYTES: usize = 512 << 20;
/// Steps are no bound on time where one step works on a long string; this is.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Runs the template engine on a stack that is deep enough, for a bounded time, and ends what a panic
/// inside it began there. A run that takes too long is left to its step limit.
pub(super) fn guarded<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, ChatError> + Send + 'static,
) -> Result<T, ChatError> {
    let (answer, wait) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK_BYTES);
    thread
        .spawn(move || {
            // Nobody may be waiting any more; then the answer is for nobody.
            let _ = answer.send(contained(run));
        })
        .map_err(|error| ChatError::Render(format!("no thread to run it on: {error}")))?;
    match wait.recv_timeout(TIME_MAX) {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(ChatError::Render(format!("the template engine gave up: {panic}"))),
        Err(RecvTimeoutError::Timeout) => Err(ChatError::TooSlow(TIME_MAX.as_secs())),
        Err(RecvTimeoutError::Disconnected) => Err(ChatError::Render("the template engine gave up".to_owned())),
    }
}
