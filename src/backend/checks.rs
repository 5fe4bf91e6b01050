//! What a link asks behind its batches, and what the answers let go; see [`hold`](super::hold).

use std::rc::Rc;

use bytes::Bytes;

use super::Link;
use super::hold::{Check, Hold, NO, slots};
use super::link::Inner;
use super::request::Expected;
use super::rules::{Settling, known_epoch};
use crate::resp;

impl Link {
    pub(super) fn on_check(
        self: &Rc<Self>,
        check: Check,
        frame: &[u8],
        hold: &mut Hold,
        buffer: &[u8],
        epoch: &mut Option<Bytes>,
    ) {
        match check {
            Check::Settling if frame == NO => {
                hold.release(Settling::Nothing, buffer);
                self.inner.borrow_mut().is_settling = false;
            }
            Check::Settling => {
                hold.release(Settling::Something, buffer);
                self.look_again();
            }
            Check::SettlingKeys if resp::is_error(frame) => {
                hold.release(Settling::Something, buffer);
            }
            Check::SettlingKeys => match slots(frame) {
                Some(slots) => {
                    self.inner.borrow_mut().is_settling = !slots.is_empty();
                    hold.release(Settling::Slots(&slots), buffer);
                }
                None => hold.release(Settling::Something, buffer),
            },
            Check::Epoch => {
                let seen = resp::as_bulk(frame);
                hold.tell_epoch(seen, buffer);
                // No epoch yet: no transaction has ever been prepared there.
                *epoch = (!resp::is_error(frame))
                    .then(|| Bytes::copy_from_slice(seen.unwrap_or_default()));
            }
            Check::Index => {
                let seen = epoch.take();
                self.inner.borrow_mut().epoch = known_epoch(seen, frame == NO);
            }
        }
        self.inner.borrow_mut().held = hold.held();
    }
}

impl Inner {
    /// Ends a batch with the questions on whose answers its replies depend.
    pub(super) fn append_checks(&mut self) {
        if std::mem::take(&mut self.needs_epoch) {
            self.ask(Check::Epoch);
            self.ask(Check::Index);
        }
        if std::mem::take(&mut self.needs_settling) {
            self.ask(if self.is_settling {
                Check::SettlingKeys
            } else {
                Check::Settling
            });
        }
    }

    fn ask(&mut self, check: Check) {
        self.append(&[check.question(self.is_afar)]);
        self.pending.push_back(Expected::Check(check));
    }
}
