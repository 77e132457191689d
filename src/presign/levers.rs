//! What the capacity guard asks of the engine while the HSM is short of signatures.

use std::sync::atomic::{AtomicU32, Ordering};

/// The levers, set by the guard and read by the pipelines and the keeper.
#[derive(Debug)]
pub struct Levers {
    pack: AtomicU32,
    /// The refresh interval over the one that is configured, in millionths.
    stretch: AtomicU32,
}

const MILLION: f64 = 1e6;

impl Default for Levers {
    fn default() -> Self {
        Self { pack: AtomicU32::new(1), stretch: AtomicU32::new(MILLION as u32) }
    }
}

impl Levers {
    /// Sets them: certificates under one signature at the most, and how many times the configured refresh
    /// interval is planned with. Neither falls below 1.
    pub fn set(&self, pack: u32, stretch: f64) {
        self.pack.store(pack.max(1), Ordering::Relaxed);
        let stretch = if stretch.is_finite() { stretch.clamp(1.0, 1_000.0) } else { 1.0 };
        self.stretch.store((stretch * MILLION) as u32, Ordering::Relaxed);
    }

    /// Certificates under one signature at the most; 1 for no packs.
    #[must_use]
    pub fn pack(&self) -> usize {
        self.pack.load(Ordering::Relaxed) as usize
    }

    /// How many times the configured refresh interval is planned with.
    #[must_use]
    pub fn stretch(&self) -> f64 {
        f64::from(self.stretch.load(Ordering::Relaxed)) / MILLION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levers_that_nobody_set_change_nothing() {
        let levers = Levers::default();
        assert_eq!((levers.pack(), levers.stretch()), (1, 1.0));
        levers.set(0, 0.5);
        assert_eq!((levers.pack(), levers.stretch()), (1, 1.0));
        levers.set(8, 1.25);
        assert_eq!((levers.pack(), levers.stretch()), (8, 1.25));
        levers.set(8, f64::NAN);
        assert_eq!((levers.pack(), levers.stretch()), (8, 1.0));
    }
}
