//! Ceremonies through the library: rotations with devices of every generation, refusals, and signatures of other programs.

mod bad_input;
mod outside;
mod rotations;
mod table;
