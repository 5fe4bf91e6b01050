//! The program as its users meet it: command line, files, signals, endpoints, `lockstep dev`.

mod check;
mod dev;
mod endpoints;
mod help;
mod running;
#[path = "../support/mod.rs"]
mod support;
