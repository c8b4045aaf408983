use std::path::PathBuf;

use super::{Llama, batch, matching_device, single};
use crate::{
    engines::{Engine, Job, in_order},
    libraries::Libraries,
    machine::Device,
    test::{DEFAULT, Group, Test},
};

fn line(group: &Group, device: &Device, name: &str) -> String {
    let programs = ["/b/llama-bench", "/b/llama-batched-bench", "/b/llama-completion"].map(PathBuf::from);
    let llama = Llama { programs, libraries: Libraries::default(), device: name.to_owned() };
    let group = llama.part_of(group).unwrap();
    let job = Job { group: &group, model: PathBuf::from("/m.gguf"), device, threads: Some(2) };
    let command = llama.command(&job);
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    let program = command.get_program().to_string_lossy().into_owned();
    [program].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_group_is_one_command() {
    let groups = Group::of(&DEFAULT);
    let gpu = Device::for_tests("vulkan:0", "discrete-gpu");
    let on = "-m /m.gguf -dev Vulkan0 -ngl 99 -fa on -t 2";
    let check = |group: usize, tool: &str, rest: &str| {
        assert_eq!(line(&groups[group], &gpu, "Vulkan0"), format!("/b/{tool} {on} {rest}"));
    };
    check(0, "llama-bench", "-d 0 -p 512 -n 128 -r 1 -o json");
    check(2, "llama-bench", "-d 8192 -p 0 -n 128 -r 1 -o json");
    check(3, "llama-batched-bench", "-npp 1 -ntg 32 -npl 4,4,8,8,16,16,32,32 -c 1056 --output-format jsonl");
    let start = "-p hello -n 1 -c 4096 --temp 0 -no-cnv --no-display-prompt --no-warmup --simple-io --ignore-eos";
    check(1, "llama-completion", start);
    let cpu = Device::for_tests("cpu", "cpu");
    assert!(line(&groups[0], &cpu, "none").contains("-dev none -ngl 0"));
}

/// In the shape of llama-bench's answer, with figures of our own.
const SINGLE: &str = r#"[
  { "build_commit": "x", "build_number": 1, "devices": "Vulkan0", "type_k": "f16", "type_v": "f16", "n_prompt": 16,
    "n_gen": 0, "n_depth": 0, "avg_ts": 3.5, "samples_ns": [ 1 ], "samples_ts": [ 200.5 ] },
  { "build_commit": "x", "build_number": 1, "devices": "Vulkan0", "type_k": "f16", "type_v": "f16", "n_prompt": 0,
    "n_gen": 4, "n_depth": 0, "avg_ts": 3.5, "samples_ns": [ 1, 1 ], "samples_ts": [ 40.0, 42.0 ] }
]"#;

#[test]
fn records_of_one_stream_are_read() {
    let samples = single(SINGLE, "Vulkan0").unwrap();
    let values: Vec<(Test, f64)> = samples.iter().map(|sample| (sample.test, sample.value)).collect();
    assert_eq!(values, [(Test::Prompt { n: 16, depth: 0 }, 200.5), (Test::Decode { n: 4, batch: 1, depth: 0 }, 41.0)]);
    assert_eq!(samples[1].kv.as_deref(), Some("f16"));
    assert!(single("no json", "Vulkan0").is_err());
    let words = single(SINGLE, "none").unwrap_err().to_string();
    assert!(words.contains("Vulkan0") && words.contains("none"), "{words}");
}

/// Lines in the shape of llama-batched-bench's answer, with a line of log between them.
const BATCH: &str = r#"
{"n_kv_max": 512, "pp": 1, "tg": 8, "pl": 2, "n_kv": 18, "t_tg": 0.5, "speed_tg": 32.0, "speed": 30.0}
main: n_kv_max = 512
{"n_kv_max": 512, "pp": 1, "tg": 8, "pl": 4, "n_kv": 36, "t_tg": 5.0, "speed_tg": 6.4, "speed": 6.0}
{"n_kv_max": 512, "pp": 1, "tg": 8, "pl": 4, "n_kv": 36, "t_tg": 0.5, "speed_tg": 64.0, "speed": 60.0}
"#;

#[test]
fn lines_of_streams_together_are_read() {
    let samples = batch(BATCH, 0).unwrap();
    let group = Group::of(&["tg8x4", "tg8x2"].map(|word| word.parse().unwrap())).remove(0);
    let values: Vec<f64> = in_order(&group, samples).unwrap().iter().map(|sample| sample.value).collect();
    assert_eq!(values, [64.0, 32.0]);
    let words = in_order(&group, batch(&BATCH.replace("\"pl\": 4", "\"pl\": 5"), 0).unwrap()).unwrap_err().to_string();
    assert!(words.contains("tg8x4"), "{words}");
    assert!(batch("{\"pp\": 1}", 0).is_err());
}

#[test]
fn the_device_is_found_by_its_name() {
    let listed = "load_backend: loaded CPU backend from /x/libggml-cpu.so\nAvailable devices:\n\
                  \x20 Vulkan0: Some GPU (X 1) (1024 MiB, 512 MiB free)\n  Vulkan1: Other (8 MiB, 8 MiB free)\n";
    assert_eq!(matching_device(listed, "Some GPU (X 1)").unwrap(), "Vulkan0");
    assert_eq!(matching_device(listed, "Other").unwrap(), "Vulkan1");
    let words = matching_device(listed, "Third").unwrap_err().to_string();
    assert!(words.contains("Third") && words.contains("Some GPU (X 1), Other"), "{words}");
    assert!(matching_device("Available devices:\n  (none)\n", "Other").unwrap_err().to_string().contains("no device"));
}
