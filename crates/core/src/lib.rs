//! The decisions of Kratix, pure.
