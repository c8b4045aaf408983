//! The options of `xclbinutil` as it takes them: a long name may be cut where no other begins so, `--name=value`
//! and `--name value`, several values behind one option, short ones together (`-qi FILE`).

use std::path::PathBuf;

use crate::command::{exit::usage, sections::SectionFile};

/// What was asked for. The order inside each list is that of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) input: Option<PathBuf>,
    pub(crate) output: Option<PathBuf>,
    /// `Some(None)`: to standard output.
    pub(crate) info: Option<Option<PathBuf>>,
    pub(crate) force: bool,
    pub(crate) quiet: bool,
    pub(crate) help: bool,
    pub(crate) version: bool,
    pub(crate) list_sections: bool,
    pub(crate) skip_uuid_insertion: bool,
    pub(crate) skip_bank_grouping: bool,
    pub(crate) reset_bank_grouping: bool,
    pub(crate) remove: Vec<String>,
    pub(crate) add_replace: Vec<SectionFile>,
    pub(crate) replace: Vec<SectionFile>,
    pub(crate) add: Vec<SectionFile>,
    pub(crate) append: Vec<SectionFile>,
    pub(crate) dump: Vec<SectionFile>,
    pub(crate) kernels: Vec<PathBuf>,
    pub(crate) key_values: Vec<String>,
    pub(crate) remove_keys: Vec<String>,
}

enum Takes {
    Nothing(fn(&mut Args)),
    One(fn(&mut Args, &str) -> anyhow::Result<()>),
    Many(fn(&mut Args, &str) -> anyhow::Result<()>),
    /// Not supported: what to use instead.
    Refused(&'static str),
}
use Takes::{Many, Nothing, One, Refused};

const SIGNATURES: &str = "signatures are not supported; NPU packages are not signed";

/// Long name, short one, what it does.
static OPTIONS: [(&str, Option<char>, Takes); 37] = [
    ("add-kernel", None, Many(|args, value| push(&mut args.kernels, value.into()))),
    ("add-merge-section", None, Refused("use --add-replace-section with the merged JSON")),
    (
        "add-pskernel",
        None,
        Refused("kernels of the host's processor are not supported; --add-kernel adds those of the NPU"),
    ),
    ("add-replace-section", None, Many(|args, value| push(&mut args.add_replace, section(value)?))),
    ("add-section", None, Many(|args, value| push(&mut args.add, section(value)?))),
    ("add-signature", None, Refused(SIGNATURES)),
    ("append-section", None, Many(|args, value| push(&mut args.append, section(value)?))),
    ("certificate", None, Refused(SIGNATURES)),
    ("digest-algorithm", None, Refused(SIGNATURES)),
    ("dump-section", None, Many(|args, value| push(&mut args.dump, section(value)?))),
    ("dump-signature", None, Refused(SIGNATURES)),
    ("file-check", None, Refused("use `xclbin verify FILE`")),
    ("force", None, Nothing(|args| args.force = true)),
    ("get-signature", None, Refused(SIGNATURES)),
    ("help", Some('h'), Nothing(|args| args.help = true)),
    ("info", None, Nothing(|args| args.info = Some(None))),
    ("input", Some('i'), One(|args, value| once("input", &mut args.input, value))),
    ("key-value", None, Many(|args, value| push(&mut args.key_values, value.to_owned()))),
    ("list-sections", None, Nothing(|args| args.list_sections = true)),
    ("migrate-forward", None, Refused("files from before 2018.3 are not supported")),
    ("output", Some('o'), One(|args, value| once("output", &mut args.output, value))),
    ("private-key", None, Refused(SIGNATURES)),
    ("quiet", Some('q'), Nothing(|args| args.quiet = true)),
    ("remove-key", None, Many(|args, value| push(&mut args.remove_keys, value.to_owned()))),
    ("remove-section", None, Many(|args, value| push(&mut args.remove, value.to_owned()))),
    ("remove-signature", None, Refused(SIGNATURES)),
    ("replace-section", None, Many(|args, value| push(&mut args.replace, section(value)?))),
    ("reset-bank-grouping", None, Nothing(|args| args.reset_bank_grouping = true)),
    ("signature-debug", None, Refused(SIGNATURES)),
    ("skip-bank-grouping", None, Nothing(|args| args.skip_bank_grouping = true)),
    ("skip-uuid-insertion", None, Nothing(|args| args.skip_uuid_insertion = true)),
    ("target", None, Refused("use --key-value SYS:mode:MODE")),
    ("trace", Some('t'), Refused("leave it out; `xclbin dump FILE` shows what a package holds")),
    ("transform-pdi", None, Refused("PDIs are stored as they are; transform them before")),
    ("validate-signature", None, Refused(SIGNATURES)),
    // `--info` says all there is.
    ("verbose", Some('v'), Nothing(|_| {})),
    ("version", None, Nothing(|args| args.version = true)),
];

#[expect(clippy::unnecessary_wraps, reason = "beside values that may be wrong in the table above")]
fn push<T>(list: &mut Vec<T>, value: T) -> anyhow::Result<()> {
    list.push(value);
    Ok(())
}

fn section(text: &str) -> anyhow::Result<SectionFile> {
    SectionFile::parse(text).map_err(usage)
}

fn once(name: &str, place: &mut Option<PathBuf>, value: &str) -> anyhow::Result<()> {
    match place.replace(value.into()) {
        None => Ok(()),
        Some(_) => Err(usage(format!("--{name} is given twice"))),
    }
}

/// Whether a first argument is one of these options: then the whole command line is. `--help` and `--version`
/// mean those of `xclbin`.
pub(crate) fn is_option(argument: &str) -> bool {
    let Some(name) = argument.strip_prefix("--") else {
        let short = argument.strip_prefix('-').and_then(|letters| letters.chars().next());
        return short.is_some_and(|letter| letter != 'h' && OPTIONS.iter().any(|(_, short, _)| *short == Some(letter)));
    };
    let name = name.split('=').next().unwrap_or_default();
    !matches!(name, "help" | "version") && OPTIONS.iter().any(|(long, _, _)| *long == name)
}

impl Args {
    /// Reads a command line without the program's name.
    ///
    /// # Errors
    /// Unknown options, those that are not supported (with what to use instead), values too few or too many.
    pub(crate) fn parse(arguments: &[String]) -> anyhow::Result<Args> {
        let mut args = Args::default();
        let mut rest = arguments.iter().map(String::as_str).peekable();
        while let Some(argument) = rest.next() {
            if let Some(long) = argument.strip_prefix("--") {
                let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                let (name, takes) = find_long(name)?;
                args.apply(name, takes, value, &mut rest)?;
            } else if let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                args.short(letters, &mut rest)?;
            } else {
                let bound = "files are named by --input and --output, sections by --add-section and others";
                return Err(usage(format!("{argument:?} belongs to no option: {bound}")));
            }
        }
        Ok(args)
    }

    fn short<'a>(&mut self, letters: &str, rest: &mut Rest<impl Iterator<Item = &'a str>>) -> anyhow::Result<()> {
        let mut letters = letters.chars();
        while let Some(letter) = letters.next() {
            let option = OPTIONS.iter().find(|(_, short, _)| *short == Some(letter));
            let Some((name, _, takes)) = option else { return Err(usage(format!("unknown option -{letter}"))) };
            let tail = letters.as_str();
            let takes_tail = matches!(takes, One(_) | Many(_)) && !tail.is_empty();
            self.apply(name, takes, takes_tail.then_some(tail), rest)?;
            if takes_tail {
                break;
            }
        }
        Ok(())
    }

    fn apply<'a>(
        &mut self,
        name: &str,
        takes: &Takes,
        value: Option<&str>,
        rest: &mut Rest<impl Iterator<Item = &'a str>>,
    ) -> anyhow::Result<()> {
        let is_value = |next: &&str| !next.starts_with('-') || *next == "-";
        let missing = || usage(format!("--{name} needs a value"));
        match takes {
            Refused(instead) => Err(usage(format!("--{name} is not supported: {instead}"))),
            // The one option with a value that may be left out.
            Nothing(_) if name == "info" => {
                let file = value.map(str::to_owned).or_else(|| rest.next_if(is_value).map(str::to_owned));
                self.info = Some(file.map(PathBuf::from));
                Ok(())
            }
            Nothing(set) if value.is_none() => {
                set(self);
                Ok(())
            }
            Nothing(_) => Err(usage(format!("--{name} takes no value"))),
            One(set) => {
                let value = value.or_else(|| rest.next_if(is_value)).ok_or_else(missing)?;
                set(self, value)
            }
            Many(set) => {
                let first = value.or_else(|| rest.next_if(is_value)).ok_or_else(missing)?;
                set(self, first)?;
                // A value behind `=` stands alone.
                while value.is_none()
                    && let Some(next) = rest.next_if(is_value)
                {
                    set(self, next)?;
                }
                Ok(())
            }
        }
    }
}

type Rest<I> = std::iter::Peekable<I>;

fn find_long(name: &str) -> anyhow::Result<(&'static str, &'static Takes)> {
    let named = |(long, _, takes): &'static (&'static str, Option<char>, Takes)| (*long, takes);
    if let Some(exact) = OPTIONS.iter().find(|(long, _, _)| *long == name) {
        return Ok(named(exact));
    }
    let mut begins = OPTIONS.iter().filter(|(long, _, _)| long.starts_with(name) && !name.is_empty());
    match (begins.next(), begins.next()) {
        (Some(only), None) => Ok(named(only)),
        (Some((one, _, _)), Some((other, _, _))) => {
            Err(usage(format!("--{name} may be --{one} or --{other}: write it out")))
        }
        _ => Err(usage(format!("unknown option --{name}: `xclbin --input FILE --help` lists those of xclbinutil"))),
    }
}

#[cfg(test)]
mod tests {
    use xclbin_tools::axlf::Format;

    use super::*;

    fn parse(line: &str) -> anyhow::Result<Args> {
        Args::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn section(kind: &str, format: Format, file: &str) -> SectionFile {
        SectionFile { kind: kind.to_owned(), index: String::new(), format, file: file.into() }
    }

    #[test]
    fn reads_what_compilers_pass() {
        let line = "--add-replace-section MEM_TOPOLOGY:JSON:m.json --add-kernel k.json --add-replace-section \
                    AIE_PARTITION:JSON:p.json --force --output x.xclbin";
        let expected = Args {
            add_replace: vec![
                section("MEM_TOPOLOGY", Format::Json, "m.json"),
                section("AIE_PARTITION", Format::Json, "p.json"),
            ],
            kernels: vec!["k.json".into()],
            force: true,
            output: Some("x.xclbin".into()),
            ..Args::default()
        };
        assert_eq!(parse(line).unwrap(), expected);
    }

    #[test]
    fn reads_each_spelling() {
        let args = parse("-qix --dump-section A:RAW:a B:json:b:c --info --inp=").unwrap_err().to_string();
        assert_eq!(args, "--input is given twice");
        let args = parse("-qi x --dump-section A:RAW:a B[n]:json:b:c --inf -ofile --rem=D").unwrap_err().to_string();
        assert!(args.contains("--remove-key or --remove-section"), "{args}");
        let args = parse("-qi x --dump-section A:RAW:a B[n]:json:b:c --inf -ofile --info=i").unwrap();
        assert_eq!((args.quiet, args.input, args.output), (true, Some("x".into()), Some("file".into())));
        assert_eq!((args.dump[1].index.as_str(), args.dump[1].file.to_str()), ("n", Some("b:c")));
        assert_eq!(args.info, Some(Some("i".into())));
        assert_eq!(parse("--info o.txt").unwrap().info, Some(Some("o.txt".into())));
        assert_eq!(parse("--info --force").unwrap().info, Some(None));
    }

    #[test]
    fn refuses_by_name() {
        let check = |line: &str, expected: &str| {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        };
        check("--add-pskernel x", "--add-pskernel is not supported");
        check("--certificate=x", "--certificate is not supported");
        check("--nonsense", "unknown option --nonsense");
        check("-x", "unknown option -x");
        check("file.xclbin", "belongs to no option");
        check("--output", "--output needs a value");
        check("--force=1", "--force takes no value");
        check("--add-section A:B", "too few parts");
    }

    #[test]
    fn knows_its_own_command_line() {
        for argument in ["--input", "-i", "--info=x", "-qi", "--add-pskernel", "--trace"] {
            assert!(is_option(argument), "{argument}");
        }
        for argument in ["--help", "-h", "--version", "-V", "info", "--json", "-", "--"] {
            assert!(!is_option(argument), "{argument}");
        }
    }

    #[test]
    fn names_are_sorted_and_single() {
        assert!(OPTIONS.iter().zip(OPTIONS.iter().skip(1)).all(|(a, b)| a.0 < b.0));
    }
}
