//! What can be typed. Values are checked here as far as they can be without a model or a machine.

use std::{path::PathBuf, str::FromStr};

use biga::{
    hal::DType,
    load::quantize::Quantize,
    plan::{PlaceRule, Policy},
};
use biga_cpu::Kernels;
use clap::{Parser, Subcommand, builder::NonEmptyStringValueParser};

use crate::size;

/// Run large language models over the NPU, GPU and CPU of one machine, and say what ran where.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage, 3 bad input file, 4 a device that was asked for is not
/// available (--strict), 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "biga", version, max_term_width = 110)]
pub(crate) struct Args {
    /// Show on standard error what is decided (-v), each step (-vv), each submission (-vvv).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What is here, what works, what to fix.
    Probe(ProbeArgs),
    /// Where each op of a model runs, and why.
    Plan(PlanArgs),
    /// Ask a model.
    Run(RunArgs),
    /// Measure prompt and decode speed, as llama-bench does.
    Bench(BenchArgs),
    /// How well a model predicts a text, by llama-perplexity's method.
    Perplexity(PerplexityArgs),
    /// Write the logits of given tokens, for comparing engines.
    Logits(LogitsArgs),
}

/// What is here, what works, what to fix.
#[derive(Debug, clap::Args)]
pub(crate) struct ProbeArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure bandwidth, arithmetic, launches and crossings, and store them for later plans.
    #[arg(long)]
    pub(crate) measure: bool,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// Which devices take part.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Devices")]
pub(crate) struct MachineArgs {
    /// A device that takes part: cpu, npu, vulkan:N, or a part of a Vulkan device's or driver's name.
    /// Repeatable. The CPU always takes part, as the last resort.
    #[arg(long = "device", value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub(crate) devices: Vec<String>,
    /// Threads of the CPU device, at most four for each usable core; one for each if not given.
    #[arg(short, long, value_name = "N", value_parser = positive(1024), allow_negative_numbers = true)]
    pub(crate) threads: Option<usize>,
    /// CPU kernels: auto (the fastest set that this processor runs), reference (the plain oracle), portable,
    /// avx2, avx512.
    #[arg(long, value_name = "SET", default_value = "auto", value_parser = kernels)]
    pub(crate) cpu_kernels: Kernels,
    /// Vulkan kernels: auto (by the kind of device), gpu, software (for drivers that run on the CPU).
    #[arg(long, value_name = "SET", default_value = "auto", value_parser = vulkan_kernels)]
    pub(crate) vulkan_kernels: biga_vulkan::Kernels,
    /// The file with this machine's measurements; BIGA_MACHINE_FILE names it for every command. `probe
    /// --measure` makes it, with its folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
}

/// Where each op of a model runs, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Print the table of placements with reasons and predicted times; this is what is printed anyway.
    #[arg(long, group = "shape")]
    pub(crate) explain: bool,
    /// Print JSON.
    #[arg(long, group = "shape")]
    pub(crate) json: bool,
    /// Print a Graphviz graph.
    #[arg(long, group = "shape")]
    pub(crate) dot: bool,
    /// Sequences that decode together.
    #[arg(short = 'b', long, value_name = "N", default_value = "1", value_parser = positive(MAX_SEQUENCES))]
    pub(crate) batch: usize,
}

/// Ask a model.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The prompt; read from standard input if neither -p nor -f is given.
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// A file with the prompt.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Most tokens to generate.
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = 512, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub(crate) n_predict: usize,
    /// Continue the prompt as it stands: no chat template, and nothing but the text on standard output.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Show tokens, speeds, submissions, placements and fallbacks at the end.
    #[arg(long)]
    pub(crate) stats: bool,
    /// A text that ends the generation; it is not shown. Repeatable.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stop: Vec<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// How tokens are chosen.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Temperature; 0 takes the best token always.
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    pub(crate) temp: f32,
    /// Keep the best K tokens; 0 keeps all.
    #[arg(long, value_name = "K", default_value_t = 40, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub(crate) top_k: usize,
    /// Keep the best tokens up to this sum of probabilities.
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true)]
    pub(crate) top_p: f32,
    /// Drop tokens below this fraction of the best one's probability.
    #[arg(long, value_name = "P", default_value_t = 0.05, allow_negative_numbers = true)]
    pub(crate) min_p: f32,
    /// Penalty on tokens of the last 64; 1 is none.
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) repeat_penalty: f32,
    /// Same seed, same text; random, and shown, if not given.
    #[arg(long, value_name = "N", value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
}

/// Measure prompt and decode speed, as llama-bench does.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Prompt lengths, 0 for none.
    #[arg(short = 'p', long, value_name = "TOKENS", value_delimiter = ',', default_value = "512",
        value_parser = whole::<usize>)]
    pub(crate) n_prompt: Vec<usize>,
    /// Tokens to decode, each the best one after the last, 0 for none.
    #[arg(short = 'n', long, value_name = "TOKENS", value_delimiter = ',', default_value = "128",
        value_parser = whole::<usize>)]
    pub(crate) n_gen: Vec<usize>,
    /// Tokens that each sequence holds before a test; they are not timed.
    #[arg(short = 'd', long, value_name = "TOKENS", value_delimiter = ',', default_value = "0",
        value_parser = whole::<usize>)]
    pub(crate) n_depth: Vec<usize>,
    /// Sequences that decode together.
    #[arg(short, long, value_name = "N", value_delimiter = ',', default_value = "1,4,16",
        value_parser = positive(MAX_SEQUENCES))]
    pub(crate) batch: Vec<usize>,
    /// Repetitions of each test, after one that is not counted.
    #[arg(short, long, value_name = "N", default_value = "5", value_parser = positive(1000))]
    pub(crate) reps: usize,
    /// After each test run one more step and show how long each kind of launch takes.
    #[arg(long)]
    pub(crate) profile: bool,
    /// Print JSON records with llama-bench's field names.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How well a model predicts a text, by llama-perplexity's method.
#[derive(Debug, clap::Args)]
pub(crate) struct PerplexityArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The text.
    pub(crate) file: PathBuf,
    /// Windows to score; all if not given.
    #[arg(long, value_name = "N", value_parser = positive(1 << 30))]
    pub(crate) chunks: Option<usize>,
    /// Keep finished windows in this file, and go on from those that it holds.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Write the logits of given tokens, for comparing engines.
#[derive(Debug, clap::Args)]
pub(crate) struct LogitsArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Token ids.
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true, value_parser = whole::<u32>)]
    pub(crate) tokens: Vec<u32>,
    /// Where the logits go, as safetensors.
    #[arg(
        short,
        long,
        value_name = "FILE",
        help = "A safetensors file: logits f32 [n_tokens, vocab] and input_ids i64 [n_tokens]"
    )]
    pub(crate) output: PathBuf,
    /// One token a step, as in decoding, instead of as many as fit.
    #[arg(long)]
    pub(crate) step_by_step: bool,
}

/// Sequences that can be asked for at once.
const MAX_SEQUENCES: usize = 256;

/// A model, and how it is to be placed.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// A .gguf file, or a folder with config.json and *.safetensors.
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) placement: PlacementArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// Where ops run and what memory they may take.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Placement")]
pub(crate) struct PlacementArgs {
    /// auto (least predicted time), hybrid (attention on the NPU, the rest on the GPU), gpu, cpu.
    #[arg(long, value_name = "POLICY", default_value = "auto")]
    pub(crate) policy: Policy,
    /// Placement rules, later ones winning.
    #[arg(
        long,
        value_name = "RULES",
        value_delimiter = ',',
        help = "CLASS[:LAYERS][@PHASE]=DEVICE, such as attention=npu,ffn:0-10=gpu,head@decode=cpu. Repeatable; \
                later rules win"
    )]
    pub(crate) place: Vec<PlaceRule>,
    /// Refuse any fallback, and any named device that is missing (exit code 4).
    #[arg(long)]
    pub(crate) strict: bool,
    /// Storage of keys and values: f32, f16, bf16 or q8_0; chosen by the plan if not given.
    #[arg(long, value_name = "TYPE", value_parser = kv_type)]
    pub(crate) kv_type: Option<DType>,
    /// Quantise safetensors weights while loading: int8 (q8_0) or int4 (q4_0).
    #[arg(long, value_name = "TYPE")]
    pub(crate) quantize: Option<Quantize>,
    /// Most memory to take of each device, such as 8G.
    #[arg(long, value_name = "SIZE", value_parser = size::parse_bytes)]
    pub(crate) memory_limit: Option<u64>,
    /// Longest text in tokens; the model's own limit, at most 4096, if not given.
    #[arg(short = 'c', long = "context", value_name = "TOKENS", value_parser = positive(1 << 24),
        allow_negative_numbers = true)]
    pub(crate) context: Option<usize>,
}

/// A whole number from 1 to `most`.
pub(crate) fn positive(most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match text.parse::<usize>() {
        Ok(value) if (1..=most).contains(&value) => Ok(value),
        _ => Err(format!("a whole number from 1 to {most} is needed")),
    }
}

/// A whole number that its type holds.
fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    let most = u64::MAX >> (64 - 8 * size_of::<T>());
    text.parse().map_err(|_| format!("a whole number from 0 to {most} is needed"))
}

fn kernels(word: &str) -> Result<Kernels, String> {
    let set = match word {
        "auto" => return Ok(Kernels::Auto),
        "reference" => Kernels::Reference,
        "portable" => Kernels::Portable,
        "avx2" => Kernels::Avx2,
        "avx512" => Kernels::Avx512,
        _ => return Err("one of auto, reference, portable, avx2, avx512 is needed".to_owned()),
    };
    if Kernels::available().contains(&set) { Ok(set) } else { Err("this processor lacks the instructions".to_owned()) }
}

fn vulkan_kernels(word: &str) -> Result<biga_vulkan::Kernels, String> {
    match word {
        "auto" => Ok(biga_vulkan::Kernels::Auto),
        "gpu" => Ok(biga_vulkan::Kernels::Gpu),
        "software" => Ok(biga_vulkan::Kernels::Software),
        _ => Err("one of auto, gpu, software is needed".to_owned()),
    }
}

fn kv_type(word: &str) -> Result<DType, String> {
    let dtype = DType::from_name(word).filter(|dtype| DType::KV.contains(dtype));
    dtype.ok_or_else(|| format!("one of {} is needed", DType::KV.map(DType::name).join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
