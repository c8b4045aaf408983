//! libFuzzer's entry; what is checked is in `checks/`, shared with the test that replays the corpus.
#![no_main]

#[path = "../checks/tokenizer.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(
    // A panic inside the `tokenizers` crate is a typed error by contract. libFuzzer's own hook would end the
    // process at it; without that hook only a panic that gets out of the check does.
    init: drop(std::panic::take_hook()),
    |data: &[u8]| checks::check(data)
);
