//! An allocator that counts the bytes held, now and at most.
#![allow(unsafe_code)] // to implement `GlobalAlloc`
#![allow(dead_code, unreachable_pub)] // each binary uses a part of it

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// For `#[global_allocator]`.
pub struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all the work is done by `System`; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        if held > PEAK.load(Ordering::Relaxed) {
            PEAK.fetch_max(held, Ordering::Relaxed);
        }
        // SAFETY: as promised by our own caller.
        unsafe { System.alloc(layout) }
    }

    // `realloc` and `alloc_zeroed` come through these two.
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `memory` came from `System` through `alloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Returns the bytes held by the process.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// Returns the most bytes held at once since the last call.
pub fn take_peak() -> usize {
    PEAK.swap(held(), Ordering::Relaxed)
}
