//! From a workspace to a store that devices read: DESIGN.md section 6.

mod headers;

pub use self::headers::Headers;
