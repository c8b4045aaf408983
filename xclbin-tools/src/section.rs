//! What stands in the sections of a container.
