//! Ceremonies through the library: rotations with devices of every generation, refusals, and signatures of other programs.

mod attacks;
mod bad_input;
mod clients;
mod fields;
mod outside;
mod rotations;
mod table;
