//! Runs Jobs and Pods of any API server on this machine.
