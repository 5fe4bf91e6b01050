//! Stopping: from the signal to the exit, seen by every thread.
//!
//! The state only moves forward: *serving*, then *draining* (nothing new starts, what runs is
//! finished), then *hurrying* (what cannot be finished now is left recoverable). [`Shutdown`] is
//! what everyone holds and waits on, [`Trigger`] moves it. Both work from any runtime.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Draining,
    Hurrying,
}

/// Tells whether to stop. Cheap to clone. If every [`Trigger`] is gone, everything is told to
/// hurry: nobody is left who could say so.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Phase>);

/// Moves everyone who holds a [`Shutdown`] on.
#[derive(Clone, Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// A pair in the state *serving*.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    (Trigger(sender), Shutdown(receiver))
}

impl Shutdown {
    /// Whether nothing new may start.
    pub fn is_draining(&self) -> bool {
        self.reached(Phase::Draining)
    }

    /// Whether to stop at once.
    pub fn is_hurrying(&self) -> bool {
        self.reached(Phase::Hurrying)
    }

    /// Waits until nothing new may start; at once if that is so. Safe to drop at any time.
    pub async fn draining(&self) {
        self.wait(Phase::Draining).await;
    }

    /// Waits until everything has to stop at once. Safe to drop at any time.
    pub async fn hurrying(&self) {
        self.wait(Phase::Hurrying).await;
    }

    fn reached(&self, phase: Phase) -> bool {
        *self.0.borrow() >= phase || self.0.has_changed().is_err()
    }

    async fn wait(&self, phase: Phase) {
        // An error means that all triggers are gone.
        let _ = self.0.clone().wait_for(|now| *now >= phase).await;
    }
}

impl Trigger {
    /// Starts draining, unless that was done.
    pub fn drain(&self) {
        self.reach(Phase::Draining);
    }

    /// Ends the patience.
    pub fn hurry(&self) {
        self.reach(Phase::Hurrying);
    }

    fn reach(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let further = *now < phase;
            *now = phase.max(*now);
            further
        });
    }
}

/// Waits for SIGTERM and SIGINT for ever: the first one drains, each later one hurries.
///
/// # Errors
///
/// When the signals cannot be listened to.
pub async fn on_signals(trigger: Trigger) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut seen = 0_u32;
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        seen = seen.saturating_add(1);
        if seen == 1 {
            tracing::info!(signal = name, "draining");
            trigger.drain();
        } else {
            tracing::warn!(signal = name, "hurrying");
            trigger.hurry();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn the_state_only_moves_forward() {
        let (trigger, shutdown) = channel();
        assert!(!shutdown.is_draining() && !shutdown.is_hurrying());
        trigger.drain();
        assert!(shutdown.is_draining() && !shutdown.is_hurrying());
        trigger.hurry();
        trigger.drain();
        assert!(shutdown.is_draining() && shutdown.is_hurrying());
    }

    #[test]
    fn every_runtime_is_woken() {
        let (trigger, shutdown) = channel();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let shutdown = shutdown.clone();
                std::thread::spawn(move || block_on(shutdown.draining()))
            })
            .collect();
        trigger.drain();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        block_on(shutdown.draining());
    }

    #[test]
    fn without_a_trigger_everything_stops() {
        let (trigger, shutdown) = channel();
        drop(trigger);
        assert!(shutdown.is_hurrying());
        block_on(shutdown.hurrying());
    }
}
