//! A drain and a rollback, dropped after each of their polls.
