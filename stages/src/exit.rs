//! How the worker's process ends: its exit codes, and the way out.

/// Exit code after a failure that was reported by an event.
pub const EXIT_FAILED: i32 = 1;
/// Exit code when the orchestrator is gone.
pub const EXIT_ORPHANED: i32 = 143;
/// Exit code of a worker that was asked to end and has left a checkpoint.
pub const EXIT_TERMINATED: i32 = 143;

/// Ends the process at once: not through the destructors of libtorch, whose threads still run.
pub fn leave(code: i32) -> ! {
    #[expect(unsafe_code, reason = "_exit takes a number and touches no memory")]
    unsafe {
        libc::_exit(code)
    }
}
