//! Runs the example on the machine that builds it, and prints the decision and the most memory that it held at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate_model::decision::Outcome;

/// Counts what the system's allocator gives out.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn main() -> Result<(), String> {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let decision =
        tidegate_no_std::decide(&tidegate_no_std::DEMO, &tidegate_no_std::device()?, tidegate_no_std::now()?)?;
    let peak = PEAK.load(Ordering::Relaxed) - before;
    let Outcome::Install { release, artifacts, .. } = &decision.outcome else {
        return Err(format!("not installed: {:?}", decision.outcome));
    };
    println!("install {release}: {}", artifacts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));

    // One byte of the manifest is changed: refused.
    let mut changed = tidegate_no_std::DEMO.manifest.to_vec();
    *changed.last_mut().ok_or("the manifest is empty")? ^= 1;
    let files = tidegate_no_std::Files { manifest: &changed, ..tidegate_no_std::DEMO };
    match tidegate_no_std::decide(&files, &tidegate_no_std::device()?, tidegate_no_std::now()?) {
        Err(why) => println!("refused when a byte of the manifest is changed: {why}"),
        Ok(_) => return Err("a changed manifest was accepted".into()),
    }
    println!("peak heap: {peak} bytes");
    Ok(())
}
