//! The shell of Kratix: observe, decide, act.
