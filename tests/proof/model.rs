//! Random programs against a small reference model.
