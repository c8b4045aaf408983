use std::{os::unix::process::ExitStatusExt, path::PathBuf, process::ExitStatus, time::Duration};

use super::{Biga, Engine, Job};
use crate::{
    libraries::Libraries,
    machine::Device,
    process::Output,
    test::{DEFAULT, Group, Test},
};

fn engine() -> Biga {
    let options = vec!["--kv-type=f16".to_owned()];
    Biga::new(PathBuf::from("/bin/biga"), Libraries::default(), PathBuf::from("/tmp/machine.json"), options)
}

fn output(stdout: &str) -> Output {
    let status = ExitStatus::from_raw(0);
    let first_byte = (!stdout.is_empty()).then_some(Duration::from_millis(250));
    Output { status, stdout: stdout.to_owned(), stderr: String::new(), first_byte }
}

fn line(group: &Group, device: &Device) -> String {
    let job = Job { group, model: PathBuf::from("/m.gguf"), device, threads: None };
    let command = engine().command(&job);
    command.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_group_is_one_command() {
    let groups = Group::of(&DEFAULT);
    let gpu = Device::for_tests("vulkan:0", "discrete-gpu");
    let start = "/m.gguf --device vulkan:0 --strict --policy gpu --kv-type=f16";
    assert_eq!(line(&groups[0], &gpu), format!("bench {start} -d 0 -p 512 -n 128,256 -b 1 -r 1 --json"));
    assert_eq!(line(&groups[1], &gpu), format!("run {start} --raw -p hello -n 1 --temp 0 -c 4096"));
    assert_eq!(line(&groups[2], &gpu), format!("bench {start} -d 8192 -p 0 -n 128 -b 1 -r 1 --json"));
    assert_eq!(line(&groups[3], &gpu), format!("bench {start} -d 0 -p 0 -n 32 -b 4,8,16,32 -r 1 --json"));
    let cpu = Device::for_tests("cpu", "cpu");
    assert!(line(&groups[1], &cpu).contains("--device cpu --strict --policy cpu"), "{}", line(&groups[1], &cpu));
}

/// A record with the fields that are read, and one that is not.
fn record(n_prompt: usize, n_gen: usize, batch: usize, rate: f64) -> String {
    format!(
        r#"{{"version": 1, "n_prompt": {n_prompt}, "n_gen": {n_gen}, "n_depth": 0, "batch": {batch},
            "samples_ts": [{rate}], "type_k": "f16", "host_us_per_token": 12.5, "n_steps": 4, "submissions": 8,
            "objects_created": 1, "allocations": 2, "mappings": 0}}"#
    )
}

#[test]
fn records_become_samples_of_the_group() {
    let group = Group::of(&["pp8", "tg4", "host4"].map(|word| word.parse().unwrap())).remove(0);
    let device = Device::for_tests("cpu", "cpu");
    let job = Job { group: &group, model: PathBuf::new(), device: &device, threads: None };
    let text = format!("[{}, {}]", record(0, 4, 1, 50.0), record(8, 0, 1, 900.0));
    let samples = engine().samples(&job, &output(&text)).unwrap();
    let values: Vec<(Test, f64)> = samples.iter().map(|sample| (sample.test, sample.value)).collect();
    assert_eq!(
        values,
        [
            (Test::Prompt { n: 8, depth: 0 }, 900.0),
            (Test::Decode { n: 4, batch: 1, depth: 0 }, 50.0),
            (Test::Host { n: 4 }, 50.0)
        ]
    );
    let host = &samples[2];
    assert_eq!((host.host_us_per_token, host.submissions_per_step), (Some(12.5), Some(2.0)));
    assert_eq!((host.objects_created, host.kv.as_deref()), (Some(3), Some("f16")));
    let words = |text: &str| format!("{:#}", engine().samples(&job, &output(text)).unwrap_err());
    assert!(words(&format!("[{}]", record(8, 0, 1, 900.0))).contains("tg4"));
    assert!(words(&text.replace("900", "0")).contains("pp8: 0"));
    assert!(words("{}").contains("another shape"));
}

#[test]
fn the_start_is_timed_to_the_first_text() {
    let device = Device::for_tests("cpu", "cpu");
    let job = Job { group: &Group::Start, model: PathBuf::new(), device: &device, threads: None };
    let samples = engine().samples(&job, &output(" t7")).unwrap();
    assert_eq!((samples[0].test, samples[0].value), (Test::Start, 0.25));
    assert!(engine().samples(&job, &output("\n")).is_err());
    assert!(engine().samples(&job, &output("")).is_err());
}
