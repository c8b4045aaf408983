//! The built command: exit codes, messages, and what goes to which stream. Runs on the CPU with tiny
//! random models; a test that needs a real model says so when it has none.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

fn fixture(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    folder.to_string_lossy().into_owned()
}

fn llama() -> String {
    fixture("tiny-llama")
}

/// The command with no stored measurements and nothing on standard input.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_biga"));
    command.args(arguments).env("BIGA_MACHINE_FILE", "/nonexistent/machine.json").env_remove("BIGA_LOG");
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("biga runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts the exit code, that every word is in the message, and that no result was printed.
#[track_caller]
fn check_refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = run(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    for word in words {
        assert!(message.contains(word), "{arguments:?}: {word:?} is not in {message}");
    }
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", text(&output.stdout));
}

#[track_caller]
fn check_done(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn check_json(arguments: &[&str]) -> Value {
    serde_json::from_str(&check_done(arguments)).expect("json alone on standard output")
}

#[test]
fn help_and_version_are_results() {
    assert!(check_done(&["--help"]).contains("130 interrupted"));
    assert!(check_done(&["--version"]).starts_with("biga "));
    for subcommand in ["probe", "plan", "run", "bench", "perplexity", "logits"] {
        assert!(check_done(&[subcommand, "--help"]).contains("--device"), "{subcommand}");
    }
}

#[test]
fn a_wrong_command_line_is_bad_usage() {
    check_refused(&[], 2, &["Usage"]);
    check_refused(&["fly"], 2, &["fly"]);
    check_refused(&["probe", "--nope"], 2, &["--nope"]);
    check_refused(&["run", &llama(), "-p", "hi", "-t", "0"], 2, &["1 to 1024"]);
    check_refused(&["run", &llama(), "-p", "hi", "--policy", "best"], 2, &["best", "auto, hybrid, gpu, cpu"]);
    check_refused(&["run", &llama(), "-p", "hi", "--kv-type", "q4_k"], 2, &["f32, f16, bf16, q8_0"]);
    check_refused(&["run", &llama(), "-p", "hi", "--quantize", "int3"], 2, &["int3", "int8, int4"]);
    check_refused(&["run", &llama(), "-p", "hi", "--memory-limit", "8X"], 2, &["K, M, G or T"]);
    check_refused(&["run", &llama(), "-p", "hi", "--place", "attention"], 2, &["attention"]);
    check_refused(&["plan", &llama(), "--place", "ffn:0-99=cpu"], 2, &["ffn:0-99=cpu", "layer 99", "2 layers"]);
    check_refused(&["run", &llama(), "-p", "hi", "--cpu-kernels", "mmx"], 2, &["mmx", "auto, reference, portable"]);
    check_refused(&["run", &llama(), "-p", "hi", "-f", "x"], 2, &["--file"]);
    check_refused(&["run", &llama(), "-p", "hi", "--stop", ""], 2, &["--stop"]);
    check_refused(&["probe", "--device", ""], 2, &["--device"]);
    check_refused(&["probe", "--device", "cpu,"], 2, &["--device"]);
}

#[test]
fn far_more_threads_than_cores_are_bad_usage() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let threads = 4 * cores + 1;
    if threads > 1024 {
        eprintln!("skipped: {cores} cores carry every count of threads that can be asked for");
        return;
    }
    let words = [&format!("-t {threads}"), &format!("{cores} cores"), &format!("at most {}", 4 * cores)];
    for command in [&["plan", &llama()][..], &["probe"]] {
        check_refused(&[command, &["-t", &threads.to_string()]].concat(), 2, &words.map(String::as_str));
    }
}

#[test]
fn sampling_out_of_range_names_value_and_bound() {
    for (flag, value, bound) in [
        ("--temp", "-1", "0..=100"),
        ("--temp", "NaN", "0..=100"),
        ("--top-p", "1.5", "0..=1"),
        ("--min-p", "-0.1", "0..=1"),
        ("--repeat-penalty", "0", "0.01..=100"),
    ] {
        check_refused(&["run", &llama(), "-p", "hi", flag, value], 2, &[value, bound]);
    }
}

#[test]
fn an_empty_prompt_is_bad_usage() {
    check_refused(&["run", &llama(), "-p", ""], 2, &["the prompt is empty"]);
    check_refused(&["run", &llama(), "-p", " \n"], 2, &["the prompt is empty"]);
    check_refused(&["run", &llama()], 2, &["the prompt is empty"]);
    check_refused(&["run", "/nowhere.gguf"], 3, &["cannot open /nowhere.gguf"]);
}

#[test]
fn limits_are_named_with_both_values() {
    check_refused(&["plan", &llama(), "-c", "257"], 2, &["257", "256"]);
    check_refused(&["logits", &llama(), "--tokens", "1,2,3", "-c", "2", "-o", "/dev/null"], 2, &["3 tokens", "2"]);
    check_refused(&["logits", &llama(), "--tokens", "511,512", "-o", "/dev/null"], 2, &["512", "vocabulary"]);
    check_refused(&["bench", &llama(), "-p", "300", "-n", "0"], 2, &["300", "256"]);
    check_refused(&["plan", &llama(), "--memory-limit", "64K"], 1, &["the 64.0 KiB available", "raise --memory-limit"]);
    check_refused(&["bench", &llama(), "-p", "0", "-n", "0"], 2, &["nothing to measure"]);
}

#[test]
fn a_file_that_is_no_model_is_bad_input() {
    check_refused(&["plan", "/nonexistent/model.gguf"], 3, &["/nonexistent/model.gguf"]);
    check_refused(&["plan", env!("CARGO_MANIFEST_DIR")], 3, &["config.json"]);
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("empty.gguf", &b""[..]), ("short.gguf", b"GGUF\x03\0\0\0"), ("text.gguf", b"hello")] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        check_refused(&["plan", path.to_str().unwrap()], 3, &["gguf"]);
    }
    check_refused(&["run", &llama(), "-f", "/nonexistent/prompt"], 3, &["/nonexistent/prompt"]);
    let latin = folder.path().join("latin1");
    fs::write(&latin, b"gr\xfcn").unwrap();
    let latin = latin.to_str().unwrap();
    check_refused(&["run", &llama(), "-f", latin], 3, &[latin, "utf-8", "byte 2 is 0xfc"]);
    check_refused(&["perplexity", &llama(), latin], 3, &[latin, "utf-8", "byte 2 is 0xfc"]);
    check_refused(&["run", &llama(), "-p", "hi"], 3, &["no tokenizer", "biga logits"]);
    check_refused(&["perplexity", &llama(), "/nonexistent/text"], 3, &["/nonexistent/text"]);
}

#[test]
fn a_missing_device_is_refused_when_strict_and_named_otherwise() {
    let missing = "no-such-gpu";
    check_refused(
        &["plan", &llama(), "--device", missing, "--strict"],
        4,
        &[missing, "cpu", "drop --strict", "`biga probe`"],
    );
    let output = run(&["plan", &llama(), "--device", missing]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains(missing));
    check_refused(&["probe", "--device", missing], 4, &[missing, "`biga probe` without --device"]);
}

#[test]
fn strict_hybrid_without_an_npu_names_the_cause() {
    if Path::new("/dev/accel").exists() {
        eprintln!("skipped: this machine has an accelerator");
        return;
    }
    check_refused(
        &["plan", &llama(), "--policy", "hybrid", "--strict"],
        4,
        &["drop --strict", "`biga probe`", "wanted"],
    );
    check_refused(
        &["plan", &llama(), "--place", "attention=npu", "--strict"],
        4,
        &["npu", "no amd npu on the pci bus"],
    );
    let done = check_done(&["plan", &llama(), "--place", "attention=npu"]);
    assert!(done.to_lowercase().contains("fallback"), "{done}");
}

#[test]
fn a_probe_lists_the_cpu_and_explains_absences() {
    let shown = check_done(&["probe"]);
    let cpu = shown.split("\n\n").find(|device| device.starts_with("cpu: ")).expect("the CPU is shown");
    assert!(cpu.contains("threads") && cpu.contains("instruction sets"), "{cpu}");
    assert!(!cpu.contains("driver"), "its instruction sets stand there a second time: {cpu}");
    let json = check_json(&["probe", "--json", "-t", "3"]);
    assert_eq!(json["version"], 1);
    let cpu = json["devices"].as_array().unwrap().iter().find(|device| device["id"] == "cpu").unwrap();
    assert_eq!(cpu["facts"]["threads"], "3");
    assert_eq!(cpu["rates"]["measured"], false);
    assert!(json["npu"]["devices"].is_array());
}

#[test]
fn measurements_are_stored_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("new/machine.json");
    let store = store.to_str().unwrap();
    check_refused(&["probe", "--store", store], 3, &[store, "`biga probe --measure --store"]);
    check_refused(&["plan", &llama(), "--store", store], 3, &[store, "`biga probe --measure --store"]);
    let arguments = ["probe", "--measure", "--json", "--device", "cpu", "--store", store];
    let measured = check_json(&arguments);
    assert_eq!(measured["devices"][0]["rates"]["measured"], true, "{measured}");
    let later = check_json(&["probe", "--json", "--device", "cpu", "--store", store]);
    assert_eq!(later["devices"][0]["rates"], measured["devices"][0]["rates"]);

    fs::write(store, "not json").unwrap();
    let output = run(&["probe", "--store", store]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("ignored"), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(store).unwrap(), "not json");
}

#[test]
fn logits_are_the_same_in_one_step_and_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, extra: &[&str]| -> Vec<f32> {
        let path = folder.path().join(name);
        let llama = llama();
        let mut arguments = vec!["logits", &llama, "--device", "cpu", "--tokens", "2,17,301,45,99", "-o"];
        arguments.push(path.to_str().unwrap());
        arguments.extend(extra);
        assert_eq!(check_done(&arguments), "");
        let bytes = fs::read(path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("input_ids").unwrap().shape(), [5]);
        let logits = file.tensor("logits").unwrap();
        assert_eq!(logits.shape(), [5, 512]);
        logits.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    let reference = write("reference", &["--cpu-kernels", "reference"]);
    let (whole, single) = (write("whole", &[]), write("single", &["--step-by-step"]));
    for other in [&single, &reference] {
        let furthest = whole.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // f32 throughout; only the order of sums may differ.
        assert!(furthest < 1e-4, "{furthest}");
    }
    assert!(whole.iter().any(|logit| logit.abs() > 1.0));
    check_refused(&["logits", &llama(), "--tokens", "1", "-o", "/nonexistent/x"], 1, &["/nonexistent/x"]);
}

#[test]
fn a_bench_prints_a_table_or_records() {
    let arguments = ["bench", &llama(), "-p", "16", "-n", "4", "-b", "1,2", "-r", "2", "--device", "cpu"];
    let table = check_done(&arguments);
    for word in ["| model", "pp16", "tg4", "tg4 x2", " ± ", "| decode | ffn | cpu"] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    let json = check_json(&[&arguments[..], &["--json"]].concat());
    let records = json.as_array().unwrap();
    assert_eq!(records.len(), 3);
    for record in records {
        assert_eq!(record["version"], 1);
        assert_eq!(record["samples_ts"].as_array().unwrap().len(), 2);
        assert!(record["avg_ts"].as_f64().unwrap() > 0.0);
        assert!(!record["placements"].as_array().unwrap().is_empty());
    }
    let lengths: Vec<_> =
        records.iter().map(|r| (r["n_prompt"].as_u64(), r["n_gen"].as_u64(), r["batch"].as_u64())).collect();
    assert_eq!(lengths, [(Some(16), Some(0), Some(1)), (Some(0), Some(4), Some(1)), (Some(0), Some(4), Some(2))]);
}

#[test]
fn a_bench_at_depth_counts_steps_and_host_time() {
    // Gemma's sliding windows are shorter than the context that is asked for.
    for model in ["tiny-llama", "tiny-gemma3"] {
        let arguments = ["bench", &fixture(model), "--device", "cpu", "-p", "8", "-n", "4", "-b", "1,2", "-r", "3"];
        let json = check_json(&[&arguments[..], &["-d", "0,100", "--json"]].concat());
        let records = json.as_array().unwrap();
        let number = |record: &Value, name: &str| record[name].as_u64().unwrap_or_else(|| panic!("{name}: {record}"));
        let tests: Vec<_> =
            records.iter().map(|r| ["n_depth", "n_prompt", "n_gen", "batch"].map(|name| number(r, name))).collect();
        let at = |depth| [[depth, 8, 0, 1], [depth, 0, 4, 1], [depth, 0, 4, 2]];
        assert_eq!(tests, [at(0), at(100)].concat(), "{model}");
        for record in records {
            let (steps, n_gen) = (number(record, "n_steps"), number(record, "n_gen"));
            assert_eq!(steps, 3 * n_gen.max(1), "{model}: one step a token, one for the prompt: {record}");
            assert_eq!(number(record, "submissions"), steps, "{model}: {record}");
            assert_eq!(number(record, "objects_created"), 0, "{model}: {record}");
            assert!(record["host_us_per_token"].as_f64().unwrap() > 0.0, "{model}: {record}");
        }
    }
    let table = check_done(&["bench", &llama(), "--device", "cpu", "-p", "0", "-n", "2", "-r", "1", "-d", "9"]);
    assert!(table.contains("tg2 @ d9") && table.contains("tg2 x4 @ d9"), "{table}");
    check_refused(&["bench", &llama(), "-p", "16", "-n", "0", "-d", "250"], 2, &["266", "256"]);
}

#[test]
fn a_plan_is_a_table_or_json_or_a_picture() {
    let json = check_json(&["plan", &llama(), "--device", "cpu", "--json"]);
    assert_eq!(json["version"], 1);
    assert!(json["ops"].as_array().unwrap().iter().all(|op| op["placements"]["decode"]["device"] == "cpu"), "{json}");
    check_refused(&["plan", &llama(), "--json", "--explain"], 2, &["--explain"]);
    assert!(check_done(&["plan", &llama(), "--dot"]).starts_with("digraph"));
    let table = check_done(&["plan", &llama(), "--device", "cpu"]);
    assert!(table.contains("cpu") && table.contains("ffn"), "{table}");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = command(&["probe", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_closed_standard_error_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let logits = folder.path().join("logits");
    let logits = ["logits", &llama(), "--device", "cpu", "-vv", "--tokens", "1,2", "-o", logits.to_str().unwrap()];
    for (arguments, code) in [(&logits[..], 0), (&["plan", "/nonexistent/model"], 3), (&["plan"], 2)] {
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(code), "{arguments:?}");
    }
    assert!(folder.path().join("logits").exists());
}

/// The tiny model, changed, with a tokenizer of two letters, changed.
fn changed_model(change: impl FnOnce(&mut Value), change_weights: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(format!("{}/config.json", llama()), folder.path().join("config.json")).unwrap();
    let mut weights = fs::read(format!("{}/model.safetensors", llama())).unwrap();
    change_weights(&mut weights);
    fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    let mut tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    });
    change(&mut tokenizer);
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

#[test]
fn a_hostile_tokenizer_is_bad_input() {
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 3] = [
        (|json| json["model"]["continuing_subword_prefix"] = "####".into(), "continuing_subword_prefix"),
        (
            |json| {
                json["normalizer"] = serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAA="})
            },
            "Precompiled",
        ),
        (|json| json["pre_tokenizer"] = serde_json::json!({"type": "FixedLength", "length": 0}), "tokenise"),
    ];
    for (change, words) in changes {
        let folder = changed_model(change, |_| {});
        let arguments = ["run", folder.path().to_str().unwrap(), "--device", "cpu", "--raw", "-p", "ab", "-n", "1"];
        check_refused(&arguments, 3, &["biga: error: ", words]);
        assert!(!text(&run(&arguments).stderr).contains("panicked"));
    }
}

#[test]
fn a_model_is_not_written_over() {
    let folder = changed_model(|_| {}, |_| {});
    let (model, weights) = (folder.path().to_str().unwrap(), folder.path().join("model.safetensors"));
    let before = fs::read(&weights).unwrap();
    let onto = ["logits", model, "--device", "cpu", "--tokens", "1", "-o", weights.to_str().unwrap()];
    check_refused(&onto, 2, &["is the model"]);
    assert_eq!(fs::read(&weights).unwrap(), before);
}

#[test]
fn a_perplexity_state_is_of_one_model_alone() {
    let (one, other) = (changed_model(|_| {}, |_| {}), changed_model(|_| {}, |bytes| *bytes.last_mut().unwrap() ^= 1));
    let (file, state) = (one.path().join("text"), one.path().join("state"));
    fs::write(&file, "ab".repeat(40)).unwrap();
    let perplexity = |model: &tempfile::TempDir| {
        let [model, file, state] = [model.path(), &file, &state].map(|path| path.to_str().unwrap().to_owned());
        ["perplexity", &model, &file, "--device", "cpu", "-c", "8", "--state", &state].map(str::to_owned)
    };
    let arguments = perplexity(&one);
    check_done(&arguments.each_ref().map(String::as_str));
    check_refused(&perplexity(&other).each_ref().map(String::as_str), 3, &["belongs to another"]);
}

#[test]
fn logits_that_are_no_numbers_are_refused() {
    let folder = changed_model(
        |_| {},
        |weights| {
            // The file is the header's length, the header, and the tensors from its end on.
            let start = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
            let header: Value = serde_json::from_slice(&weights[8..start]).unwrap();
            let at = start + header["model.norm.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
            weights[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        },
    );
    let (model, words) = (folder.path().to_str().unwrap(), ["logit of token id 0 after token 0 is NaN", "kernel"]);
    let path = folder.path().join("logits");
    let output = path.to_str().unwrap();
    check_refused(&["logits", model, "--device", "cpu", "--tokens", "1,2", "-o", output], 1, &words);
    assert!(!path.exists());
    let file = folder.path().join("text");
    fs::write(&file, "ab".repeat(8)).unwrap();
    let words = ["logit of token id 0 after token 2 is NaN"];
    check_refused(&["perplexity", model, file.to_str().unwrap(), "--device", "cpu", "-c", "4"], 1, &words);
}

#[test]
fn texts_have_a_bound() {
    check_refused(&["perplexity", &llama(), "/dev/zero"], 3, &["/dev/zero is longer than 512.0 MiB"]);
    check_refused(&["run", &llama(), "-f", "/dev/zero"], 3, &["/dev/zero is longer than 64.0 MiB"]);
}

/// Sends the signal of Ctrl-C, once the process has a handler for it.
fn interrupt(child: &Child) {
    let status = format!("/proc/{}/status", child.id());
    let caught = || {
        let text = fs::read_to_string(&status).expect("the process runs");
        let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask of signals");
        u64::from_str_radix(mask.trim(), 16).expect("a hexadecimal mask") & (1 << (2 - 1)) != 0
    };
    while !caught() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

#[test]
fn ctrl_c_ends_a_prompt_between_its_steps() {
    let child = command(&["bench", &llama(), "--device", "cpu", "-p", "256", "-n", "0", "-r", "1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(message.contains("ctrl-c again") && message.contains("interrupted in pp256"), "{message}");
}

#[test]
fn an_interrupted_measuring_stores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("machine.json");
    let child = command(&["probe", "--measure", "--device", "cpu", "--store", store.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(message.contains("interrupted; nothing was stored in ") && !store.exists(), "{message}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    let ids = vec!["1"; 256].join(",");
    let mut child = command(&["logits", &llama(), "--device", "cpu", "--tokens", &ids, "-o", "/dev/stdout"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What it writes is more than a pipe holds: after the first byte it waits for a reader, for ever.
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    interrupt(&child);
    let mut messages = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(messages.any(|line| line.unwrap().contains("ctrl-c again ends at once")));
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// The real model that the tests of text use, if this machine has it.
fn smollm2() -> Option<String> {
    let model = std::env::var("BIGA_SMOLLM2").ok().filter(|path| Path::new(path).is_file());
    if model.is_none() {
        eprintln!("skipped: BIGA_SMOLLM2 names no model");
    }
    model
}

#[test]
fn a_run_streams_text_and_keeps_statistics_apart() {
    let Some(model) = smollm2() else { return };
    let greedy = ["run", &model, "--device", "cpu", "--temp", "0", "-n", "16"];
    let output = run(&[&greedy[..], &["-p", "Tell me the capital of France.", "--stats"]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("Paris"), "{}", text(&output.stdout));
    let stats = text(&output.stderr);
    for word in ["tok/s", "first token after", "submissions", "where each op ran", "no fallback"] {
        assert!(stats.contains(word), "{word} is not in\n{stats}");
    }
    let stopped = run(&[&greedy[..], &["-p", "Tell me the capital of France.", "--stop", " Paris"]].concat());
    assert!(!text(&stopped.stdout).contains("Paris"));

    let mut child = command(&[&greedy[..], &["--raw"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"The capital of France is").unwrap();
    let piped = child.wait_with_output().unwrap();
    assert!(text(&piped.stdout).contains("Paris") && !text(&piped.stdout).contains("The capital of France is Paris"));
    assert_eq!(text(&piped.stderr), "", "nothing to say about a greedy run");
}

#[test]
fn ctrl_c_ends_a_run_with_statistics() {
    let Some(model) = smollm2() else { return };
    let mut child =
        command(&["run", &model, "--device", "cpu", "--temp", "0.5", "-n", "100000", "--raw", "-p", "Once"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut first = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let stats = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stats}");
    assert!(stats.contains("interrupted") && stats.contains("tok/s"), "{stats}");
}

#[test]
fn perplexity_goes_on_where_it_stopped() {
    let Some(model) = smollm2() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, state) = (folder.path().join("text"), folder.path().join("state"));
    let words: Vec<String> = (0..400).map(|n| format!("{n} and {}", n * 7 % 31)).collect();
    fs::write(&file, words.join(", ")).unwrap();
    let perplexity = |chunks: &str, state: Option<&Path>| {
        let mut arguments = vec!["perplexity", &model, file.to_str().unwrap(), "--device", "cpu", "-c", "32", "--json"];
        arguments.extend(["--chunks", chunks]);
        arguments.extend(state.iter().flat_map(|state| ["--state", state.to_str().unwrap()]));
        check_json(&arguments)
    };
    perplexity("2", Some(&state));
    let continued = perplexity("4", Some(&state));
    assert_eq!(continued, perplexity("4", None));
    assert_eq!((&continued["n_windows"], &continued["n_scored"]), (&Value::from(4), &Value::from(4 * 15)));
    assert!(continued["perplexity"].as_f64().unwrap() > 1.0);
    let other = ["perplexity", &model, file.to_str().unwrap(), "-c", "64", "--state", state.to_str().unwrap()];
    check_refused(&other, 3, &["belongs to another"]);
    let short = folder.path().join("short");
    fs::write(&short, "a few words").unwrap();
    check_refused(&["perplexity", &model, short.to_str().unwrap()], 3, &["tokens", "1024"]);
}

#[test]
fn a_prompt_longer_than_the_context_names_both() {
    let Some(model) = smollm2() else { return };
    check_refused(
        &["run", &model, "--raw", "-p", "one two three four five six", "-c", "4"],
        2,
        &["6 tokens", "4", "8192"],
    );
}
