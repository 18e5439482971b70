//! What people and programs read about a repository: its state, the status page, and what is wrong with it.

pub mod doctor;
pub mod next;
pub mod site;
pub mod stops;
pub mod view;
