//! Makes, splits and merges XCLBINs.
