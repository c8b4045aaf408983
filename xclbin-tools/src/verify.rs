//! Finds what hardware would answer with garbage or a hang.
