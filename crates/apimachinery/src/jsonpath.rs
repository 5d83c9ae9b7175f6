//! The JSONPath dialect of printer columns and kubectl.
