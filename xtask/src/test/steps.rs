//! The steps, in the order in which they run: cheap and common failures first.

use anyhow::{Context as _, Result, bail};

use super::{Context, Counts, Outcome, build, fuzz, layers::Layers};
use crate::{
    cache::Cache,
    claim::{self, Finding},
    debian, fetch, process, shaders, tidy, tools, workspace,
};

/// One check.
pub(crate) struct Step {
    /// What `--only` calls it.
    pub(crate) name: &'static str,
    /// What it checks.
    pub(crate) what: &'static str,
    /// Does it.
    pub(crate) run: fn(&mut Context) -> Result<Outcome>,
}

/// Every step.
pub(crate) const ALL: &[Step] = &[
    Step { name: "fmt", what: "the code is formatted", run: format },
    Step { name: "tidy", what: "the project's own rules", run: |_| tidy::check().map(done) },
    Step { name: "typos", what: "spelling", run: typos },
    Step { name: "clippy", what: "no lint of any target", run: clippy },
    Step { name: "deny", what: "licences, sources and bans of the dependencies", run: deny },
    Step { name: "doc", what: "API documentation without warnings", run: api_docs },
    Step { name: "book", what: "the mdBook builds", run: book },
    Step { name: "doc-tests", what: "examples in the documentation", run: |_| build::doc_tests().map(Outcome::Done) },
    Step { name: "tests", what: "every crate, without a GPU", run: tests },
    Step { name: "shaders", what: "Vulkan kernels compiled for the target GPUs", run: shaders },
    Step {
        name: "lavapipe-256",
        what: "Vulkan and end-to-end tests, subgroups of 8, core and synchronisation validation",
        run: |context| lavapipe(context, 256, Layers::CoreAndSync, ALL_TESTS),
    },
    Step {
        name: "lavapipe-128",
        what: "the same, subgroups of 4",
        run: |context| lavapipe(context, 128, Layers::CoreAndSync, ALL_TESTS),
    },
    Step {
        name: "gpu-assisted-256",
        what: "the tests without real models and integer products, subgroups of 8, GPU-assisted validation",
        run: |context| lavapipe(context, 256, Layers::GpuAssisted, UNFIT_FOR_GPU_ASSISTED),
    },
    Step {
        name: "gpu-assisted-128",
        what: "the same, subgroups of 4",
        run: |context| lavapipe(context, 128, Layers::GpuAssisted, UNFIT_FOR_GPU_ASSISTED),
    },
    Step { name: "perplexity", what: "two windows on lavapipe, against llama.cpp", run: perplexity },
    Step { name: "example", what: "the documented example, outside the workspace", run: example },
    Step { name: "fuzz", what: "kept inputs again, then each target for a while", run: fuzz::run },
];

/// Packages whose tests need a Vulkan driver for most of what they check.
const ON_VULKAN: [&str; 2] = ["biga-vulkan", "biga-tests"];

/// The test executable that misuses Vulkan, to see the validation layers at work.
const MISUSE: &str = "misuse";

const ALL_TESTS: &[&str] = &[];

/// Test executables left out under GPU-assisted validation: those of real models, where the same kernels
/// would only take longer, and those that run integer dot products, whose instrumented form LLVM 19 under
/// Mesa 26.1 cannot compile ("Cannot emit physreg copy instruction").
const UNFIT_FOR_GPU_ASSISTED: &[&str] = &["right_text", "conformance", "ops", "products"];

fn done((): ()) -> Outcome {
    Outcome::Done(Counts::default())
}

fn format(_: &mut Context) -> Result<Outcome> {
    process::run(workspace::cargo().args(["fmt", "--all", "--check"])).map(done)
}

fn clippy(_: &mut Context) -> Result<Outcome> {
    let mut command = workspace::cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    process::run(&mut command).map(done)
}

fn typos(_: &mut Context) -> Result<Outcome> {
    let program = tools::ensure_typos(&Cache::open()?)?;
    process::run(std::process::Command::new(program).current_dir(workspace::root())).map(done)
}

fn deny(_: &mut Context) -> Result<Outcome> {
    let program = tools::CARGO_DENY.ensure(&Cache::open()?)?;
    // The dependencies are there once clippy has run; offline, nothing else can slip in.
    let mut command = std::process::Command::new(program);
    command.current_dir(workspace::root()).args(["--offline", "--all-features", "check"]);
    process::run(command.args(["bans", "licenses", "sources"])).map(done)
}

fn api_docs(_: &mut Context) -> Result<Outcome> {
    let mut command = workspace::cargo();
    command.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    process::run(command.env("RUSTDOCFLAGS", "-D warnings")).map(done)
}

fn book(_: &mut Context) -> Result<Outcome> {
    let cache = Cache::open()?;
    let root = match graphics_root(&cache) {
        Ok(root) => root,
        Err(reason) => return Ok(Outcome::Unavailable(reason)),
    };
    let mut command = debian::Libraries::of(&root).command(&root.join("usr/bin/mdbook"));
    let output = process::output(command.arg("build").arg(workspace::root().join("docs")))?;
    let log = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    print!("{log}");
    if !output.status.success() || log.contains("[WARN]") || log.contains("[ERROR]") {
        bail!("mdbook failed or warned");
    }
    Ok(done(()))
}

fn tests(context: &mut Context) -> Result<Outcome> {
    let environment = model_environment()?;
    let suite = build::Suite { environment: &environment, ..Default::default() };
    let binaries = built(context)?;
    suite
        .run(binaries.iter().filter(|binary| !ON_VULKAN.contains(&binary.package.as_str())))
        .map(|ran| Outcome::Done(ran.counts))
}

fn shaders(_: &mut Context) -> Result<Outcome> {
    match graphics_root(&Cache::open()?) {
        Ok(root) => shaders::check(&root).map(done),
        Err(reason) => Ok(Outcome::Unavailable(reason)),
    }
}

/// On lavapipe under validation layers; any message of theirs fails the step.
fn lavapipe(context: &mut Context, vector_width_bits: u32, layers: Layers, left_out: &[&str]) -> Result<Outcome> {
    let root = match graphics_root(&Cache::open()?) {
        Ok(root) => root,
        Err(reason) => return Ok(Outcome::Unavailable(reason)),
    };
    let libraries = debian::Libraries::of(&root);
    let mut environment = model_environment()?;
    environment.extend(libraries.lavapipe_environment(vector_width_bits));
    environment.push(("BIGA_TEST_VULKAN", "llvmpipe".to_owned()));
    let runner = libraries.runner();
    let suite = build::Suite { runner: &runner, environment: &environment, layers: Some(layers), ..Default::default() };
    let binaries = built(context)?.iter().filter(|binary| ON_VULKAN.contains(&binary.package.as_str()));
    let (misuse, binaries): (Vec<_>, Vec<_>) = binaries.partition(|binary| binary.target == MISUSE);
    suite.check_layers(misuse.first().context("the tests of biga-vulkan have no misuse")?)?;
    suite
        .run(binaries.into_iter().filter(|binary| !left_out.contains(&binary.target.as_str())))
        .map(|ran| Outcome::Done(ran.counts))
}

/// The root with Mesa, or why there is none.
fn graphics_root(cache: &Cache) -> std::result::Result<std::path::PathBuf, String> {
    debian::GRAPHICS.ensure(cache).map_err(|error| format!("{error:#}"))
}

fn built(context: &mut Context) -> Result<&[build::TestBinary]> {
    if context.tests.is_none() {
        context.tests = Some(build::build()?);
    }
    Ok(context.tests.as_deref().unwrap_or_default())
}

/// Where tests find real models, llama.cpp and the tools for NPU packages. In CI they are fetched; elsewhere what is in the cache
/// is used, and tests that miss one say so.
pub(crate) fn model_environment() -> Result<Vec<(&'static str, String)>> {
    let cache = Cache::open()?;
    let mut environment = Vec::new();
    for (variable, model) in [("BIGA_SMOLLM2", &fetch::SMOLLM2), ("BIGA_GEMMA3", &fetch::GEMMA3)] {
        let file = cache.path("models").join(model.file);
        if workspace::in_ci() {
            fetch::ensure(&cache, model)?;
        } else if !file.is_file() {
            eprintln!("{variable} is not set for the tests: run `cargo xtask fetch {}`", model.name);
            continue;
        }
        environment.push((variable, file.display().to_string()));
    }
    let vectors = fetch::vocab_vectors_folder(&cache);
    if workspace::in_ci() {
        fetch::ensure_vocab_vectors(&cache)?;
    }
    if vectors.is_dir() {
        environment.push(("BIGA_VOCAB_VECTORS", vectors.display().to_string()));
    } else {
        eprintln!("BIGA_VOCAB_VECTORS is not set for the tests: run `cargo xtask fetch vocab-vectors`");
    }
    let llama = if workspace::in_ci() { Some(debian::LLAMA.ensure(&cache)?) } else { debian::LLAMA.find(&cache) };
    match llama {
        Some(root) => environment.push(("BIGA_LLAMA_ROOT", root.display().to_string())),
        None => eprintln!("BIGA_LLAMA_ROOT is not set for the tests: run `cargo xtask setup`"),
    }
    let tools = if workspace::in_ci() { Some(debian::GRAPHICS.ensure(&cache)?) } else { debian::GRAPHICS.find(&cache) };
    match tools {
        Some(root) => environment.push(("BIGA_NPU_TOOLS", root.display().to_string())),
        None => eprintln!("BIGA_NPU_TOOLS is not set for the tests: run `cargo xtask setup`"),
    }
    Ok(environment)
}

/// Two windows tell a wrong kernel; the claims tell the rest.
fn perplexity(context: &mut Context) -> Result<Outcome> {
    const PERCENT: f64 = 0.05;
    built(context)?;
    let biga = workspace::target_folder()?.join("debug/biga");
    match claim::perplexity_on_lavapipe(biga, 2)? {
        Finding::Unavailable(why) => Ok(Outcome::Unavailable(why)),
        Finding::Value(percent, detail) if percent > PERCENT => {
            bail!("{percent:.3} % apart, at most {PERCENT}: {detail}")
        }
        Finding::Value(percent, detail) => {
            println!("{percent:.4} % apart: {detail}");
            Ok(done(()))
        }
    }
}

fn example(_: &mut Context) -> Result<Outcome> {
    let manifest = workspace::root().join("examples/plan-and-run/Cargo.toml");
    if !manifest.is_file() {
        bail!("{} is missing", manifest.display());
    }
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--manifest-path"]).arg(&manifest).arg("--");
    // The workspace's build folder and profile, so that the GLSL compiler's C++ is not built once more.
    command.env("CARGO_TARGET_DIR", workspace::target_folder()?);
    command.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    command.env("CARGO_PROFILE_DEV_BUILD_OVERRIDE_OPT_LEVEL", "1");
    command.arg(fetch::ensure(&Cache::open()?, &fetch::SMOLLM2)?);
    process::run(&mut command).map(done)
}
