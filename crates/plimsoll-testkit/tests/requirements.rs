//! `scripts/requirements` on a small repository whose every verdict is known, and the real list it works on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const COPIED: [&str; 5] = [
    "docs/requirements.md",
    "crates/sample/Cargo.toml",
    "crates/sample/src/lib.rs",
    "crates/sample/tests/whole.rs",
    "tests/outside/main.rs",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/requirements")
}

/// A copy of the sample repository in a folder of its own, without a run.
fn sample(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("requirements-{name}"));
    let _ = fs::remove_dir_all(&root);
    for file in COPIED {
        copy(&fixtures().join(file), &root.join(file));
    }
    root
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a file has a folder")).expect("folder made");
    fs::copy(from, to).expect("file copied");
}

fn record_run(root: &Path, profile: &str, report: &str) {
    let folder = root.join("target/nextest").join(profile);
    fs::create_dir_all(&folder).expect("folder made");
    fs::write(folder.join("junit.xml"), report).expect("report written");
}

fn run_of_the_sample() -> String {
    fs::read_to_string(fixtures().join("junit.xml")).expect("the sample's report")
}

fn requirements(root: &Path) -> Output {
    Command::new("python3")
        .arg(workspace().join("scripts/requirements"))
        .arg("--root")
        .arg(root)
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .expect("python3 runs the script")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("utf-8")
}

#[test]
fn only_an_id_named_by_a_passing_test_is_met() {
    let root = sample("verdicts");
    record_run(&root, "default", &run_of_the_sample());

    let output = requirements(&root);

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = "\
met   Z-1   passes
open  Z-2   fails: failed
open  Z-3
met   Z-4   z_4_is_in_the_name
open  Z-5   fails: failed
open  Z-6   never_ran: not in the last run
open  Z-7
open  Z-8
met   Z-9   spans_lines
met   Z-10  whole
open  Z-11  skipped: skipped
met   Z-12  made_by_a_macro
short Z-13  measured
met   Z-14  fails
met 6 of 14, 1 in short form only
";
    assert_eq!(stdout(&output), expected);
}

#[test]
fn an_id_without_a_row_is_reported_beside_the_list() {
    let root = sample("unknown");
    record_run(&root, "default", &run_of_the_sample());

    let messages = String::from_utf8(requirements(&root).stderr).expect("utf-8");

    assert!(messages.contains("Z-99 is named by a test but has no row"), "{messages}");
}

#[test]
fn runs_of_several_profiles_count_together() {
    let root = sample("profiles");
    record_run(&root, "default", &run_of_the_sample());
    let later = r#"<testsuites><testsuite name="sample">
        <testcase name="tests::never_ran" classname="sample"/>
    </testsuite></testsuites>"#;
    record_run(&root, "e2e", later);

    let listed = stdout(&requirements(&root));

    assert!(listed.contains("met   Z-6   never_ran\n"), "{listed}");
    assert!(listed.ends_with("met 7 of 14, 1 in short form only\n"), "{listed}");
}

/// A percentile, an hour or a slope is not shown by a short run: only one in full size meets such a row.
#[test]
fn a_proof_in_full_size_is_met_by_a_run_in_full_size_only() {
    let case = |name: &str, outcome: &str| {
        format!(r#"<testcase name="{name}" classname="sample::outside">{outcome}</testcase>"#)
    };
    let run = |cases: &[String]| format!("<testsuites><testsuite>{}</testsuite></testsuites>", cases.concat());
    let verdict = |name: &str, runs: &[(&str, String)]| {
        let root = sample(&format!("full-{name}"));
        for (profile, report) in runs {
            record_run(&root, profile, report);
        }
        let listed = stdout(&requirements(&root));
        listed.lines().find(|line| line.contains("Z-13")).expect("a line for each id").to_owned()
    };
    let (passed, failed) = (run(&[case("measured", "")]), run(&[case("measured", "<failure/>")]));
    let short = ("default", passed.clone());
    assert_eq!(verdict("short", std::slice::from_ref(&short)), "short Z-13  measured");
    assert_eq!(verdict("both", &[short.clone(), ("full", passed.clone())]), "met   Z-13  measured");
    assert_eq!(verdict("failed", &[short.clone(), ("full", failed)]), "open  Z-13  measured: failed");
    assert_eq!(verdict("elsewhere", &[short, ("stress", passed)]), "short Z-13  measured");
}

#[test]
fn without_a_run_the_result_is_unknown() {
    for (name, report) in [("none", None), ("empty", Some("<testsuites/>")), ("broken", Some("<testsuites>"))] {
        let root = sample(name);
        if let Some(report) = report {
            record_run(&root, "default", report);
        }

        let output = requirements(&root);

        assert_eq!(output.status.code(), Some(3), "{name}: {output:?}");
        assert!(stdout(&output).starts_with("unknown: "), "{name}: {output:?}");
    }
}

#[test]
fn the_list_has_every_id_once_and_a_sentence_for_each() {
    let document = fs::read_to_string(workspace().join("docs/requirements.md")).expect("docs/requirements.md");
    let rows: Vec<Vec<&str>> = document
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes().get(3) == Some(&b'-'))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();

    let listed: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    let sources = [("M", 27), ("L", 26), ("F", 40), ("E", 13), ("R", 27)];
    let expected: Vec<String> =
        sources.iter().flat_map(|(letter, last)| (1..=*last).map(move |n| format!("{letter}-{n}"))).collect();
    assert_eq!(listed, expected);

    for row in &rows {
        let [id, sentence, proof] = row[..] else { panic!("{row:?} has not three cells") };
        assert!(sentence.len() > 40 && sentence.ends_with('.'), "{id}: {sentence:?} is not a sentence");
        let kinds = |kind: &str| matches!(kind, "U" | "P" | "X" | "S" | "F" | "N" | "B" | "D");
        assert!(proof.split(' ').all(kinds), "{id}: {proof:?} are no kinds of proof");
    }
}
