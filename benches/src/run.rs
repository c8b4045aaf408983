//! `compare run`: rounds over models and groups of tests, our engine and llama.cpp in turns.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    engines::{Engine, Job, Name, Sample},
    field::{self, Field},
    machine::{Device, Machine},
    model::{self, Facts, Source},
    output::note,
    process::{self, Output, last_lines},
    record::{Line, Log},
    report::Report,
    test::{self, Group, Test},
};

/// What to measure, where, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    field: field::Choice,
    /// Only show the device and the engines.
    #[arg(long)]
    check: bool,
    /// Where results go: results.jsonl, report.json, report.md, engines.log. A run goes on after what is there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Shapes with a format, such as llama-8b-q4_0, and .gguf files, in this order; by the kind of device if
    /// none is named.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    models: Vec<Source>,
    /// Where generated models are and stay.
    #[arg(long, value_name = "DIR", default_value = "models")]
    model_dir: PathBuf,
    /// Such as pp512, tg128, tg128@d8192, tg32x8, host256, start; all of these if none is named.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    tests: Vec<Test>,
    /// How often each test is run with each engine.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Stop after so many minutes; without it, when all is done.
    #[arg(long, value_name = "N", value_parser = positive)]
    minutes: Option<f64>,
    /// Most seconds that one process of an engine may take.
    #[arg(long, value_name = "N", default_value = "120", value_parser = positive)]
    process_seconds: f64,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn positive(word: &str) -> Result<f64, String> {
    match word.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        _ => Err("a number above 0 and at most 1000000 is needed".to_owned()),
    }
}

/// Measures as far as time allows, and reports everything that is known of this session; `None` if only who
/// takes part was asked for.
///
/// # Errors
/// If there is neither engine, the device is not there, or results cannot be kept.
pub(crate) fn run(options: &Options) -> Result<Option<Report>> {
    let start = Instant::now();
    let out = std::path::absolute(&options.out)?;
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let field = Field::gather(&options.field, &out)?;
    if options.check {
        return Ok(None);
    }
    let mut runner = Runner::new(options, field, out, start)?;
    if !runner.rounds(usize::from(options.rounds))? {
        note("time is up; the same command goes on from here");
    }
    runner.write_report().map(Some)
}

/// A model, its file made when it is first needed.
struct Target {
    source: Source,
    facts: Option<Facts>,
    /// It cannot be made, or is no use.
    broken: bool,
    warm: bool,
}

struct Runner {
    out: PathBuf,
    model_dir: PathBuf,
    process_limit: Duration,
    start: Instant,
    until: Option<Instant>,
    device: Device,
    threads: Option<usize>,
    engines: Vec<Box<dyn Engine>>,
    session: String,
    groups: Vec<Group>,
    targets: Vec<Target>,
    log: Log,
    /// What failed is not tried again in this run, and what is known to take longer than there is time is not
    /// begun.
    failed: BTreeSet<Place>,
    took: BTreeMap<Place, Duration>,
}

/// One process in every round: indices of an engine, a model and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    engine: usize,
    target: usize,
    group: usize,
}

/// Whether there is time for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Left,
    Up,
}

impl Runner {
    fn new(options: &Options, field: Field, out: PathBuf, start: Instant) -> Result<Runner> {
        let Field { device, threads, biga, engines, session } = field;
        let mut log = Log::open(&out.join("results.jsonl"))?;
        let id = session.id.clone();
        // The last session of a file is the one that is reported: say it anew if another came between.
        log.append(Line::Session(session))?;
        let (read_bytes_per_s, unavailable) = match biga.measure(&device) {
            Ok(rate) => (Some(rate), None),
            Err(error) => {
                note(format_args!("the read bandwidth is not known: {error:#}"));
                (None, Some(format!("{error:#}")))
            }
        };
        log.append(Line::Bandwidth { session: id.clone(), read_bytes_per_s, unavailable })?;
        Ok(Runner {
            out,
            model_dir: std::path::absolute(&options.model_dir)?,
            process_limit: Duration::from_secs_f64(options.process_seconds),
            start,
            until: options.minutes.map(|minutes| start + Duration::from_secs_f64(60.0 * minutes)),
            threads,
            engines,
            session: id,
            groups: groups(options, &device),
            targets: targets(options, &device)?,
            device,
            log,
            failed: BTreeSet::new(),
            took: BTreeMap::new(),
        })
    }

    /// All rounds; false if time was up before.
    fn rounds(&mut self, n_rounds: usize) -> Result<bool> {
        let mut passed_over = false;
        for round in 0..n_rounds {
            for place in self.places() {
                match self.turn(round, place)? {
                    Time::Left => {}
                    Time::Up if self.remaining().is_zero() => return Ok(false),
                    Time::Up => passed_over = true,
                }
            }
        }
        Ok(!passed_over)
    }

    /// In the order of a round: the engines take turns within each group of each model.
    fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for target in 0..self.targets.len() {
            for group in 0..self.groups.len() {
                places.extend((0..self.engines.len()).map(|engine| Place { engine, target, group }));
            }
        }
        places
    }

    fn remaining(&self) -> Duration {
        self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
    }

    /// One process of one engine, if anything of its group is still to be measured in this round.
    fn turn(&mut self, round: usize, place: Place) -> Result<Time> {
        let Place { engine, target, group } = place;
        let (name, model) = (self.engines[engine].name(), self.targets[target].source.name());
        let missing = |test| !self.log.has(&self.session, &model, name, round, test);
        let part = self.engines[engine].part_of(&self.groups[group]).and_then(|part| part.filtered(missing));
        let Some(part) = part.filter(|_| !self.failed.contains(&place) && !self.targets[target].broken) else {
            return Ok(Time::Left);
        };
        let left = self.remaining();
        if left.is_zero() || self.took.get(&place).is_some_and(|&took| took > left) {
            return Ok(Time::Up);
        }
        if !self.prepare(target)? {
            return Ok(Time::Left);
        }
        let Some(part) = self.fitting(target, name, &part)? else { return Ok(Time::Left) };
        if part == Group::Start && !self.targets[target].warm {
            model::warm(&self.targets[target].source.path(&self.model_dir))?;
            self.targets[target].warm = true;
        }
        self.measure(round, place, &part)
    }

    /// Makes the model's file, also where it had to give way since; false if that cannot be.
    fn prepare(&mut self, target: usize) -> Result<bool> {
        let Target { source, facts, .. } = &mut self.targets[target];
        let found = fs::metadata(source.path(&self.model_dir)).ok().map(|found| found.len());
        if facts.as_ref().is_some_and(|facts| Some(facts.size_bytes) == found) {
            return Ok(true);
        }
        match source.prepare(&self.model_dir, Machine::here().threads) {
            Ok(new) => {
                *facts = Some(new.clone());
                self.log.append_once(Line::Model { session: self.session.clone(), facts: new })?;
                Ok(true)
            }
            Err(error) => {
                note(format_args!("{}: {error:#}", source.name()));
                self.targets[target].broken = true;
                let tests: Vec<Test> = self.groups.iter().flat_map(Group::tests).collect();
                for engine in 0..self.engines.len() {
                    self.fail(target, self.engines[engine].name(), tests.clone(), format!("{error:#}"))?;
                }
                Ok(false)
            }
        }
    }

    /// The part of the group that fits the model's context; `None` if nothing does.
    fn fitting(&mut self, target: usize, engine: Name, group: &Group) -> Result<Option<Group>> {
        let Some(context) = self.targets[target].facts.as_ref().map(|facts| facts.context) else { return Ok(None) };
        let tests = group.tests().into_iter();
        let (fitting, too_long): (Vec<Test>, Vec<Test>) = tests.partition(|test| test.context() <= context);
        if !too_long.is_empty() {
            self.fail(target, engine, too_long, format!("its context holds {context} tokens"))?;
        }
        Ok(Group::of(&fitting).into_iter().next())
    }

    fn measure(&mut self, round: usize, place: Place, group: &Group) -> Result<Time> {
        let limit = self.process_limit.min(self.remaining());
        let (engine, source) = (&self.engines[place.engine], &self.targets[place.target].source);
        let (name, model) = (engine.name(), source.name());
        let job = Job { group, model: source.path(&self.model_dir), device: &self.device, threads: self.threads };
        let mut command = engine.command(&job);
        let began = Instant::now();
        let outcome = process::run(&mut command, limit);
        let took = began.elapsed();
        self.keep_log(&command, &outcome)?;
        let samples = match outcome {
            Ok(None) if limit < self.process_limit => return Ok(Time::Up),
            Ok(None) => Err(anyhow!("took longer than {} s", limit.as_secs_f64())),
            Ok(Some(output)) => output.success().and_then(|output| engine.samples(&job, &output)),
            Err(error) => Err(error),
        };
        let (since, took_s) = (self.start.elapsed().as_secs_f64(), took.as_secs_f64());
        let words = in_words(&samples);
        note(format_args!("{since:>6.1} s  round {}  {model:<20} {name:<9} {took_s:>5.1} s  {words}", round + 1));
        self.took.insert(place, took);
        match samples {
            Ok(samples) => {
                for sample in samples {
                    let (session, model) = (self.session.clone(), model.clone());
                    self.log.append(Line::Sample { session, model, engine: name, round, sample })?;
                }
            }
            Err(error) => {
                self.failed.insert(place);
                self.fail(place.target, name, group.tests(), format!("{error:#}"))?;
            }
        }
        self.write_report()?;
        Ok(Time::Left)
    }

    /// The report of what is known so far: after every measurement, since nobody knows which is the last.
    fn write_report(&self) -> Result<Report> {
        let report = Report::of(self.log.lines())?;
        let json = serde_json::to_string_pretty(&report)? + "\n";
        for (name, text) in [("report.json", json), ("report.md", report.to_text())] {
            let path = self.out.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(report)
    }

    fn fail(&mut self, target: usize, engine: Name, tests: Vec<Test>, reason: String) -> Result<()> {
        let (session, model) = (self.session.clone(), self.targets[target].source.name());
        self.log.append_once(Line::Failure { session, model, engine, tests, reason })
    }

    /// Command lines with the end of what they wrote to standard error, for whoever has to find out why.
    fn keep_log(&self, command: &Command, outcome: &Result<Option<Output>>) -> Result<()> {
        let path = self.out.join("engines.log");
        let words = match outcome {
            Ok(Some(output)) => format!("{}\n  {}", output.status, last_lines(&output.stderr, 12)),
            Ok(None) => "ended because its time was over".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        let arguments = command.get_args().map(|word| word.to_string_lossy().into_owned());
        let arguments = arguments.collect::<Vec<_>>().join(" ");
        let text = format!("$ {} {arguments}\n  {words}\n", command.get_program().to_string_lossy());
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

fn in_words(samples: &Result<Vec<Sample>>) -> String {
    let one = |sample: &Sample| {
        let unit = if sample.test == Test::Start { "s" } else { "tok/s" };
        format!("{} {:.2} {unit}", sample.test, sample.value)
    };
    match samples {
        Ok(samples) => samples.iter().map(one).collect::<Vec<_>>().join(", "),
        Err(error) => format!("{error:#}"),
    }
}

fn groups(options: &Options, device: &Device) -> Vec<Group> {
    if !options.tests.is_empty() {
        return Group::of(&options.tests);
    }
    // On the CPU the host's time is the computing itself.
    let tests = test::DEFAULT.into_iter().filter(|test| test.compares() || !device.is_cpu());
    Group::of(&tests.collect::<Vec<_>>())
}

fn targets(options: &Options, device: &Device) -> Result<Vec<Target>> {
    let sources = if options.models.is_empty() {
        let names: &[&str] = if device.is_cpu() { &model::ON_CPU } else { &model::ON_GPU };
        names.iter().map(|name| name.parse()).collect::<Result<Vec<Source>>>()?
    } else {
        options.models.clone()
    };
    let names: BTreeSet<String> = sources.iter().map(Source::name).collect();
    if names.len() < sources.len() {
        bail!("two models have the same name, so their results could not be told apart");
    }
    let target = |source| Target { source, facts: None, broken: false, warm: false };
    Ok(sources.into_iter().map(target).collect())
}
