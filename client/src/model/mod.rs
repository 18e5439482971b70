//! The rollout model.
