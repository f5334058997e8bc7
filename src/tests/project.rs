//! Claims about the tree as a whole.
