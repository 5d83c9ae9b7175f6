//! Applies a directory of a Git repository to a cluster and prunes.
