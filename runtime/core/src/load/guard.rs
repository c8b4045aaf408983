//! Panics of foreign code that reads files: they stay inside, become errors, and print nothing.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

#[cfg(panic = "abort")]
compile_error!("a file that makes a library panic is a typed error only where panics unwind");

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `run`; its panic becomes an error, which says why. What `run` changes outside
/// itself must be usable afterwards, or not be used.
pub(super) fn contained<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    quieten_guarded_panics();
    let outer = IS_GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    IS_GUARDED.set(outer);
    result.map_err(|panic| message_of(&*panic))
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason given").to_owned()
}

/// A contained panic is an error that the caller gets; its message would only alarm. The process's own
/// hook stays in charge of everything else.
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
