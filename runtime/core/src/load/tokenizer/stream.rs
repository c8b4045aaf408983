//! Text from tokens as they come, never splitting a character, and stops at strings.
//!
//! The text of a stream is exactly the lossy UTF-8 reading of the bytes of its tokens, wherever the
//! tokens' borders lie: a character that arrives in three tokens appears with the third.

use super::Tokenizer;

/// Turns tokens into text, one at a time.
#[derive(Debug)]
pub struct TokenStream<'t> {
    tokenizer: &'t Tokenizer,
    /// The beginning of a character whose rest has not come: at most 3 bytes between calls.
    pending: Vec<u8>,
    text: String,
    /// The leading space of the vocabulary's first word is still to be taken away.
    strip_space: bool,
    show_control: bool,
}

impl<'t> TokenStream<'t> {
    /// A stream at the beginning of a text: the space that some vocabularies put there is taken away.
    pub fn new(tokenizer: &'t Tokenizer) -> TokenStream<'t> {
        let strip_space = tokenizer.strips_leading_space();
        TokenStream { strip_space, ..TokenStream::continuing(tokenizer) }
    }

    /// A stream that goes on behind other text: a leading space stays.
    pub fn continuing(tokenizer: &'t Tokenizer) -> TokenStream<'t> {
        TokenStream {
            tokenizer,
            pending: Vec::with_capacity(64),
            text: String::with_capacity(64),
            strip_space: false,
            show_control: false,
        }
    }

    /// Shows control tokens by their names instead of leaving them out.
    #[must_use]
    pub fn showing_control_tokens(mut self) -> TokenStream<'t> {
        self.show_control = true;
        self
    }

    /// Takes the next token; gives the text that is complete now and was not given before.
    pub fn push(&mut self, token: u32) -> &str {
        self.text.clear();
        if self.show_control || !self.tokenizer.is_special(token) {
            let mut bytes = self.tokenizer.token_bytes(token);
            if self.strip_space && !bytes.is_empty() {
                self.strip_space = false;
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
            self.pending.extend_from_slice(bytes);
            self.drain();
        }
        &self.text
    }

    /// The end: what is left of an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }

    /// Moves what is certain from `pending` to `text`.
    fn drain(&mut self) {
        let mut certain = 0;
        for chunk in self.pending.utf8_chunks() {
            self.text.push_str(chunk.valid());
            certain += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            let is_last = certain + invalid.len() == self.pending.len();
            if is_last && may_go_on(invalid) {
                break;
            }
            self.text.push(char::REPLACEMENT_CHARACTER);
            certain += invalid.len();
        }
        self.pending.drain(..certain);
    }
}

/// Whether these bytes are the beginning of a character.
fn may_go_on(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

/// Text that may be shown, and whether a stop was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released<'m> {
    /// Text before any stop; it was not given before.
    pub text: &'m str,
    /// Which of the stops was met. From then on nothing more is released.
    pub stop: Option<usize>,
}

/// Finds stop strings in text that comes in pieces, and holds back what may become one.
///
/// The stop that is complete first counts (of those the longest), so the result does not depend on
/// how the text was cut into pieces.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    released: String,
    stopped: Option<usize>,
}

impl StopMatcher {
    /// Matches these strings; empty ones never match.
    pub fn new(stops: Vec<String>) -> StopMatcher {
        StopMatcher { stops, held: String::new(), released: String::new(), stopped: None }
    }

    /// Takes more text.
    pub fn push(&mut self, text: &str) -> Released<'_> {
        self.released.clear();
        if self.stopped.is_none() {
            self.held.push_str(text);
            let keep_from = match self.first_stop() {
                Some((start, stop)) => {
                    self.stopped = Some(stop);
                    start
                }
                None => self.possible_stop_start(),
            };
            self.released.push_str(self.held.get(..keep_from).unwrap_or(""));
            self.held.drain(..keep_from);
        }
        Released { text: &self.released, stop: self.stopped }
    }

    /// The end of the text: what was held back and became no stop.
    pub fn finish(&mut self) -> &str {
        self.released.clear();
        if self.stopped.is_none() {
            std::mem::swap(&mut self.released, &mut self.held);
        }
        &self.released
    }

    /// Start and number of the stop that ends first.
    fn first_stop(&self) -> Option<(usize, usize)> {
        let found = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        found
            .filter_map(|(number, stop)| {
                let start = self.held.find(stop.as_str())?;
                Some((start + stop.len(), start, number))
            })
            .min()
            .map(|(_, start, number)| (start, number))
    }

    /// Where the longest end of the held text begins that could still become a stop.
    fn possible_stop_start(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        (from..self.held.len())
            .filter(|&start| self.held.is_char_boundary(start))
            .find(|&start| self.stops.iter().any(|stop| stop.starts_with(&self.held[start..])))
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut text = String::new();
        for piece in pieces {
            let released = matcher.push(piece);
            text.push_str(released.text);
            if released.stop.is_some() {
                let stop = released.stop;
                text.push_str(matcher.finish());
                return (text, stop);
            }
        }
        text.push_str(matcher.finish());
        (text, None)
    }

    #[test]
    fn holds_back_what_may_become_a_stop() {
        let mut matcher = StopMatcher::new(vec!["\n\nUser:".to_owned(), "END".to_owned()]);
        assert_eq!(matcher.push("Hi.\n").text, "Hi.");
        assert_eq!(matcher.push("\nUse").text, "");
        assert_eq!(matcher.push("d E").text, "\n\nUsed ");
        assert_eq!(matcher.push("N"), Released { text: "", stop: None });
        assert_eq!(matcher.push("D of it"), Released { text: "", stop: Some(1) });
        assert_eq!(matcher.push("more"), Released { text: "", stop: Some(1) });
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn no_stops_hold_nothing() {
        assert_eq!(run(&[], &["ab", "c"]), ("abc".to_owned(), None));
        assert_eq!(run(&[""], &["ab"]), ("ab".to_owned(), None));
        assert_eq!(run(&["abd"], &["ab", "abab"]), ("ababab".to_owned(), None));
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(
            stops in proptest::collection::vec("[ab日]{0,4}", 0..4),
            text in "[ab日]{0,20}",
            cut in 0_usize..20,
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = run(&stops, &[&text]);
            let characters: Vec<String> = text.chars().map(String::from).collect();
            let single: Vec<&str> = characters.iter().map(String::as_str).collect();
            prop_assert_eq!(&run(&stops, &single), &whole);
            let cut = text.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(text.len());
            prop_assert_eq!(&run(&stops, &[&text[..cut], &text[cut..]]), &whole);
            if whole.1.is_none() {
                prop_assert!(!stops.iter().any(|stop| !stop.is_empty() && text.contains(stop)));
                prop_assert_eq!(whole.0, text);
            }
        }
    }
}
