//! The operations beside the drain, one by one.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod broadcast;
mod broadcast_subscribers;
mod cancellation;
mod combinator_edges;
mod combinator_model;
mod combinator_nesting;
mod combinators;
mod destination;
mod found;
mod group;
mod group_open;
mod merge;
mod partition;
mod select;
mod strategy;
mod stream_endings;
mod streams;
mod timers;
mod window;
mod with_timeout;
