//! A thread for the template engine: a stack that is deep enough, an end to waiting, panics that stay
//! inside and print nothing.

use std::cell::Cell;
use std::sync::Once;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::ChatError;

/// The engine's parser and its values recurse without a bound of their own (`not not not ...`, a list in
/// a list in a list). With a template of at most 128 KiB and so many steps, this stack is deep enough for
/// the worst of them; only what is touched of it takes memory.
const STACK_BYTES: usize = 512 << 20;
/// Steps are no bound on time where one step works on a long string; this is.
const TIME_MAX: Duration = Duration::from_secs(10);

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs the template engine on a stack that is deep enough, for a bounded time, and ends what a panic
/// inside it began there. A run that takes too long is left to its step limit.
pub(super) fn guarded<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, ChatError> + Send + 'static,
) -> Result<T, ChatError> {
    quieten_guarded_panics();
    let (answer, wait) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK_BYTES);
    thread
        .spawn(move || {
            IS_GUARDED.set(true);
            // Nobody may be waiting any more; then the answer is for nobody.
            let _ = answer.send(run());
        })
        .map_err(|error| ChatError::Render(format!("no thread to run it on: {error}")))?;
    wait.recv_timeout(TIME_MAX).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => Err(ChatError::TooSlow(TIME_MAX.as_secs())),
        RecvTimeoutError::Disconnected => Err(ChatError::Render("the template engine gave up".to_owned())),
    })
}

/// A panic of the engine is an error that the caller gets; its message would only alarm. The process's
/// own hook stays in charge of all other threads.
fn quieten_guarded_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                previous(panic);
            }
        }));
    });
}
