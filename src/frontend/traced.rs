//! Commands and transactions that are traced: because their client asks for it by `LOCKSTEP TRACE`,
//! or because it is their turn (`trace-sample`). See [`crate::traces`].
//!
//! A traced command takes the way of all others. Its trace ends with the reply to it; that of a
//! transaction begins with MULTI and ends with the reply to EXEC.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use super::dispatch::{Dispatcher, Flow};
use crate::config::Config;
use crate::keyspace::Lookup;
use crate::metrics::Family;
use crate::resp::{Command, build, error_text, is_error};
use crate::traces::{Parent, Trace};
use crate::txn::queue::Target;

const NO_PARENT: &str = "ERR that is no traceparent of W3C Trace Context \
     (00-<32 hexadecimal digits>-<16>-<2>), or what follows is no tracestate";

/// The traces of one session.
#[derive(Default)]
pub(super) struct Traces {
    /// The next command is traced.
    is_pending: Cell<bool>,
    /// Of the slot that is opened next.
    next: RefCell<Option<Rc<Trace>>>,
    is_next: Cell<bool>,
    /// By the number of their slot.
    open: RefCell<Vec<(u64, Rc<Trace>)>>,
}

impl Traces {
    /// Whether the next command is traced.
    pub(super) fn is_pending(&self) -> bool {
        self.is_pending.get()
    }

    /// Whether the slot that is opened now has a trace.
    #[inline]
    pub(super) fn is_next(&self) -> bool {
        self.is_next.get()
    }

    /// It belongs to this slot.
    pub(super) fn attach(&self, number: u64) {
        self.is_next.set(false);
        let trace = self.next.take();
        self.open
            .borrow_mut()
            .extend(trace.map(|trace| (number, trace)));
    }

    /// The slot was given back: the trace waits for another.
    pub(super) fn detach(&self, number: u64) {
        if let Some(trace) = self.take(number) {
            self.expect(Some(trace));
        }
    }

    /// The reply has come, to a request written then.
    pub(super) fn end(&self, number: u64, reply: &[u8], asked_at: Instant) {
        if let Some(trace) = self.take(number) {
            trace.end(error_of(reply), Some(asked_at));
        }
    }

    fn take(&self, number: u64) -> Option<Rc<Trace>> {
        let mut open = self.open.borrow_mut();
        let at = open.iter().position(|(known, _)| *known == number)?;
        Some(open.swap_remove(at).1)
    }

    fn expect(&self, trace: Option<Rc<Trace>>) {
        self.is_next.set(trace.is_some());
        *self.next.borrow_mut() = trace;
    }
}

/// The code of an error: what follows may show keys.
fn error_of(reply: &[u8]) -> Option<String> {
    if !is_error(reply) {
        return None;
    }
    let text = error_text(reply);
    let code = text.split(|&byte| byte == b' ').next().unwrap_or_default();
    Some(String::from_utf8_lossy(code).into_owned())
}

impl Dispatcher {
    /// Whether this is LOCKSTEP TRACE.
    pub(super) fn is_trace(command: &Command<'_>) -> bool {
        let is_named = |name: &[u8]| name.eq_ignore_ascii_case(b"trace");
        Self::is_lockstep(command) && command.arg(1).is_some_and(is_named)
    }

    /// LOCKSTEP TRACE: what this client does next is part of that trace. Inside MULTI it is the
    /// transaction, and this has its place in it.
    pub(super) fn trace_next(&mut self, command: &Command<'_>) -> Flow {
        let traceparent = command.arg(2).unwrap_or_default();
        let tracestate = command.arg(3).unwrap_or_default();
        let parent = Parent::read(traceparent, tracestate).filter(|_| command.argc() <= 4);
        let Some(parent) = parent else {
            return self.reject(NO_PARENT);
        };
        self.begin_trace(parent);
        if self.multi.is_some() {
            return self.enqueue(command, Target::Own);
        }
        self.session.reply(|out| build::status(out, "OK"));
        self.counted(Family::Local)
    }

    /// Whether a trace of our own is to begin with this command.
    pub(super) fn is_turn_to_trace(&self, config: &Config) -> bool {
        self.trace.is_none()
            && self.multi.is_none()
            && self.context.tracer.is_turn(config.trace_sample)
    }

    /// Deals with a command that begins a trace of our own.
    pub(super) fn sampled(&mut self, command: &Command<'_>) -> Flow {
        self.begin_trace(Parent::none());
        self.dispatch_traced(command)
    }

    fn begin_trace(&mut self, parent: Parent) {
        let trace = Trace::begin(&self.context.tracer, parent);
        trace.note("db.system.name", "redis");
        trace.note("db.namespace", i64::from(self.lane.db));
        trace.note("client.address", self.entry.address.as_str());
        self.trace = Some(Rc::new(trace));
        self.expects_trace(true);
    }

    /// The next command is traced, or is not.
    fn expects_trace(&self, expects: bool) {
        self.session.traces.is_pending.set(expects);
        let is_special = &self.session.is_special;
        is_special.set(is_special.get() || expects);
    }

    /// Deals with a command that may be traced.
    pub(super) fn dispatch_traced(&mut self, command: &Command<'_>) -> Flow {
        let Some(trace) = self.trace.clone().filter(|_| !Self::is_trace(command)) else {
            return self.dispatch(command);
        };
        let name = self.operation(command);
        trace.name(&name);
        trace.note("db.operation.name", name.as_str());
        self.session.traces.expect(Some(Rc::clone(&trace)));
        let engine = Rc::clone(&self.context.engine);
        engine.under(Some(Rc::clone(&trace)));
        let flow = self.dispatch(command);
        engine.under(None);
        let is_answered = self.session.traces.is_next();
        self.session.traces.expect(None);
        if flow == Flow::Wait || self.multi.is_some() {
            return flow;
        }
        self.trace = None;
        self.expects_trace(false);
        if is_answered {
            trace.end(None, None);
        }
        flow
    }

    fn operation(&self, command: &Command<'_>) -> String {
        match self.context.table.lookup(command) {
            Lookup::Known(spec) | Lookup::UnknownSubcommand(spec) => {
                spec.name.replace('|', " ").to_uppercase()
            }
            Lookup::Unknown if Self::is_lockstep(command) => "LOCKSTEP".into(),
            Lookup::Unknown => "UNKNOWN".into(),
        }
    }
}
