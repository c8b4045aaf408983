//! The SIGBUS handler and the table of mappings that it watches.
//!
//! The handler runs on whatever thread met the fault, in the middle of any code, so it may neither lock
//! nor allocate: it reads a fixed table of atomics and makes one system call. A fault inside a watched
//! mapping is mended by mapping zeros from the faulting page to the mapping's end: the file shrank, or its
//! disk failed, and either way the mapping as a whole is no longer worth anything. Any other fault goes to
//! the handler that was installed before, or has its default effect.

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::*},
    },
};

/// Mappings that can exist at once. The largest published checkpoints have fewer than 200 shards.
pub(crate) const MAX_WATCHES: usize = 1024;

static TABLE: [Slot; MAX_WATCHES] = [const { Slot::new() }; MAX_WATCHES];

/// The action that was set before ours; null until [`install`] ran. Never freed.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// A watched range.
///
/// Invariant: `start` and `len` only change while `generation` is odd, so that a reader that saw the same
/// even generation before and after holds a pair that belongs together.
struct Slot {
    taken: AtomicBool,
    lost: AtomicBool,
    generation: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            taken: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            generation: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
        }
    }

    fn set(&self, start: usize, len: usize) {
        self.generation.fetch_add(1, SeqCst);
        self.start.store(start, SeqCst);
        self.len.store(len, SeqCst);
        self.generation.fetch_add(1, SeqCst);
    }

    /// The end of the range, if `address` lies in it.
    fn end_if_holding(&self, address: usize) -> Option<usize> {
        let before = self.generation.load(SeqCst);
        let (start, len) = (self.start.load(SeqCst), self.len.load(SeqCst));
        let steady = before.is_multiple_of(2) && self.generation.load(SeqCst) == before;
        // The fault is reported for the byte that was read, and no slice reaches beyond `len`.
        (steady && address.wrapping_sub(start) < len).then(|| start.wrapping_add(len))
    }
}

/// A place in the table, held for as long as the mapping exists.
#[derive(Debug)]
pub(crate) struct Watch(usize);

impl Watch {
    /// Watches a range, or `None` if the table is full.
    pub(crate) fn new(start: usize, len: usize) -> Option<Watch> {
        let free = |slot: &Slot| slot.taken.compare_exchange(false, true, SeqCst, SeqCst).is_ok();
        let index = TABLE.iter().position(free)?;
        let slot = &TABLE[index];
        slot.lost.store(false, SeqCst);
        slot.set(start, len);
        Some(Watch(index))
    }

    pub(crate) fn lost(&self) -> bool {
        TABLE[self.0].lost.load(Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let slot = &TABLE[self.0];
        slot.set(0, 0);
        slot.taken.store(false, SeqCst);
    }
}

/// Installs the handler, once per process.
pub(crate) fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    // The previous action must be in its place before ours can run, hence first a query, then the change.
    // SAFETY: an all-zero sigaction is a valid value, and both pointers are valid or null for each call.
    let previous = unsafe {
        let mut previous: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut previous) != 0 {
            return Err(io::Error::last_os_error());
        }
        previous
    };
    PREVIOUS.store(Box::into_raw(Box::new(previous)), SeqCst);
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    // SAFETY: as above; the handler has the signature that SA_SIGINFO promises, and keeps to what a signal
    // handler may do (see the module).
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        if libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    *installed = true;
    Ok(())
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo; only for faults (positive codes) does it hold an address.
    let fault = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr().addr()) };
    if !fault.is_some_and(mend) {
        // SAFETY: called once, from the handler, with the handler's own arguments.
        unsafe { pass_on(signal, info, context, fault.is_some()) };
    }
}

/// Puts zeros where a watched file was. False if the address is not watched, or the kernel refused.
fn mend(address: usize) -> bool {
    let watched = TABLE.iter().find_map(|slot| Some((slot, slot.end_if_holding(address)?)));
    let Some((slot, end)) = watched else { return false };
    // Before the mapping changes, so that nobody reads zeros while the flag still says that all is well.
    slot.lost.store(true, SeqCst);
    // SAFETY: sysconf, mmap and the errno location are plain system calls or reads, safe in a handler. The
    // range starts at the faulting page and ends at the mapping's end, so it replaces pages of a mapping
    // that `Watch`'s owner keeps until the slot is cleared. The kernel keeps the same protection: readable.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        let page_bytes = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096);
        let page = address & !(page_bytes - 1);
        let zeros = libc::mmap(
            std::ptr::without_provenance_mut(page),
            end - page,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        );
        *errno = saved;
        zeros != libc::MAP_FAILED
    }
}

/// Does what would have happened without us.
///
/// # Safety
/// - Called from the signal handler, with the arguments that the kernel gave it.
/// - `faulted` is true only if returning runs the faulting instruction again.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void, faulted: bool) {
    // SAFETY: `install` stored a pointer to a leaked box before the handler could run, and each function
    // pointer is called with the signature that its flags declare.
    unsafe {
        let previous = &*PREVIOUS.load(SeqCst);
        match previous.sa_sigaction {
            libc::SIG_IGN if !faulted => {}
            // The kernel ends the process for an ignored fault as for a defaulted one.
            libc::SIG_DFL | libc::SIG_IGN => {
                libc::signal(signal, libc::SIG_DFL);
                if !faulted {
                    // Blocked while the handler runs, so it takes effect on return.
                    libc::raise(signal);
                }
            }
            handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}
