//! The devices: columns, rows, memories and registers of their arrays.
