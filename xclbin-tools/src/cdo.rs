//! Configuration data objects, version 2: the commands inside a PDI.
