use super::{Report, median};
use crate::record::{Line, parse};

/// Results of our own making: two rounds on a tied model whose step reads 1000 bytes, on a device that
/// reads 100 000 bytes a second.
const RESULTS: &str = r#"
{"kind":"session","version":1,"id":"s","machine":{"cpu":"C","threads":2,"memory_bytes":8589934592,"kernel":"6"},"device":{"id":"vulkan:0","argument":"auto","name":"G","kind":"discrete-gpu","driver":"D","identity":"i","memory_bytes":9},"engines":[{"name":"biga","identity":"biga 1","unavailable":null},{"name":"llama.cpp","identity":"llama.cpp 2","unavailable":null}],"threads":null}
{"kind":"bandwidth","session":"s","read_bytes_per_s":100000.0,"unavailable":null}
{"kind":"model","session":"s","model":"m","synthetic":true,"file":"m.gguf","size_bytes":1100,"context":64,"cost":{"weight_bytes":1000,"embedding_row_bytes":0,"kv":[]}}
{"kind":"sample","session":"s","model":"m","engine":"biga","round":0,"test":"tg4","value":50.0,"kv":"f16","host_us_per_token":9.0,"submissions_per_step":1.0,"objects_created":0}
{"kind":"sample","session":"s","model":"m","engine":"llama.cpp","round":0,"test":"tg4","value":20.0,"kv":"f16"}
{"kind":"sample","session":"s","model":"m","engine":"biga","round":1,"test":"tg4","value":70.0,"kv":"f16","host_us_per_token":11.0,"submissions_per_step":2.0,"objects_created":3}
{"kind":"sample","session":"s","model":"m","engine":"llama.cpp","round":1,"test":"tg4","value":30.0,"kv":"f16"}
{"kind":"sample","session":"old","model":"m","engine":"biga","round":0,"test":"tg4","value":1.0,"kv":"f16"}
{"kind":"sample","session":"s","model":"m","engine":"biga","round":0,"test":"tg4x4","value":100.0}
{"kind":"sample","session":"s","model":"m","engine":"biga","round":0,"test":"start","value":2.0}
{"kind":"sample","session":"s","model":"m","engine":"llama.cpp","round":0,"test":"start","value":5.0}
{"kind":"failure","session":"s","model":"m","engine":"llama.cpp","tests":["tg4x4"],"reason":"took longer than 9 s"}
{"kind":"sample","session":"s","model":"m","engine":"biga","round":0,"test":"host4","value":60.0,"host_us_per_token":10.0,"submissions_per_step":1.0,"objects_created":0}
"#;

fn lines() -> Vec<Line> {
    parse(RESULTS).unwrap()
}

#[test]
fn medians_ratios_and_bandwidth_follow_from_the_lines() {
    let json = serde_json::to_value(Report::of(&lines()).unwrap()).unwrap();
    assert_eq!(json["read_bytes_per_s"], 100_000.0);
    let tests = json["models"][0]["tests"].as_array().unwrap();
    let row = |name: &str| tests.iter().find(|row| row["test"] == name).unwrap();
    let decode = row("tg4");
    assert_eq!((&decode["biga"]["median"], &decode["llama"]["median"]), (&60.0.into(), &25.0.into()));
    assert_eq!(decode["ratio"], 2.4);
    assert_eq!((&decode["biga"]["least"], &decode["biga"]["most"]), (&50.0.into(), &70.0.into()));
    assert_eq!((&decode["biga"]["n_samples"], &decode["biga"]["bytes_per_token"]), (&2.into(), &1000.0.into()));
    assert_eq!((&decode["biga"]["of_bandwidth"], &decode["llama"]["of_bandwidth"]), (&0.6.into(), &0.25.into()));
    assert_eq!(decode["biga"]["host_us_per_token"], 10.0);
    // The worst of all rounds, where any is too much.
    assert_eq!((&decode["biga"]["submissions_per_step"], &decode["biga"]["objects_created"]), (&2.0.into(), &3.into()));
    let streams = row("tg4x4");
    assert_eq!((&streams["biga"]["bytes_per_token"], &streams["biga"]["of_bandwidth"]), (&250.0.into(), &0.25.into()));
    assert!(streams["ratio"].is_null());
    assert_eq!(streams["llama"]["unavailable"], "took longer than 9 s");
    assert_eq!(row("start")["ratio"], 2.5);
    assert!(row("start")["biga"]["of_bandwidth"].is_null());
    assert_eq!(row("host4")["llama"]["unavailable"], "measured for biga alone");
}

#[test]
fn the_text_says_what_the_weights_are_and_what_is_missing() {
    let text = Report::of(&lines()).unwrap().to_text();
    for words in [
        "synthetic weights: for speed only",
        "| tg4 | 60.00 | 50.00..70.00 | 25.00 | 20.00..30.00 | 2+2 | 2.40 | 0.0 MB | 60.0 % | 25.0 % |",
        "| start | 2.000 s |",
        "tg4x4, llama.cpp: unavailable: took longer than 9 s",
        "10.0 us of host CPU time",
        "biga       biga 1",
        "measured by biga probe in the same run",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    assert!(!text.contains("host4, llama.cpp"), "{text}");
}

#[test]
fn an_engine_that_is_absent_is_the_reason_everywhere() {
    let absent = r#"{"name":"llama.cpp","identity":null,"unavailable":"no llama-bench"}"#;
    let text = RESULTS.replace(r#"{"name":"llama.cpp","identity":"llama.cpp 2","unavailable":null}"#, absent);
    let text: String =
        text.lines().filter(|line| !line.contains(r#""engine":"llama.cpp""#)).map(|line| format!("{line}\n")).collect();
    let report = Report::of(&parse(&text).unwrap()).unwrap().to_text();
    assert!(report.contains("llama.cpp  unavailable: no llama-bench"), "{report}");
    assert!(report.contains("tg4, llama.cpp: unavailable: no llama-bench"), "{report}");
}

#[test]
fn a_file_without_a_session_has_no_report() {
    assert!(Report::of(&[]).is_err());
}

#[test]
fn a_median_is_in_the_middle() {
    assert_eq!(median(&mut []), None);
    assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
}
