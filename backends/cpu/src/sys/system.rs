//! What the operating system says about cores.

/// Cores that this process may run on by its affinity mask; `None` if the system does not say.
pub(crate) fn affinity_cores() -> Option<usize> {
    // SAFETY: `cpu_set_t` is a plain bit array for which all zeroes is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live set of exactly the size that is passed.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    // SAFETY: the set was filled by the call above.
    (status == 0).then(|| unsafe { libc::CPU_COUNT(&set) }.max(1).unsigned_abs() as usize)
}
