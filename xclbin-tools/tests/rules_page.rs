//! The book's page about the rules of `verify` is made of the library's table.

use std::{env, fmt::Write, fs, path::Path};

use xclbin_tools::verify::{self, Severity};

/// Set, the page is written instead of compared.
const WRITE: &str = "BIGA_WRITE_DOCS";

/// The page's part above its rules is written by hand.
const MARK: &str = "<!-- written by `BIGA_WRITE_DOCS=1 cargo test -p xclbin-tools --test rules_page` from here -->\n";

/// A link for a URL, or for `repository:path`.
fn source(source: &str) -> String {
    match source.split_once(':') {
        Some((repository, path)) if !source.starts_with("https://") => {
            format!("[{repository} {path}](https://github.com/{repository}/blob/HEAD/{path})")
        }
        _ => format!("<{source}>"),
    }
}

/// The rules, one heading each.
fn rules() -> String {
    let count = |severity| verify::rules().filter(|rule| rule.severity == severity).count();
    let (n_errors, n_warnings) = (count(Severity::Error), count(Severity::Warning));
    let mut text = format!("\n{} rules: {n_errors} errors, {n_warnings} warnings.\n", n_errors + n_warnings);
    for rule in verify::rules() {
        let _ = write!(
            text,
            "\n## {}\n\n*{}*: {}.\n\n- on hardware: {}\n- mend: {}\n- source: {}\n",
            rule.name,
            rule.severity,
            rule.asks,
            rule.effect,
            rule.mend,
            source(rule.source)
        );
    }
    text
}

#[test]
fn the_page_has_every_rule() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/verify-rules.md");
    let page = fs::read_to_string(&path).expect("the page is there");
    let (by_hand, kept) = page.split_once(MARK).expect("the page has the mark");
    let rules = rules();
    if env::var_os(WRITE).is_some() {
        fs::write(&path, format!("{by_hand}{MARK}{rules}")).expect("the page can be written");
    } else {
        let refresh = MARK.trim_matches(['<', '!', '-', '>', ' ', '\n']);
        assert!(kept == rules, "{} is out of date; it is {refresh}", path.display());
    }
}
