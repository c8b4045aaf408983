//! Pictures of the array as SVG.
