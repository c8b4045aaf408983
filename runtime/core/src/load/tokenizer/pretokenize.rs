//! How text is cut into words before byte-pair encoding, by the name that a GGUF file gives.
//!
//! Each scheme is a list of passes; each pass cuts every word of the pass before it into its matches
//! and what lies between them. The patterns run on an engine without backtracking, so their cost is
//! linear in the text whatever the text is. That engine has no look-ahead; the only one that these
//! schemes need, `\s+(?!\S)` ("spaces, but leave the last one to the word behind them"), is done by
//! hand: see [`Pass::leaves_last_space`].
//!
//! Schemes whose patterns need more than that are not here: an unknown name is an error that says so.

use regex::Regex;

use super::TokenizerError;

/// One pass of a scheme, as written in the table below.
#[derive(Clone, Copy, Debug)]
struct Pass {
    pattern: &'static str,
    /// The pattern ends in `\s+(?!\S)|\s+`; its look-ahead is left to [`cut`].
    leaves_last_space: bool,
    /// The pattern has `\s*[\r\n]+` before that: spaces that end in a line break stay whole.
    keeps_line_breaks: bool,
}

const fn plain(pattern: &'static str) -> Pass {
    Pass { pattern, leaves_last_space: false, keeps_line_breaks: false }
}

const fn spaced(pattern: &'static str) -> Pass {
    Pass { pattern, leaves_last_space: true, keeps_line_breaks: false }
}

const fn lined(pattern: &'static str) -> Pass {
    Pass { pattern, leaves_last_space: true, keeps_line_breaks: true }
}

const GPT2: Pass = spaced(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+");
const DIGIT: Pass = plain(r"\p{N}");
const DIGITS_3: Pass = plain(r"\p{N}{1,3}");

macro_rules! worded {
    ($letters:literal, $digits:literal, $other:literal) => {
        lined(concat!(
            r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|",
            r"[^\r\n\p{L}\p{N}]?",
            $letters,
            "|",
            $digits,
            "|",
            $other,
            r"|\s*[\r\n]+|\s+"
        ))
    };
}

const LLAMA_3: Pass = worded!(r"\p{L}+", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*");
const QWEN_2: Pass = worded!(r"\p{L}+", r"\p{N}", r" ?[^\s\p{L}\p{N}]+[\r\n]*");
const QWEN_35: Pass = worded!(r"[\p{L}\p{M}]+", r"\p{N}", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*");
const SEED_CODER: Pass = worded!(r"\p{L}+", r"\p{N}", r" ?[^\s\p{L}\p{N}\r\n]+");

macro_rules! cased {
    ($suffix:literal, $digits:literal) => {
        lined(concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            $suffix,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            $suffix,
            "|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
        ))
    };
}

const TEKKEN: Pass = cased!("", r"\p{N}");
const GPT_4O: Pass = cased!(r"(?:'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD]))?", r"\p{N}{1,3}");

const DEEPSEEK_3_WORDS: Pass = lined(concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"##,
    r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"
));
const CJK_KANA: Pass = plain("[一-龥぀-ゟ゠-ヿ]+");
const LINE_BREAK: Pass = plain(r"[\r\n]");
const CJK_HANGUL: Pass = plain("[一-龥ࠀ-一가-\u{d7ff}]+");

/// Latin, Greek, Cyrillic, Armenian, Georgian and Cherokee letters that have case.
const DEEPSEEK_CASED_LETTERS: Pass = plain(concat!(
    r"\s?[",
    r"A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-",
    r"\u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-",
    r"\u{3a1}\u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-",
    r"\u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}",
    r"\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-",
    r"\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}",
    r"\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-",
    r"\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}",
    r"\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}",
    r"\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}",
    r"\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-",
    r"\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}",
    r"\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}",
    r"\u{1e900}-\u{1e943}",
    r"]+"
));

/// A scheme: its names, its passes, and what comes with it.
struct Scheme {
    names: &'static [&'static str],
    passes: &'static [Pass],
    /// A word that is a token as it stands is not built from merges.
    whole_words_first: bool,
    /// The beginning mark is added unless the file says otherwise.
    adds_bos: bool,
}

const fn scheme(names: &'static [&'static str], passes: &'static [Pass]) -> Scheme {
    Scheme { names, passes, whole_words_first: false, adds_bos: false }
}

const SCHEMES: &[Scheme] = &[
    scheme(&["default"], &[plain(r"[\p{P}$+<=>^~|]+"), GPT2, plain(r"\p{N}+"), plain("[0-9][0-9][0-9]")]),
    scheme(
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
        ],
        &[GPT2],
    ),
    scheme(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[DIGIT, GPT2],
    ),
    Scheme {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        passes: &[LLAMA_3],
        whole_words_first: true,
        adds_bos: true,
    },
    scheme(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA_3]),
    Scheme { names: &["glm4", "glm5"], passes: &[LLAMA_3], whole_words_first: true, adds_bos: false },
    scheme(
        &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"],
        &[QWEN_2],
    ),
    scheme(&["qwen35"], &[QWEN_35]),
    scheme(&["laguna"], &[plain(r"[^\n]+|\n+"), QWEN_2]),
    scheme(&["seed-coder"], &[SEED_CODER]),
    Scheme { names: &["tekken"], passes: &[TEKKEN], whole_words_first: true, adds_bos: true },
    scheme(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT_4O]),
    scheme(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], &[DIGITS_3, CJK_KANA, DEEPSEEK_3_WORDS]),
    scheme(
        &["deepseek-llm"],
        &[
            LINE_BREAK,
            DEEPSEEK_CASED_LETTERS,
            plain(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            plain(r"\s+$"),
            CJK_HANGUL,
            plain(r"\p{N}+"),
        ],
    ),
    scheme(&["deepseek-coder"], &[LINE_BREAK, plain(r"\s?\p{L}+"), plain(r"\s?\p{P}+"), CJK_HANGUL, DIGIT]),
    scheme(&["falcon"], &[plain(r"[\p{P}$+<=>^~|`]+"), GPT2, plain("[0-9][0-9][0-9]")]),
    scheme(&["poro-chat", "bloom", "gpt3-finnish"], &[plain(r" ?[^(\s|.,!?…。，、।۔،)]+")]),
    scheme(&["viking"], &[plain(r" ?[^(\s|.,!?…。，、।۔،)]+"), DIGIT]),
];

/// Cuts text into words.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    passes: Vec<(Regex, Pass)>,
    pub(super) whole_words_first: bool,
    pub(super) adds_bos: bool,
}

impl PreTokenizer {
    /// The scheme of this name.
    pub(super) fn named(name: &str) -> Result<PreTokenizer, TokenizerError> {
        let scheme = SCHEMES
            .iter()
            .find(|scheme| scheme.names.contains(&name))
            .ok_or_else(|| TokenizerError::UnknownPreTokenizer(super::shortened(name)))?;
        let passes = scheme
            .passes
            .iter()
            .map(|pass| match Regex::new(pass.pattern) {
                Ok(regex) => Ok((regex, *pass)),
                Err(error) => Err(TokenizerError::Malformed(format!("pattern of {name}: {error}"))),
            })
            .collect::<Result<_, _>>()?;
        Ok(PreTokenizer { passes, whole_words_first: scheme.whole_words_first, adds_bos: scheme.adds_bos })
    }

    /// Gives the words of a text in order; together they are the text, and none is empty.
    pub(super) fn split<'t>(&self, text: &'t str, each: &mut dyn FnMut(&'t str)) {
        split_by(&self.passes, text, each);
    }
}

fn split_by<'t>(passes: &[(Regex, Pass)], text: &'t str, each: &mut dyn FnMut(&'t str)) {
    match passes.split_first() {
        None => each(text),
        Some(((regex, pass), later)) => cut(regex, *pass, text, &mut |word| split_by(later, word, each)),
    }
}

/// One pass over one word of the pass before it.
fn cut<'t>(regex: &Regex, pass: Pass, text: &'t str, each: &mut dyn FnMut(&'t str)) {
    let mut give = |start: usize, end: usize| {
        if let Some(word) = text.get(start..end)
            && !word.is_empty()
        {
            each(word);
        }
    };
    let mut done = 0;
    while let Some(found) = regex.find_at(text, done) {
        let mut end = found.end();
        if pass.leaves_last_space && end < text.len() {
            end = end.saturating_sub(last_space_to_leave(found.as_str(), pass.keeps_line_breaks));
        }
        if end == done {
            // No pattern of the table matches nothing; this keeps the loop finite if one ever did.
            break;
        }
        give(done, found.start());
        give(found.start(), end);
        done = end;
    }
    give(done, text.len());
}

/// How many bytes at the end of a match `\s+(?!\S)` would not have taken: its last space, if the
/// match is nothing but spaces and more than one.
fn last_space_to_leave(found: &str, keeps_line_breaks: bool) -> usize {
    let Some(last) = found.chars().next_back() else { return 0 };
    let stays = keeps_line_breaks && matches!(last, '\r' | '\n');
    let is_blank = || found.chars().all(char::is_whitespace);
    if last.is_whitespace() && !stays && found.len() > last.len_utf8() && is_blank() { last.len_utf8() } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(name: &str, text: &str, expected: &[&str]) {
        let mut words = Vec::new();
        PreTokenizer::named(name).unwrap().split(text, &mut |word| words.push(word));
        assert_eq!(words, expected, "{name}: {text:?}");
    }

    #[test]
    fn spaces_stay_with_the_word_behind_them() {
        check("gpt-2", "a  b   ", &["a", " ", " b", "   "]);
        check("gpt-2", "a\n\n b", &["a", "\n\n", " b"]);
        check("gpt-2", "a \nb", &["a", " ", "\n", "b"]);
        check("llama-bpe", "a \n b", &["a", " \n", " b"]);
        check("llama-bpe", "x \u{a0}y", &["x", " ", "\u{a0}y"]);
    }

    #[test]
    fn digits_and_contractions_follow_the_family() {
        check("gpt-2", "I'll pay 12345", &["I", "'ll", " pay", " 12345"]);
        check("smollm", "pay 123", &["pay", " ", "1", "2", "3"]);
        check("llama-bpe", "I'LL 12345", &["I", "'LL", " ", "123", "45"]);
        check("qwen2", "it's 42!\n", &["it", "'s", " ", "4", "2", "!\n"]);
        check("tekken", "HelloWorld HTTPServer", &["Hello", "World", " HTTPServer"]);
        check("gpt-4o", "HelloWorld don't", &["Hello", "World", " don't"]);
        check("falcon", "1234567 (x)", &["123", "456", "7", " ", "(", "x", ")"]);
    }

    #[test]
    fn an_unknown_name_is_named() {
        let error = PreTokenizer::named("nobody-knows").unwrap_err().to_string();
        assert!(error.contains("nobody-knows"), "{error}");
    }

    /// The same patterns with the look-ahead spelled out, for an engine that has it.
    fn by_backtracking(name: &str, text: &str) -> Vec<String> {
        let scheme = SCHEMES.iter().find(|scheme| scheme.names.contains(&name)).unwrap();
        scheme.passes.iter().fold(vec![text.to_owned()], |words, pass| {
            let spelled = match pass.pattern.strip_suffix(r"|\s+") {
                Some(head) if pass.leaves_last_space => format!(r"{head}|\s+(?!\S)|\s+"),
                _ => pass.pattern.to_owned(),
            };
            let regex = fancy_regex::Regex::new(&spelled).unwrap();
            let cut = |word: &String| {
                let mut parts = Vec::new();
                let mut done = 0;
                for found in regex.find_iter(word) {
                    let found = found.unwrap();
                    parts.push(word[done..found.start()].to_owned());
                    parts.push(found.as_str().to_owned());
                    done = found.end();
                }
                parts.push(word[done..].to_owned());
                parts.retain(|part| !part.is_empty());
                parts
            };
            words.iter().flat_map(cut).collect()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_real_look_ahead(
            scheme in 0..SCHEMES.len(),
            text in proptest::collection::vec(
                prop_oneof![
                    proptest::sample::select(vec![
                        " ", "  ", "\n", "\r\n", "\t", "\u{a0}", "\u{3000}", "a", "Bc", "é", "日本", "か", "한",
                        "1", "234", "½", "'s", "'LL", "'", "!", "...", "/", "🙂", "\u{301}", "(", "|", "`", "\0",
                    ]).prop_map(str::to_owned),
                    any::<char>().prop_map(String::from),
                ],
                0..24,
            ),
        ) {
            let text = text.concat();
            let name = SCHEMES[scheme].names[0];
            let mut words = Vec::new();
            PreTokenizer::named(name).unwrap().split(&text, &mut |word| words.push(word.to_owned()));
            prop_assert_eq!(words, by_backtracking(name, &text), "{}", name);
        }
    }
}
