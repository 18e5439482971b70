//! The example linked for a microcontroller: what its linker keeps is the code size. There is no board support, so it is built and not run.
//! Elsewhere it is an empty program.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod firmware {
    use core::alloc::{GlobalAlloc, Layout};
    use core::sync::atomic::{AtomicUsize, Ordering};

    use tidegate_model::decision::Outcome;

    const HEAP: usize = 96 * 1024;

    /// Gives out a fixed piece of memory and takes nothing back: enough to be linked.
    struct Bump(AtomicUsize);

    static mut MEMORY: [u8; HEAP] = [0; HEAP];

    #[global_allocator]
    static ALLOCATOR: Bump = Bump(AtomicUsize::new(0));

    // SAFETY: every range is given out once, aligned and within MEMORY.
    unsafe impl GlobalAlloc for Bump {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let memory = (&raw mut MEMORY).cast::<u8>();
            let from = self.0.load(Ordering::Relaxed);
            let start = from + (memory as usize + from).wrapping_neg() % layout.align();
            if start + layout.size() > HEAP {
                return core::ptr::null_mut();
            }
            self.0.store(start + layout.size(), Ordering::Relaxed);
            // SAFETY: `start` is within MEMORY.
            unsafe { memory.add(start) }
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    /// The entry of the program: 1 if the release is to be installed.
    #[unsafe(no_mangle)]
    extern "C" fn _start() -> u32 {
        // The compiler must not take what is in the files into account.
        let files = core::hint::black_box(tidegate_no_std::DEMO);
        let decision = tidegate_no_std::device()
            .and_then(|device| tidegate_no_std::decide(&files, &device, tidegate_no_std::now()?));
        u32::from(decision.is_ok_and(|decision| matches!(decision.outcome, Outcome::Install { .. })))
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
