//! Counts what a thread allocates, so that a decoder can be held to its bound.
//!
//! The allocator is the system's, with a count beside it. A request that no machine can satisfy ends the process, and
//! nothing could be caught; so the count refuses it first, after [`super::running::accuse`] said for which input.
//!
//! **Invariant.** Only bytes that the same thread asked for and gave back are counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// A single request above this is the work of a length that was believed.
const REQUEST_BYTES_MAX: usize = 1 << 30;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every request goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size().cast_signed()));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Old and new may be there at the same time.
        count(new_size);
        add(-(layout.size().cast_signed()));
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

fn count(bytes: usize) {
    if bytes > REQUEST_BYTES_MAX {
        super::running::accuse(format_args!("{bytes} bytes were asked for at once"));
        std::process::abort();
    }
    add(bytes.cast_signed());
}

fn add(bytes: isize) {
    // While a thread ends, its memory is nobody's.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

/// Runs something that may hold at most `bytes_max` bytes more than there were before, at any time.
pub(crate) fn capped<T>(what: &str, bytes_max: usize, run: impl FnOnce() -> T) -> T {
    let before = LIVE.with(Cell::get);
    let outer = PEAK.with(|peak| peak.replace(before));
    let outcome = run();
    let peak = PEAK.with(Cell::get);
    PEAK.with(|current| current.set(outer.max(peak)));
    let bytes = usize::try_from(peak - before).unwrap_or(0);
    assert!(bytes <= bytes_max, "{what} took {bytes} bytes; its bound is {bytes_max}");
    outcome
}
