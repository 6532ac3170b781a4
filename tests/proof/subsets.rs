//! Every subset of the compensations fails.
