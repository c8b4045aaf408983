//! Any bytes as a CDO, and as the text of one.

use xclbin_tools::{
    cdo::{self, Cdo},
    verify,
};

/// Reads `data`, writes it as text and reads that.
pub(crate) fn check(data: &[u8]) {
    let _ = verify::file(data, None);
    if let Ok(cdo) = Cdo::parse(data) {
        let text = cdo::dump(&cdo);
        assert_eq!(cdo::assemble(&text).as_deref(), Ok(data), "{text}");
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(bytes) = cdo::assemble(text)
        && let Ok(cdo) = Cdo::parse(&bytes)
    {
        let text = cdo::dump(&cdo);
        assert_eq!(cdo::assemble(&text).as_deref(), Ok(bytes.as_slice()), "{text}");
    }
    let zone = data.first().map_or(0, |&byte| u32::from(byte) * 4);
    if let Some(Ok(cdo)) = data.get(1..).map(|data| Cdo::parse_transformed(data, zone)) {
        assert!(cdo::assemble(&cdo::dump(&cdo)).is_ok());
    }
}
