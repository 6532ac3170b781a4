//! The program as its user runs it: fed, killed, ended by signals, and audited.

mod files;
mod servers;
mod support;
