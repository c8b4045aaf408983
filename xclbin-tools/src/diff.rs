//! Compares two packages by meaning.
