//! Tidegate: signed over-the-air releases as static files.
