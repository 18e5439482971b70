//! The trust core.
