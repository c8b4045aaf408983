//! The container: header, table of sections, their bytes, and the JSON mirror behind them.
