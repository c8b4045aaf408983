//! Compiles `glsl/*.comp` to SPIR-V, one variant per storage format where a kernel has formats, and
//! writes the table that `src/lib.rs` includes.

use std::{env, fmt::Write as _, fs, path::Path};

use glslang::{
    Compiler, CompilerOptions, ShaderInput, ShaderMessage, ShaderSource, ShaderStage, SourceLanguage, SpirvVersion,
    Target, VulkanVersion,
    include::{IncludeHandler, IncludeResult, IncludeType},
};

const WEIGHTS: &[&str] = &["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"];
const PLAIN: &[&str] = WEIGHTS.first_chunk::<3>().unwrap();
const QUANTISED: &[&str] = WEIGHTS.last_chunk::<8>().unwrap();
const HALVES: &[&str] = WEIGHTS.last_chunk::<10>().unwrap();
/// What the backend lets lanes make matrices of; the source has every quantised format.
const LANES: &[&str] = &["q4_0", "q8_0"];
const KV: &[&str] = &["f32", "f16", "bf16", "q8_0"];
const KV_HALVES: &[&str] = &["f16", "q8_0"];
const NONE: &[&str] = &[""];

/// Source name without `.comp`, and the formats it is compiled for.
const KERNELS: &[(&str, &[&str])] = &[
    ("embed", WEIGHTS),
    ("matvec", PLAIN),
    ("matvec_i8", QUANTISED),
    ("matvec_one", QUANTISED),
    ("matvec_lanes", LANES),
    ("matmul_rows", WEIGHTS),
    ("matmul_tile", PLAIN),
    ("matmul_tile_i8", QUANTISED),
    ("matmul_matrix", HALVES),
    ("matmul_split", HALVES),
    ("matmul_direct", HALVES),
    ("matrix_layout", NONE),
    ("quantise", NONE),
    ("x_to_f16", NONE),
    ("gate_up", QUANTISED),
    ("gate_up_one", QUANTISED),
    ("gate_up_lanes", LANES),
    ("quantise", NONE),
    ("row_norm", NONE),
    ("rms_norm", NONE),
    ("qk_norm", NONE),
    ("rope", NONE),
    ("kv_append", KV),
    ("rope_append", KV),
    ("attention", KV),
    ("attention_split", KV),
    ("attention_rows", KV),
    ("attention_matrix", KV_HALVES),
    ("residual", NONE),
    ("activate", NONE),
    ("select_outputs", NONE),
    ("prove_held", NONE),
    ("sample_parts", NONE),
    ("sample", NONE),
    ("read_bandwidth", NONE),
];

struct Includes;

impl IncludeHandler for Includes {
    fn include(&mut self, _: IncludeType, name: &str, _: &str, _: usize) -> Option<IncludeResult> {
        let data = fs::read_to_string(Path::new("glsl").join(name)).ok()?;
        Some(IncludeResult { name: name.to_owned(), data })
    }
}

fn compile(name: &str, format: &str) -> Vec<u32> {
    let path = format!("glsl/{name}.comp");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // `#include` is an extension that must be asked for after the version line.
    let text = text.replacen("#version 460\n", "#version 460\n#extension GL_GOOGLE_include_directive : require\n", 1);
    let source = ShaderSource::from(text);
    let options = CompilerOptions {
        source_language: SourceLanguage::GLSL,
        target: Target::Vulkan { version: VulkanVersion::Vulkan1_3, spirv_version: SpirvVersion::SPIRV1_6 },
        version_profile: None,
        messages: ShaderMessage::DEFAULT,
    };
    let define = format!("FORMAT_{}", format.to_uppercase());
    let defines = [(define.as_str(), Some("1"))];
    let compiler = Compiler::acquire().expect("glslang starts");
    let mut includes = Includes;
    let input = ShaderInput::new(&source, ShaderStage::Compute, &options, Some(&defines), Some(&mut includes))
        .unwrap_or_else(|error| panic!("{path} {format}: {error}"));
    let shader = compiler.create_shader(input).unwrap_or_else(|error| panic!("{path} {format}: {error}"));
    shader.compile().unwrap_or_else(|error| panic!("{path} {format}: {error}"))
}

fn main() {
    println!("cargo:rerun-if-changed=glsl");
    println!("cargo:rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let mut table = String::from("static SPIRV: &[(&str, &str, &[u32])] = &[\n");
    for (name, formats) in KERNELS {
        for format in *formats {
            let words = compile(name, format);
            let _ = writeln!(table, "(\"{name}\", \"{format}\", &{words:?}),");
            // The bytes beside it serve offline tools (validation, disassembly, a driver's statistics).
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let file = if format.is_empty() { format!("{name}.spv") } else { format!("{name}-{format}.spv") };
            fs::write(Path::new(&out).join(file), bytes).expect("OUT_DIR is writable");
        }
    }
    table.push_str("];\n");
    fs::write(Path::new(&out).join("table.rs"), table).expect("OUT_DIR is writable");
}
