//! No wake-up is lost, and nothing idle is polled.
