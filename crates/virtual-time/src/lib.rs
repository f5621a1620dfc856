//! The clock, the random numbers and the process id of the C library, replaced on threads that
//! simulate.
//!
//! `std`, Tokio and every other library read the time with `clock_gettime`, take randomness from
//! `getrandom`, and ask `getpid` for the process id. An executable that links this crate gets the
//! functions below in their place. They do what the C library does, except on a thread that has called
//! [`enter`]: there the time is the one that [`set`] says, the random numbers follow from a seed, and
//! the process id is 1. Within a Tokio runtime whose time is paused, the time is that runtime's.
//!
//! On systems other than Linux nothing is replaced.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// The time of day at the start of every simulation, as a Unix time: 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// What the monotonic clock shows at the start of every simulation.
const START: Duration = Duration::from_secs(1_000_000);

thread_local! {
    static ENTERED: Cell<bool> = const { Cell::new(false) };
    /// Set while the time is being read, because Tokio may ask for it again.
    static READING: Cell<bool> = const { Cell::new(false) };
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static ORIGIN: Cell<Option<Instant>> = const { Cell::new(None) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// Puts this thread into virtual time, which starts at zero. Use a new thread: hash maps keep the
/// random numbers that the thread's first one was made with.
pub fn enter(seed: u64) {
    NOW.set(Duration::ZERO);
    RANDOM.set(seed);
    ENTERED.set(true);
    ORIGIN.set(Some(Instant::now()));
}

/// Puts this thread back into real time.
pub fn leave() {
    ENTERED.set(false);
    ORIGIN.set(None);
}

/// Sets the time outside of runtimes, counted from [`enter`].
pub fn set(now: Duration) {
    NOW.set(now);
}

/// The time, counted from [`enter`].
pub fn now() -> Duration {
    if let Some(origin) = ORIGIN.get()
        && !READING.replace(true)
    {
        let now = tokio::time::Instant::now().into_std();
        NOW.set(now.saturating_duration_since(origin));
        READING.set(false);
    }
    NOW.get()
}

/// The next eight random bytes of this thread, by SplitMix64.
fn random() -> [u8; 8] {
    let state = RANDOM.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOM.set(state);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).to_le_bytes()
}

#[cfg(target_os = "linux")]
mod replaced {
    use super::{ENTERED, EPOCH, START};

    /// # Safety
    /// As for the function of the C library: `to` can be written to.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn clock_gettime(
        clock: libc::clockid_t,
        to: *mut libc::timespec,
    ) -> libc::c_int {
        if !ENTERED.try_with(std::cell::Cell::get).unwrap_or(false) {
            // SAFETY: the caller's promise is the one that the system call asks for.
            return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, to) } as libc::c_int;
        }
        let of_day = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE);
        let time = super::now() + if of_day { EPOCH } else { START };
        let time = libc::timespec {
            tv_sec: time.as_secs() as libc::time_t,
            tv_nsec: time.subsec_nanos().into(),
        };
        // SAFETY: the caller promises that it can be written to.
        unsafe { to.write(time) };
        0
    }

    /// # Safety
    /// As for the function of the C library: `length` bytes can be written to `to`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn getrandom(
        to: *mut libc::c_void,
        length: libc::size_t,
        flags: libc::c_uint,
    ) -> libc::ssize_t {
        if !ENTERED.try_with(std::cell::Cell::get).unwrap_or(false) {
            // SAFETY: the caller's promise is the one that the system call asks for.
            return unsafe { libc::syscall(libc::SYS_getrandom, to, length, flags) }
                as libc::ssize_t;
        }
        let to: *mut u8 = to.cast();
        for from in (0..length).step_by(8) {
            let bytes = super::random();
            let count = bytes.len().min(length - from);
            // SAFETY: `from + count` is at most `length`.
            unsafe { to.add(from).copy_from_nonoverlapping(bytes.as_ptr(), count) };
        }
        length as libc::ssize_t
    }

    #[unsafe(no_mangle)]
    extern "C" fn getpid() -> libc::pid_t {
        if !ENTERED.try_with(std::cell::Cell::get).unwrap_or(false) {
            // SAFETY: this system call takes nothing and always succeeds.
            return unsafe { libc::syscall(libc::SYS_getpid) } as libc::pid_t;
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::hash_map::RandomState,
        hash::BuildHasher,
        thread,
        time::{SystemTime, UNIX_EPOCH},
    };

    use super::*;

    /// Runs `read` in virtual time, on a thread of its own.
    fn simulate<T: Send>(seed: u64, read: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(seed);
                let value = read();
                leave();
                value
            });
            thread.join().expect("the test's own code panics")
        })
    }

    #[test]
    fn time_is_what_was_set_and_that_of_a_paused_runtime_within_it() {
        simulate(1, || {
            let start = Instant::now();
            let unix = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            set(Duration::from_millis(1_500));
            assert_eq!(start.elapsed(), Duration::from_millis(1_500));
            assert_eq!(unix(), EPOCH + Duration::from_millis(1_500));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                assert_eq!(now(), Duration::from_millis(3_601_500));
                assert_eq!(unix(), EPOCH + Duration::from_millis(3_601_500));
            });
        });
        let real = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        assert!(real > EPOCH + Duration::from_secs(60), "{real:?}");
    }

    #[test]
    fn the_process_id_is_always_the_same() {
        assert_eq!(simulate(1, std::process::id), 1);
        assert_ne!(std::process::id(), 1);
    }

    #[test]
    fn random_numbers_follow_from_the_seed() {
        let key = |seed| simulate(seed, || RandomState::new().hash_one(1));
        assert_eq!(key(1), key(1));
        assert_ne!(key(1), key(2));
        let real = |_| thread::spawn(|| RandomState::new().hash_one(1)).join().expect("no panic");
        assert_ne!(real(1), real(2));
    }
}
