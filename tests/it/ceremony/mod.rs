//! Ceremonies through the library: the first root, rotations with devices of every generation, refusals, and signatures of other programs.

mod attacks;
mod bad_input;
mod clients;
mod fields;
mod first;
mod outside;
mod rotations;
mod table;
