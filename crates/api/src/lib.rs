//! The objects of Kratix as values.
