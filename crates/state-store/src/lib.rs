//! Where files go: Git repositories and other stores.
