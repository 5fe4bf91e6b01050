//! The program as its users meet it: command line, files, signals, endpoints, `lockstep dev`.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

mod check;
mod collector;
mod dev;
mod endpoints;
mod guards;
mod help;
mod install;
mod reload;
mod running;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod watching;
