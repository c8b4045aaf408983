//! libFuzzer's entry; what is checked is in `checks/`, shared with the test that replays the corpus.
#![no_main]

#[path = "../checks/aie_elf.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
